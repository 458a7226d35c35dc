"""`make bench-stages`: the reader of stages on curves with planted ones, beside other ways to find them.

Writes docs/stages.md and its picture; a line of JSON for each curve goes to bench/results/stages.jsonl.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench.planted import Planted, Transition, plant
from llc.settings import StageSettings
from llc.stages import Stage, read_stages

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "stages.jsonl"
RIVALS = Path(".venv-peers/segmentation/bin/python"), HERE / "peers" / "segment.py"
OURS = "ours"

FIRST_SEED = 1_000_000
"""The reader's constants were set on curves of smaller seeds."""


class Found(NamedTuple):
    """A transition that was found; intervals in log(step + 1), None where a method has none."""

    start: float
    stop: float
    delta_llc: float
    type: str | None = None
    start_interval: tuple[float, float] | None = None
    stop_interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class Score:
    """Of one method on one curve. pairs: the planted transitions that were found."""

    method: str
    noise: float
    seed: int
    planted: int
    found: int
    pairs: Sequence[dict[str, Any]]


def matches(planted: Planted, found: Sequence[Found]) -> list[tuple[Transition, Found]]:
    """Each planted transition with the one that was found for it: in its direction, and the middle of each lies in the
    other, or no further out than the next checkpoint.
    """
    x, left, pairs = planted.x, list(found), []

    def holds(start: float, stop: float, where: float) -> bool:
        low, high = max(0, np.searchsorted(x, start, "right") - 1), min(len(x) - 1, np.searchsorted(x, stop))
        return bool(x[low] <= where <= x[high])

    for true in planted.transitions:
        for one in left:
            same_way = one.delta_llc * true.delta_llc > 0
            middle, true_middle = (one.start + one.stop) / 2, (true.start + true.stop) / 2
            if same_way and holds(true.start, true.stop, middle) and holds(one.start, one.stop, true_middle):
                pairs.append((true, one))
                left.remove(one)
                break
    return pairs


def score(method: str, noise: float, seed: int, planted: Planted, found: Sequence[Found]) -> Score:
    """What a method found on a curve, beside what is there."""
    pairs = [
        {
            "shape": true.shape,
            "type": one.type == true.type,
            "errors": [
                (one.start - true.start) / (true.stop - true.start),
                (one.stop - true.stop) / (true.stop - true.start),
            ],
            "covers": [
                None if interval is None else bool(interval[0] <= end <= interval[1])
                for interval, end in ((one.start_interval, true.start), (one.stop_interval, true.stop))
            ],
        }
        for true, one in matches(planted, found)
    ]
    return Score(method, noise, seed, len(planted.transitions), len(found), pairs)


def ours(planted: Planted) -> list[Found]:
    """What `llc.stages` finds."""
    return [_found(stage) for stage in read_stages(planted.curve, StageSettings()) if stage.kind == "transition"]


def _found(stage: Stage) -> Found:
    def x(step: float) -> float:
        return float(np.log1p(step))

    # Steps are whole numbers: an interval holds what would be rounded into it.
    return Found(
        x(stage.from_step),
        x(stage.to_step),
        stage.delta_llc,
        stage.type,
        (x(stage.from_step_low - 0.5), x(stage.from_step_high + 0.5)),
        (x(stage.to_step_low - 0.5), x(stage.to_step_high + 0.5)),
    )


def rivals(planted: Sequence[Planted]) -> dict[str, list[list[Found]]]:
    """What the others find on these curves; nothing if their environment is not there."""
    if not RIVALS[0].exists():
        return {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "curves.npz"
        arrays = {}
        for i, one in enumerate(planted):
            arrays |= {f"x{i}": one.x, f"llc{i}": one.curve.llc, f"llc_std_error{i}": one.curve.llc_std_error}
        np.savez(path, **arrays)
        answer = subprocess.run([*map(str, RIVALS), str(path)], stdout=subprocess.PIPE, check=True)
    return {
        name: [[_typed(curve, *ends) for ends in pieces] for curve, pieces in zip(planted, found, strict=True)]
        for name, found in json.loads(answer.stdout).items()
    }


def _typed(planted: Planted, start: float, stop: float) -> Found:
    """A stretch with its change of the LLC, and the type that the published rule gives it: by the changes' signs."""

    def change(values: np.ndarray) -> float:
        known = np.isfinite(values)
        return float(np.diff(np.interp([start, stop], planted.x[known], values[known]))[0])

    rises, falls = change(planted.curve.llc) > 0, change(planted.curve.loss) < 0
    return Found(start, stop, change(planted.curve.llc), ("A" if falls else None) if rises else "B")


def measure(noise: float, num_stages: int | None, seeds: Sequence[int]) -> list[Score]:
    """All methods on the curves of these seeds."""
    planted = [plant(seed, noise, num_stages) for seed in seeds]
    every = {OURS: [ours(one) for one in planted], **rivals(planted)}
    return [
        score(method, noise, seed, one, found)
        for method, all_found in every.items()
        for seed, one, found in zip(seeds, planted, all_found, strict=True)
    ]


def run(curves: int, noises: Sequence[float], processes: int) -> Iterator[Score]:
    """So many curves with stages at the first noise, a quarter at others, and half as many without any."""
    batches = [(noises[0], None, seeds) for seeds in _batches(FIRST_SEED, curves)]
    batches += [(noise, None, seeds) for noise in noises[1:] for seeds in _batches(FIRST_SEED, curves // 4)]
    batches += [(noises[0], 0, seeds) for seeds in _batches(2 * FIRST_SEED, curves // 2)]
    with ProcessPoolExecutor(processes) as pool:
        for done, scores in enumerate(pool.map(measure, *zip(*batches, strict=True)), start=1):
            yield from scores
            print(f"{done} of {len(batches)} batches", file=sys.stderr, flush=True)


def _batches(first: int, count: int, size: int = 25) -> list[range]:
    return [range(at, min(at + size, first + count)) for at in range(first, first + count, size)]


def main() -> None:
    """Measure, then report."""
    from bench.stages_report import write

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--curves", type=int, default=2000, help="at the first noise; a quarter at others, half without stages"
    )
    parser.add_argument("--noise", default=".05,.2", help="shares of the smallest stage's ΔLLC")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--report", action="store_true", help="only write the report on the last results")
    parser.add_argument("--out", type=Path, default=Path("docs"))
    arguments = parser.parse_args()
    if not arguments.report:
        RESULTS.parent.mkdir(exist_ok=True)
        noises = [float(noise) for noise in arguments.noise.split(",")]
        with RESULTS.open("w") as file:
            for one in run(arguments.curves, noises, arguments.processes):
                file.write(json.dumps(asdict(one)) + "\n")
    write([Score(**json.loads(line)) for line in RESULTS.read_text().splitlines()], arguments.out)


if __name__ == "__main__":
    main()
