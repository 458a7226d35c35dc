"""The toy model of superposition: six features through two dimensions and back, learned in jumps.

One feature is active at a time. Trained by stochastic gradient descent from next to nothing, the network first outputs
each feature's mean whatever comes in; then the columns of W grow, one feature's after another, into the corners of a
regular polygon, and the loss falls in jumps: to a 4-gon, and, if a fifth feature finds room, to a 5-gon
[Chen et al. 2023, arXiv 2310.06301]. Most seeds pass the 4-gon by, or stay in it; 0, 3 and 23 rest there for a while.

λ̂ is estimated along the run at the usual nβ = n / log n, and at the end once more at a large nβ with a stronger tether,
for which chains stay so close that only curvatures count. So close, the noise of the training shows: this is of the
minimum beside the last checkpoint, to which gradient descent on all samples leads.

    python examples/superposition.py --serve       # with a stack of its own, for as long as it takes
    python examples/superposition.py               # against LAMBDAHAT_URL, with LAMBDAHAT_KEY
"""

from typing import Any

import numpy as np
import torch
from common import Anchor, Run, curvatures, example, measure, measure_plateaus, recorder
from torch import Tensor

import lambdahat
from llc.errors import InputError
from llc.exact import tms_kgon_lambda

NUM_FEATURES, NUM_HIDDEN = 6, 2
NUM_SAMPLES = 1000
SCALE = 0.03  # of W at the start
LEARNING_RATE, BATCH_SIZE = 0.1, 16
STEPS = 8000
DESCENT_RATE, DESCENT_STEPS = 0.5, 4000  # with all samples, from the end to the minimum beside it
MODEL = {"family": "tms", "num_features": NUM_FEATURES, "num_hidden": NUM_HIDDEN}
MEASURES: dict[str, dict[str, Any]] = {
    "loss": {},
    "llc": {
        "sampler": {"name": "baoab", "epsilon": 5e-3, "momentum": 0.8},
        "gamma": 3.0,
        "batch_size": NUM_SAMPLES,
        "num_burnin_steps": 80,
        "num_draws": 320,
    },
}
PLATEAU_LLC: dict[str, Any] = MEASURES["llc"] | {
    "sampler": {"name": "baoab", "epsilon": 1e-5, "momentum": 0.9},
    "nbeta": 1e5,
    "gamma": 100.0,
    "num_burnin_steps": 500,
    "num_draws": 2500,
}


class Network(torch.nn.Module):
    """The model above, under its parameter names."""

    def __init__(self) -> None:
        super().__init__()
        self.W = torch.nn.Parameter(SCALE * torch.randn(NUM_HIDDEN, NUM_FEATURES))
        self.b = torch.nn.Parameter(torch.zeros(NUM_FEATURES))

    def forward(self, x: Tensor) -> Tensor:
        return (x @ self.W.mT @ self.W + self.b).relu()


def draw_inputs() -> Tensor:
    """One active feature each, uniform in [0, 1]."""
    x = torch.zeros(NUM_SAMPLES, NUM_FEATURES)
    x[torch.arange(NUM_SAMPLES), torch.randint(NUM_FEATURES, (NUM_SAMPLES,))] = torch.rand(NUM_SAMPLES)
    return x


def num_corners(W: Tensor) -> int:
    """Columns at least half as long as the longest, if that is of any length: the corners of the polygon."""
    lengths = W.detach().norm(dim=0)
    return int((lengths > max(0.5 * float(lengths.max()), 0.3)).sum())


def mean_loss(network: Network, x: Tensor) -> Tensor:
    """Half the squared error, summed over features."""
    return (network(x) - x).square().sum(1).mean() / 2


def train(recording: lambdahat.Recorder, x: Tensor) -> Network:
    """Stochastic gradient descent; the recorder takes what its schedule asks for."""
    network = Network()
    optimizer = torch.optim.SGD(network.parameters(), lr=LEARNING_RATE)
    for step in range(STEPS + 1):
        if recording.wants(step):
            loss, corners = mean_loss(network, x).item(), num_corners(network.W)
            recording.record(step, network.state_dict(), {"train_loss": loss, "corners": corners})
            print(f"\rtraining: step {step:5d}  loss {loss:.4f}  corners {corners}", end="")
        optimizer.zero_grad()
        mean_loss(network, x[torch.randint(NUM_SAMPLES, (BATCH_SIZE,))]).backward()
        optimizer.step()
    print()
    return network


def descend(network: Network, x: Tensor) -> None:
    """To the minimum beside where stochastic gradient descent has left it."""
    optimizer = torch.optim.SGD(network.parameters(), lr=DESCENT_RATE)
    for _ in range(DESCENT_STEPS):
        optimizer.zero_grad()
        mean_loss(network, x).backward()
        optimizer.step()


def last_anchor(network: Network, x: Tensor) -> Anchor:
    """The minimum at the end of the run: which polygon it is, and λ, known from the paper or by counting.

    The paper's λ of a k-gon with k < 6 is for other features whose biases are negative, and which are never active:
    their parameters are free. Here they learn their mean, a bias of about 1/12, and their parameters count.
    """
    descend(network, x)
    state = {name: tensor.detach().numpy().astype(np.float32) for name, tensor in network.state_dict().items()}
    inputs, num_weights = x.double(), NUM_HIDDEN * NUM_FEATURES

    def loss(w: Tensor) -> Tensor:
        W, b = w[:num_weights].view(NUM_HIDDEN, NUM_FEATURES), w[num_weights:]
        return ((inputs @ W.mT @ W + b).relu() - inputs).square().sum(1).mean() / 2

    curved = curvatures(loss, torch.cat([network.W.detach().flatten(), network.b.detach()]))
    corners = num_corners(network.W)
    dead = network.b.detach()[network.W.detach().norm(dim=0) < 0.3]
    # All but the rotation of the plane is curved: then λ is half the number of curvatures.
    exact = (curved > 0).sum() / 2 if bool((dead > 0).all()) else known(corners)
    return Anchor(STEPS, state, f"{corners}-gon{'⁺' * len(dead[dead > 0])}", exact, curved)


def known(corners: int) -> float | None:
    """λ of a polygon, if the paper has it."""
    try:
        return float(tms_kgon_lambda(corners, NUM_FEATURES))
    except InputError:
        return None


def run_example(run: Run) -> None:
    """Train, record, post, measure, draw."""
    x = draw_inputs()
    dataset = run.client.create_dataset("one of six features", x=x)
    model = run.client.create_model("six features in two dimensions", MODEL)
    series = run.client.create_series("superposition", model, dataset, tags={"seed": run.seed})
    with recorder(run, series, lambdahat.log_linear_steps(STEPS, num_log=55)) as recording:
        network = train(recording, x)
    measure(run, series, MEASURES, "superposition")
    measure_plateaus(run, series, [last_anchor(network, x)], PLATEAU_LLC, "superposition")


if __name__ == "__main__":
    with example(__doc__, "demo") as this:
        run_example(this)
