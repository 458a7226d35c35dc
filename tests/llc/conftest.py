"""The mathematics runs on one thread, as it does in a worker's child."""

import torch

torch.set_num_threads(1)
