"""Row-steps per second, ours beside the peers and beside bare forward and backward passes, in one run on one thread.

python -m bench.speed            writes bench/speed.json, case by case, and docs/speed.md

A row-step is a step of one chain at one checkpoint. Ours are of whole runs in the default proportion, burn-in and draws
half and half; peers, who take one checkpoint after the other, at the same chains, batch, step and temperature; bare
passes are `loss.backward()` on leaf tensors, with no sampler. Times are CPU time, so that another process costs less.
All take turns, round by round.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from pydantic import TypeAdapter
from torch import Tensor

from bench.peers.client import Problem, steps_per_second
from bench.peers.protocol import Peer, PeerRun
from llc.chains import Chains
from llc.ensemble import Plan, per_sample_losses
from llc.losses import LOSSES
from llc.models import MLP, Model, ToyModelOfSuperposition, Transformer
from llc.objective import ModelObjective
from llc.planning import choose_plan, read_plan
from llc.rows import rows_of
from llc.settings import Frozen, LLCSettings, SGLDSettings

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT, RESULTS = ROOT / "docs" / "speed.md", ROOT / "bench" / "speed.json"

NUM_CHECKPOINTS, NUM_CHAINS = 16, 4
EPSILON, NBETA, GAMMA = 1e-7, 100.0, 100.0
WARMUP_STEPS = 2
BARE_SECONDS = 3.0

COMPILED = ", compiled"

GENERATOR = np.random.default_rng(0)


@dataclass(frozen=True)
class Peers:
    """A way of running a peer, and its steps of the shorter of two timed runs."""

    name: str
    peer: Peer
    settings: Mapping[str, Any]
    steps: Mapping[str, int]


PEERS = (
    Peers("devinterp 1.3", "devinterp13", {"lr": EPSILON}, {"tms": 400, "small": 300, "large": 40, "transformer": 4}),
    Peers("devinterp 2.0", "devinterp20", {"lr": EPSILON}, {"tms": 400, "small": 300, "large": 40, "transformer": 4}),
    Peers(
        "canonical-interp",
        "canonical",
        {"learning_rate": EPSILON, "compile": False},
        {"tms": 400, "small": 300, "large": 40, "transformer": 4},
    ),
    Peers(
        "canonical-interp, compiled",
        "canonical",
        {"learning_rate": EPSILON},
        {"tms": 4000, "small": 1500, "large": 100, "transformer": 8},
    ),
)


@dataclass(frozen=True)
class Case:
    """A problem, what is asked of us, and the steps of a timed run: half of them burn-in."""

    name: str
    title: str
    model: Model[Any]
    arrays: Mapping[str, NDArray[Any]]
    batch_size: int
    steps: int
    goal: float
    """Times the best peer."""
    bare_goal: float | None = None
    """At most so many times the time of the bare passes."""


def cases() -> Iterator[Case]:
    """From 60 parameters to 1.5 million."""
    n = 2000
    yield Case(
        "tms",
        "toy model of superposition, 10 features in 5 dimensions",
        ToyModelOfSuperposition(num_features=10, num_hidden=5),
        {"x": GENERATOR.random((n, 10)).astype(np.float32)},
        batch_size=32,
        steps=1000,
        goal=10,
    )
    yield Case(
        "small",
        "MLP 2-64-64-2",
        MLP(widths=(2, 64, 64, 2)),
        {"x": GENERATOR.standard_normal((n, 2)).astype(np.float32), "y": GENERATOR.integers(0, 2, n)},
        batch_size=32,
        steps=200,
        goal=3,
    )
    yield Case(
        "large",
        "MLP 784-128-64-10",
        MLP(widths=(784, 128, 64, 10)),
        {"x": GENERATOR.standard_normal((n, 784)).astype(np.float32), "y": GENERATOR.integers(0, 10, n)},
        batch_size=256,
        steps=20,
        goal=1.3,
        bare_goal=1.25,
    )
    yield Case(
        "transformer",
        "two-layer transformer, sequences of 64",
        Transformer(vocabulary_size=320, context_length=64, d_model=256, num_layers=2, num_heads=8, d_mlp=768),
        {"x": GENERATOR.integers(0, 320, (512, 64))},
        batch_size=16,
        steps=20,
        goal=1.05,
        bare_goal=1.25,
    )


class Measured(Frozen):
    """A case's rates, row-steps per second of CPU time, by who and round."""

    case: str
    num_parameters: int
    plan: dict[str, Any]
    """The report of `llc.planning`."""
    machine: str
    date: str
    load: float
    """Other processes that ran meanwhile, on average."""
    rates: dict[str, list[float]]

    def best(self, name: str) -> float:
        """Disturbance only slows: the best round is the nearest to the truth."""
        return max(self.rates[name])

    def best_peer(self, *, compiled: bool) -> str:
        """Of all, or of those that compile nothing."""
        names = (peer.name for peer in PEERS if peer.name in self.rates)
        return max((name for name in names if compiled or not name.endswith(COMPILED)), key=self.best)

    def best_of_ours(self) -> str:
        """With the plan as it is, or compiled."""
        return max((name for name in ("ours", f"ours{COMPILED}") if name in self.rates), key=self.best)


