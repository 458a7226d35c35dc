"""Addition modulo 53, from training to its developmental stages.

A small network (two embeddings summed, one hidden layer) learns half of all sums. It first memorises them, then, with
its training loss nearly flat, finds the rule and generalises. Every recorded checkpoint is posted to lambdahat, a job
measures loss, local learning coefficient and Hessian along the run, and the curve is read into transitions.

    python examples/modular_addition.py --serve       # with a stack of its own, for as long as it takes
    python examples/modular_addition.py               # against LAMBDAHAT_URL, with LAMBDAHAT_KEY
"""

from typing import Any

import torch
from common import Run, example, measure, recorder
from torch import Tensor, nn

import lambdahat

P = 53
EMBEDDING, HIDDEN = 64, 128
STEPS = 1500
MODEL = {
    "family": "mlp",
    "widths": [EMBEDDING, HIDDEN, P],
    "activation": "relu",
    "loss": "cross_entropy",
    "embeddings": {"vocabulary_size": P, "num_positions": 2},
}
MEASURES: dict[str, dict[str, Any]] = {
    "loss": {},
    "llc": {
        "sampler": {"name": "sgld", "epsilon": 1e-3},
        "gamma": 100.0,
        "batch_size": 256,
        "num_chains": 4,
        "num_burnin_steps": 40,
        "num_draws": 144,
    },
    "hessian": {},
}


class Network(nn.Module):
    """The model above, under its parameter names."""

    def __init__(self) -> None:
        super().__init__()
        self.embeddings = nn.ParameterList(nn.Parameter(torch.randn(P, EMBEDDING)) for _ in range(2))
        self.layers = nn.ModuleList([nn.Linear(EMBEDDING, HIDDEN), nn.Linear(HIDDEN, P)])

    def forward(self, x: Tensor) -> Tensor:
        h = self.embeddings[0][x[:, 0]] + self.embeddings[1][x[:, 1]]
        return self.layers[1](self.layers[0](h).relu())


def all_sums() -> tuple[Tensor, Tensor]:
    """Inputs (53², 2) and sums modulo 53, in random order."""
    a, b = torch.meshgrid(torch.arange(P), torch.arange(P), indexing="ij")
    x = torch.stack([a.flatten(), b.flatten()], dim=1)[torch.randperm(P * P)]
    return x, x.sum(1) % P


def train(recording: lambdahat.Recorder, x: Tensor, y: Tensor, unseen: tuple[Tensor, Tensor]) -> None:
    """Full-batch AdamW with strong weight decay; the recorder takes what its schedule asks for."""
    network = Network()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2, weight_decay=1.0, betas=(0.9, 0.98))
    for step in range(STEPS + 1):
        loss = nn.functional.cross_entropy(network(x), y)
        if recording.wants(step):
            with torch.no_grad():
                accuracy = (network(unseen[0]).argmax(1) == unseen[1]).float().mean().item()
            recording.record(step, network.state_dict(), {"train_loss": loss.item(), "test_accuracy": accuracy})
            print(f"\rtraining: step {step:5d}  loss {loss.item():.4f}  unseen sums right {accuracy:6.1%}", end="")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print()


def run_example(run: Run) -> None:
    """Train, record, post, measure, draw."""
    x, y = all_sums()
    half = P * P // 2
    dataset = run.client.create_dataset("sums modulo 53, one half", x=x[:half], y=y[:half])
    model = run.client.create_model("embeddings-64, hidden-128", MODEL)
    series = run.client.create_series("modular addition", model, dataset, tags={"p": P, "seed": run.seed})
    with recorder(run, series, lambdahat.log_linear_steps(STEPS, num_log=40)) as recording:
        train(recording, x[:half], y[:half], (x[half:], y[half:]))
    measure(run, series, MEASURES, "modular_addition")


if __name__ == "__main__":
    with example(__doc__, "demo") as this:
        run_example(this)
