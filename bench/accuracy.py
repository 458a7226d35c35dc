"""`make bench-accuracy`: every method on every problem, beside the truth and beside the peers.

Results are JSON lines in bench/accuracy.jsonl, added one by one, so that a run that was cut off goes on with --resume.
"""

import argparse
import json
import math
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from bench.methods import AUTO, NUM_CHAINS, Record, budget, methods
from bench.peers.client import ENVIRONMENTS, PeerError, peer_estimates
from bench.peers.protocol import Peer, PeerEstimate, PeerRun
from bench.peers.sweep import sweep
from bench.problems import Problem, names, problem
from bench.report import write
from bench.truth import truth

RESULTS = Path(__file__).parent / "accuracy.jsonl"
QUICK_RESULTS = Path(__file__).parent / "results" / "accuracy_quick.jsonl"

QUICK = "potential/w4/1e2,quadratic/1e2,deep_linear/3-3-3-3/r1/block,deep_linear/5-3-5/r2/moved"
QUICK_EFFORT = 0.25

PEERS: Sequence[Peer] = ("devinterp13", "devinterp20", "canonical")

PEER_PROBLEMS = (
    "potential/w4/1e4,potential/x2y2/1e4,quadratic/1e2,deep_linear/5-3-5/r2/moved,deep_linear/10-10-10/r3/block,"
    "deep_linear/5-5-5-5-5/r2/block,reduced_rank/1/minimum,superposition/6-of-6,relu/1"
)
"""A sweep of each peer on each problem costs more than all our methods."""

PEER_STEPS = (0.02, 0.2, 1.0)
"""Of the sweep, ε times the largest curvature: the peers are told that too. The best is tried at √10 on either side."""

PEER_BATCH_SIZE = 256

SWEEP_SEEDS = range(3)
"""What a sweep is judged by, and what peers are run at with their defaults."""

PEER_SEEDS = range(100, 110)
"""What the best of a sweep is held to the truth by: at other seeds than it was chosen by, or it would be luck."""


class Results:
    """The records of a run, in memory and in a file."""

    def __init__(self, path: Path, resume: bool) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        lines = path.read_text().splitlines() if path.exists() and resume else []
        self.records = [Record.model_validate_json(line) for line in lines if _is_whole(line)]
        path.write_text("".join(f"{record.model_dump_json()}\n" for record in self.records))
        self._known = {(record.problem, record.method, record.seed) for record in self.records}

    def has(self, problem: str, method: str, seed: int) -> bool:
        return (problem, method, seed) in self._known

    def add(self, record: Record) -> None:
        with self._path.open("a") as file:
            file.write(record.model_dump_json() + "\n")
        self.records.append(record)
        self._known.add((record.problem, record.method, record.seed))


def _is_whole(line: str) -> bool:
    """Whether a line was written to its end."""
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


AUTO_SEEDS, HAND_SEEDS, QUICK_SEEDS = 10, 2, 1