KEPT = TypeAdapter(dict[str, Measured])


def measure(case: Case, rounds: int, say: Callable[[str], None]) -> Measured:
    """All of a case, turn by turn."""
    objective = ModelObjective(case.model, case.arrays)
    anchors = _anchors(objective.layout.num_parameters)
    settings = LLCSettings(
        sampler=SGLDSettings(epsilon=EPSILON),
        nbeta=NBETA,
        gamma=GAMMA,
        batch_size=case.batch_size,
        num_chains=NUM_CHAINS,
    )
    planning = choose_plan(objective, anchors, settings)
    fused = choose_plan(objective, anchors, settings.model_copy(update={"compile": True}))
    plans = _plans(planning.plan, fused.plan)
    ours = {name: _chains(objective, anchors, settings, plan) for name, plan in plans.items()}
    problem = Problem(case.model.model_dump(), anchors[0].numpy(), case.arrays)
    found: dict[str, list[float]] = {}
    loads: list[float] = []
    for _ in range(rounds):
        rates = {"bare passes": _bare(objective, anchors[0], case.batch_size)}
        rates |= {name: _rate(chains, case.steps) for name, chains in ours.items()}
        for peer in PEERS:
            run = PeerRun(
                sampler=dict(peer.settings),
                nbeta=NBETA,
                gamma=GAMMA,
                num_chains=NUM_CHAINS,
                batch_size=case.batch_size,
            )
            rates[peer.name] = steps_per_second(peer.peer, problem, run, peer.steps[case.name])
        loads.append(psutil.getloadavg()[1] - 1)
        for name, rate in rates.items():
            found.setdefault(name, []).append(rate)
        say(f"{case.name}: " + ", ".join(f"{name} {rate:.4g}" for name, rate in rates.items()))
    return Measured(
        case=case.name,
        num_parameters=objective.layout.num_parameters,
        plan=planning.report(),
        machine=_machine(),
        date=str(datetime.now(UTC).date()),
        load=max(0.0, statistics.mean(loads)),
        rates=found,
    )


def _anchors(d: int) -> Tensor:
    """Checkpoints of a made-up series, (checkpoints, d)."""
    generator = torch.Generator().manual_seed(0)
    start = 0.05 * torch.randn(d, generator=generator)
    return start + 0.01 * torch.randn(NUM_CHECKPOINTS, d, generator=generator)


def _plans(chosen: Plan, fused: Plan) -> dict[str, Plan]:
    """The chosen plan, what it was chosen against, and the one that is chosen if compiling is allowed."""
    plans = {"ours": chosen}
    if chosen.vectorised:
        plans["ours, row by row"] = replace(chosen, vectorised=False, rows_per_call=1)
    else:
        plans["ours, 4 rows a call"] = replace(chosen, vectorised=True, rows_per_call=4)
    return {**plans, f"ours{COMPILED}": fused} if fused.compiled else plans


def _chains(objective: ModelObjective, anchors: Tensor, settings: LLCSettings, plan: Plan) -> Chains:
    losses = per_sample_losses(objective, anchors, plan=plan)
    chains = Chains(objective, rows_of(anchors, losses, settings, objective.layout), settings, plan)
    chains.burn_in(WARMUP_STEPS)
    return chains


