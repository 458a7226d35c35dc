"""The oracles as objectives that the sampling loop takes."""

import torch
from torch import Tensor

from llc.chains import sample
from llc.draws import Draws
from llc.ensemble import per_sample_losses
from llc.layout import Layout
from llc.models import DeepLinear
from llc.objective import Batch, ModelObjective, Objective
from llc.rows import rows_of
from llc.settings import LLCSettings
from tests.oracles import LinearNetworkProblem, Oracle


class OracleObjective:
    """A loss known in closed form; every sample has it, so that a minibatch has no noise."""

    def __init__(self, oracle: Oracle, num_samples: int = 4) -> None:
        self.oracle = oracle
        self.layout = Layout({"w": (oracle.dimension,)})
        self.num_samples = num_samples
        self.device = torch.device("cpu")

    def batch(self, indices: Tensor) -> Batch:
        return {"index": indices}

    def per_sample_loss(self, w: Tensor, batch: Batch) -> Tensor:
        return self.oracle.loss(w) + 0 * batch["index"]


def linear_objective(problem: LinearNetworkProblem) -> ModelObjective:
    """The objective of a linear network's problem."""
    return ModelObjective(DeepLinear(widths=problem.widths), {"x": problem.x, "y": problem.y})


def draw(objective: Objective, anchors: Tensor, settings: LLCSettings) -> Draws:
    """Chains from each of the anchors (checkpoints, d)."""
    rows = rows_of(anchors, per_sample_losses(objective, anchors), settings, objective.layout)
    return sample(objective, rows, settings)


def draw_oracle(oracle: Oracle, settings: LLCSettings) -> Draws:
    """Chains of an oracle, from its minimum."""
    return draw(OracleObjective(oracle), torch.zeros(1, oracle.dimension), settings)