def run_ours(
    results: Results, problems: Sequence[str], wanted: Sequence[str], seeds: int | None, effort: float, jobs: int = 1
) -> None:
    """Every method and seed that is not there yet. wanted: names of methods, all if empty; jobs: processes."""
    missing = [
        (name, method, seed)
        for name in problems
        for method in methods(problem(name), effort)
        if not wanted or method in wanted
        for seed in range(seeds or (AUTO_SEEDS if method.startswith(AUTO) else HAND_SEEDS))
        if not results.has(name, method, seed)
    ]
    with ProcessPoolExecutor(jobs, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        for done in as_completed(pool.submit(_run_one, *each, effort) for each in missing):
            results.add(done.result())
            _say(results.records[-1])


def _run_one(name: str, method: str, seed: int, effort: float) -> Record:
    """In a process of its own; the truth is looked up there too, which may take a minute to make."""
    one = problem(name)
    made = methods(one, effort)[method](one, seed)
    truth(one, made.nbeta, made.gamma, made.tether)
    return made


def run_peers(results: Results, one: Problem, base: str, effort: float) -> None:
    """Every peer whose environment is there, at its defaults and at the best settings of a sweep, at the (nβ, γ) that
    our method `base` chose most often, with as many gradients as that took in the mean over seeds.
    """
    like = [record for record in results.records if (record.problem, record.method) == (one.name, base)]
    scales = Counter((record.nbeta, record.gamma) for record in like) or Counter({(one.nbeta, one.gamma): 1})
    ((nbeta, gamma), _), *_ = scales.most_common()
    gradients = round(fmean(record.gradient_evaluations for record in like)) if like else budget(one, effort)
    for peer in PEERS:
        if not (ENVIRONMENTS / peer).exists() or results.has(one.name, f"{peer}, best of a sweep", PEER_SEEDS[0]):
            continue
        try:
            for record in _ask(peer, one, nbeta, gamma, gradients):
                results.add(record)
                _say(record)
        except PeerError as error:
            print(f"{one.name}: {error}", flush=True)


def _ask(peer: Peer, one: Problem, nbeta: float, gamma: float, gradients: int) -> Iterator[Record]:
    batch_size = min(PEER_BATCH_SIZE, one.n)
    num_steps = max(2, gradients // (NUM_CHAINS * batch_size))
    default = PeerRun(
        num_chains=NUM_CHAINS,
        num_burnin_steps=num_steps // 2,
        num_draws=num_steps - num_steps // 2,
        batch_size=batch_size,
        seeds=tuple(SWEEP_SEEDS),
        # Step sizes and samplers are the peer's own; the scale is the problem's, or there would be no common truth.
        nbeta=nbeta,
        gamma=gamma,
        sampler={"lr": 1e-3} if peer == "devinterp20" else {},  # it has no default; its README's
    )
    for estimate in peer_estimates(peer, one.peer, [default]):
        yield _record(peer, "defaults", one, default, estimate, nbeta, gamma)
    reference = truth(one, nbeta, gamma)
    tried = sweep(
        peer,
        one.peer,
        reference.value,
        nbeta=nbeta,
        gamma=gamma,
        gradient_evaluations=gradients,
        batch_sizes=(batch_size,),
        num_chains=NUM_CHAINS,
        epsilons=[step / reference.sharpness for step in PEER_STEPS],
        seeds=tuple(SWEEP_SEEDS),
    )
    best = tried[0].run.model_copy(update={"seeds": tuple(PEER_SEEDS)})
    for estimate in peer_estimates(peer, one.peer, [best]):
        yield _record(peer, "best of a sweep", one, best, estimate, nbeta, gamma)


def _record(
    peer: Peer, what: str, one: Problem, run: PeerRun, found: PeerEstimate, nbeta: float, gamma: float
) -> Record:
    steps: Any = run.sampler.get("lr", run.sampler.get("learning_rate"))
    return Record(
        problem=one.name,
        method=f"{peer}, {what}",
        seed=found.seed,
        nbeta=nbeta,
        gamma=gamma,
        estimate=found.llc,
        std_error=found.std_error,
        gradient_evaluations=found.gradient_evaluations,
        seconds=found.seconds,
        verdict="none",
        reason=found.error or "",
        epsilon=steps,
    )


def _say(record: Record) -> None:
    reference = truth(problem(record.problem), record.nbeta, record.gamma, record.tether).value
    value, error = (math.nan if number is None else number for number in (record.estimate, record.std_error))
    print(
        f"{record.problem:36s} {record.method:28s} {record.seed:2d} {value:10.4g} ± {error:8.2g} "
        f"{value / reference - 1:+8.1%} {record.gradient_evaluations:9d} {record.seconds:6.1f} s  {record.verdict}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Estimates of every method on every problem, and a report on them.")
    parser.add_argument(
        "--quick", action="store_true", help="four small problems, one seed, a quarter of the gradients"
    )
    parser.add_argument("--problems", default=None, metavar="PATTERN", help="names with * and ?, commas between them")
    parser.add_argument("--methods", default="", metavar="NAMES", help="only these, semicolons between them")
    parser.add_argument("--seeds", type=int, default=None, help=f"{AUTO_SEEDS} of auto, {HAND_SEEDS} of the others")
    parser.add_argument("--peers", default=None, metavar="PATTERN", help="problems that peers are asked; '' for none")
    parser.add_argument("--base", default=AUTO, metavar="METHOD", help="whose scale and gradients the peers get")
    parser.add_argument("--jobs", type=int, default=1, help="processes, one thread each")
    parser.add_argument("--resume", action="store_true", help="go on with the results that are there")
    parser.add_argument("--report", action="store_true", help="no runs; the report on the results that are there")
    parser.add_argument("--out", type=Path, default=None, help="folder of accuracy.md and accuracy.png")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    quick = arguments.quick
    effort = QUICK_EFFORT if quick else 1.0
    results = Results(QUICK_RESULTS if quick else RESULTS, arguments.resume or arguments.report)
    start = time.perf_counter()
    if not arguments.report:
        chosen = names(arguments.problems or (QUICK if quick else "*"))
        wanted = [name.strip() for name in arguments.methods.split(";") if name.strip()]
        seeds = arguments.seeds or (QUICK_SEEDS if quick else None)
        run_ours(results, chosen, wanted, seeds, effort, arguments.jobs)
        peers = arguments.peers if arguments.peers is not None else ("" if quick else PEER_PROBLEMS)
        for name in (name for name in names(peers) if name in chosen):
            run_peers(results, problem(name), arguments.base, effort)
    out = arguments.out or (QUICK_RESULTS.parent if quick else Path("docs"))
    write(results.records, out, missing=[peer for peer in PEERS if not (ENVIRONMENTS / peer).exists()])
    print(f"{out / 'accuracy.md'}: {len(results.records)} estimates, {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