def _rate(chains: Chains, steps: int) -> float:
    start = time.process_time()
    chains.burn_in(steps // 2)
    chains.draw(steps // 2)
    return NUM_CHECKPOINTS * NUM_CHAINS * steps / (time.process_time() - start)


def _bare(objective: ModelObjective, w: Tensor, batch_size: int) -> float:
    """Forward and backward passes a second."""
    batch = objective.batch(torch.arange(batch_size))
    leaves = {name: part.clone().requires_grad_() for name, part in objective.layout.unflatten(w).items()}
    loss, targets = LOSSES[objective.model.loss], batch[objective.model.targets]
    passes, start = 0, time.process_time()
    while passes < WARMUP_STEPS or time.process_time() - start < BARE_SECONDS:
        loss(objective.model.forward(leaves, batch["x"]), targets).mean().backward()
        for leaf in leaves.values():
            leaf.grad = None
        passes += 1
        if passes == WARMUP_STEPS:
            start = time.process_time()
    return (passes - WARMUP_STEPS) / (time.process_time() - start)


# The document ---------------------------------------------------------------------------------------------------------

HEAD = """# Speed

`make bench-speed`: {runs}; one thread.

Row-steps (steps of one chain at one checkpoint) per second, in a series of {checkpoints} checkpoints × {chains} \
chains: the best round, in brackets the median, all taking turns, in CPU time. The plan is the one that a job would \
choose. Peers are at the same chains, batch, ε, nβ and γ, with the fastest loader they can be given \
([bench/peers](../bench/peers/README.md)); *bare passes* are forward and backward passes alone, in a plain loop.

"""

FOOT = """
## What limits what

Half of a run is burn-in, half draws. A draw costs two more products over the parameters, and every tenth takes a \
second minibatch gradient, by which the excess of step size and gradient noise is measured: 5 % of all gradients, \
which \
the rows above contain and the bare passes don't.

- **Tiny models** cost what the calls of tensor operations cost, some hundred a step whatever the number of rows; so \
rows go together, and `compile: true` fuses the calls. Compiling is off by default because it takes a C++ compiler and \
up to a minute.
- **Large models** go row by row, or a few rows together, at the speed of their own forward and backward passes: no \
sampler can be much faster than these, but by compiling them. What is beyond them is the noise, which is drawn once \
for all checkpoints, and a handful of passes over the parameters (place, force, step). Peers draw the noise for every \
checkpoint anew.
"""


def document(found: Mapping[str, Measured]) -> str:
    """docs/speed.md."""
    shown = [case for case in cases() if case.name in found]
    measured = [found[case.name] for case in shown]

    def line(title: str, cell: Callable[[Case, Measured], str]) -> str:
        return f"| {title} | {' | '.join(cell(case, one) for case, one in zip(shown, measured, strict=True))} |\n"

    text = HEAD.format(
        runs="; ".join(sorted({f"{one.date}, {one.machine}" for one in measured})),
        checkpoints=NUM_CHECKPOINTS,
        chains=NUM_CHAINS,
    )
    text += line("", lambda case, _: case.title)
    text += line("---", lambda *_: "---").replace("| --- |", "|---|", 1)
    text += line("parameters, batch", lambda case, one: f"{one.num_parameters:,}, {case.batch_size}")
    text += line("plan", lambda _, one: _plan_words(read_plan(one.plan)))
    text += line("bytes of a row", lambda _, one: f"{one.plan['row_bytes']:,}")
    text += line("rounds, other load", lambda _, one: f"{len(one.rates['ours'])}, {one.load:.1f}")
    for name in dict.fromkeys(name for one in measured for name in one.rates):
        text += line(f"**{name}**" if name == "ours" else name, lambda _, one, name=name: _rates(one, name))
    text += line("ours ÷ the best peer, nothing compiled", _without_compiler)
    text += line("**ours ÷ the best peer**, each at its best", _against_peers)
    text += line("**time of ours ÷ bare passes**", _against_bare)
    return text + FOOT


def _rates(one: Measured, name: str) -> str:
    rates = one.rates.get(name)
    return f"{max(rates):,.3g} ({statistics.median(rates):,.3g})" if rates else "–"


def _plan_words(plan: Plan) -> str:
    return f"{plan.rows_per_call} rows a call" if plan.vectorised else "row by row"


def _without_compiler(_: Case, one: Measured) -> str:
    peer = one.best_peer(compiled=False)
    return f"{one.best('ours') / one.best(peer):.3g} × {peer}"


def _against_peers(case: Case, one: Measured) -> str:
    ours, peer = one.best_of_ours(), one.best_peer(compiled=True)
    ratio = one.best(ours) / one.best(peer)
    return f"{ours}: {ratio:.3g} × {peer}; goal {case.goal:g} ×: {_verdict(ratio / case.goal)}"


def _against_bare(case: Case, one: Measured) -> str:
    """As it is, and compiled."""
    ratios = [one.best("bare passes") / one.best(name) for name in ("ours", f"ours{COMPILED}") if name in one.rates]
    text = f"{COMPILED} ".join(f"{ratio:.3g}" for ratio in ratios)
    if case.bare_goal is None:
        return text
    return f"{text}; goal {case.bare_goal:g}: {_verdict(case.bare_goal / min(ratios))}"


def _verdict(share: float) -> str:
    return "met" if share >= 1 else f"missed by {1 - share:.0%}"


def _machine() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, {psutil.cpu_count()} cores, torch {torch.__version__}"


def main() -> None:
    """Measure, and write the document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cases", nargs="*", help="of tms, small, large, transformer; the others stay as they are")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found = KEPT.validate_json(RESULTS.read_bytes()) if RESULTS.exists() else {}
    for case in cases():
        if arguments.cases is None or case.name in arguments.cases:
            found[case.name] = measure(case, arguments.rounds, print)
            RESULTS.write_bytes(KEPT.dump_json(found, indent=1) + b"\n")
    DOCUMENT.write_text(document(found))


if __name__ == "__main__":
    main()
