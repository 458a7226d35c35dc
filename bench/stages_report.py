"""The report on a run of `bench.stages`: docs/stages.md and its picture."""

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from itertools import repeat
from pathlib import Path
from statistics import median

import matplotlib as mpl

mpl.use("agg")

import matplotlib.pyplot as plt
import numpy as np

from bench.planted import FEW_SAMPLES, plant
from bench.published import LANGUAGE_MODEL, LINEAR_REGRESSION, is_found, rebuilt
from bench.stages import FIRST_SEED, OURS, Score, matches, ours
from lambdahat.drawing import TYPE_COLOURS
from llc.settings import StageSettings
from llc.stages import read_stages

RUNS = 20
NEITHER_CURVES = 200

TEXT = """# Stages found again

`make bench-stages` plants transitions into curves and reads them back. The curves (`bench/planted.py`): 1 to 7 stages
of type A and B, with shapes from straight to logistic to relaxing, over uneven schedules of about 50 to 200
checkpoints; plateaus, near-plateaus, turning points without one. The noise is a share of the *smallest* stage's ΔLLC,
follows the level in half of the curves, and is shared between neighbours in half; standard errors are those of four
chains; in a third of the curves some points are missing or wrong. The reader's constants were set on other curves.

![A few of the curves, with what is planted above and what is found below](stages.png)

{rows}

A transition is found if one in its direction was, and the middle of each lies in the other, give or take a checkpoint.
F1 is the harmonic mean of the share of planted ones that are found and the share of found ones that are planted;
*types* of those found; *error* of both ends as a share of the transition's own length (median); *covered*: true ends
inside their 90 % intervals; *false*: curves without any transition in which one is found. The others have no intervals.
The published rule is the zero crossings of a Gaussian process's slope; `ruptures` fits continuous straight pieces, each
with the best of three penalties. They drop changes below 2 % of the curve's range, we those below 1 %. Types of the
others follow from the signs of both changes.

{parts}

## Changes of neither type

Above, every planted rise is an A and every fall a B in which the loss hardly changes: a type can be withheld there, and
never be claimed where there is none. In {neither_curves} curves more (at {neither_noise:.0%}) three transitions in ten
are of neither type, a fall of the LLC in which the loss falls as at an A, or a rise in which it rises; and in half of
the curves the loss has the error of few samples, a tenth of its range and the same at every checkpoint.

{neither}

## The published stages

`bench/published.py` rebuilds the two runs of [arXiv 2402.02364](https://arxiv.org/abs/2402.02364) from their tables of
stages: level where a stage ends, smooth between, on a logarithmic and then linear schedule. How often, of {runs} curves
each, all five stages are found with their types and nothing else is, and each stage by itself:

{published}

LR3 to LR4 and LM4 to LM5 go on in one direction over a near-plateau, which zero crossings can't see.

{curves} curves ({few} at the higher noise), and {flat} without a stage; {date}.
"""


def write(scores: Sequence[Score], out: Path) -> None:
    """Into this folder."""
    planted = [one for one in scores if one.planted]
    flat = [one for one in scores if not one.planted]
    noises = sorted({one.noise for one in planted})
    rows = ["| noise | method | F1 | types | error | covered | false |", "|---|---|---|---|---|---|---|"]
    for noise in noises:
        for method in _methods([one for one in planted if one.noise == noise]):
            of = [one for one in planted if (one.method, one.noise) == (method, noise)]
            rows.append(_row(noise, method, of, [one for one in flat if (one.method, one.noise) == (method, noise)]))
    text = TEXT.format(
        rows="\n".join(rows),
        parts=_parts([one for one in planted if one.method == OURS and one.noise == noises[0]]),
        neither_curves=NEITHER_CURVES,
        neither_noise=noises[0],
        neither=_neither(noises[0]),
        runs=RUNS,
        published=_published(),
        curves=len({one.seed for one in planted}),
        few=len({one.seed for one in planted if one.noise == noises[-1]}),
        flat=len({one.seed for one in flat}),
        date=datetime.now(UTC).date().isoformat(),
    )
    (out / "stages.md").write_text(text)
    print(text)
    _draw(out / "stages.png")


def _methods(scores: Sequence[Score]) -> list[str]:
    """All, but of those with several penalties the best."""
    best: dict[str, tuple[float, str]] = {}
    for method in dict.fromkeys(one.method for one in scores):
        name = method.split(",")[0]
        best[name] = max(best.get(name, (-1.0, "")), (_f1([one for one in scores if one.method == method]), method))
    return [method for _, method in best.values()]


def _f1(scores: Sequence[Score]) -> float:
    return 2 * sum(len(one.pairs) for one in scores) / max(1, sum(one.planted + one.found for one in scores))


def _row(noise: float, method: str, scores: Sequence[Score], flat: Sequence[Score]) -> str:
    pairs = [pair for one in scores for pair in one.pairs]
    covers = [hit for pair in pairs for hit in pair["covers"] if hit is not None]
    cells = [
        f"{noise:.0%}",
        method,
        f"{_f1(scores):.3f}",
        f"{np.mean([pair['type'] for pair in pairs]):.1%}" if pairs else "–",
        f"{median(abs(error) for pair in pairs for error in pair['errors']):.3f}" if pairs else "–",
        f"{np.mean(covers):.1%}" if covers else "–",
        f"{np.mean([one.found > 0 for one in flat]):.1%}" if flat else "–",
    ]
    return f"| {' | '.join(cells)} |"


def _parts(scores: Sequence[Score]) -> str:
    """Where our intervals cover, by shape and end."""
    lines = [
        "Ours, at the lower noise, by shape:",
        "",
        "| shape | start covered | end covered | transitions |",
        "|---|---|---|---|",
    ]
    pairs = [pair for one in scores for pair in one.pairs]
    for shape in sorted({pair["shape"] for pair in pairs}):
        of = [pair for pair in pairs if pair["shape"] == shape]
        start, stop = (np.mean([pair["covers"][end] for pair in of]) for end in (0, 1))
        lines.append(f"| {shape} | {start:.1%} | {stop:.1%} | {len(of)} |")
    return "\n".join(lines)


def _neither(noise: float) -> str:
    """Types of what was found in curves with transitions of neither."""
    with ProcessPoolExecutor() as pool:
        batches = pool.map(
            _read_types, range(3 * FIRST_SEED, 3 * FIRST_SEED + NEITHER_CURVES), repeat(noise), chunksize=5
        )
        counts = Counter(pair for batch in batches for pair in batch)
    lines = ["| planted | the loss's error | found | as A | as B | as neither |", "|---|---|---|---|---|---|"]
    for kind in TYPE_COLOURS:
        for few in (False, True):
            row = [counts[few, kind, read] for read in TYPE_COLOURS]
            cells = [kind or "neither", "a tenth" if few else "small", str(sum(row)), *map(str, row)]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _read_types(seed: int, noise: float) -> list[tuple[bool, str | None, str | None]]:
    """Of a curve: whether its loss has a large error, and the planted and the read type of each transition found."""
    planted = plant(seed, noise, neither=True)
    few = bool(planted.curve.loss_std_error[0] > FEW_SAMPLES / 2 * np.ptp(planted.curve.loss))
    return [(few, true.type, one.type) for true, one in matches(planted, ours(planted))]


def _published() -> str:
    lines = ["| run | standard error of the LLC | all five | each |", "|---|---|---|---|"]
    for name, stages in (("LM", LANGUAGE_MODEL), ("LR", LINEAR_REGRESSION)):
        for error in (0.05, 0.1, 0.2, 0.5):
            runs = [read_stages(rebuilt(stages, error, seed), StageSettings()) for seed in range(RUNS)]
            types = ["".join(stage.type or "-" for stage in run if stage.kind == "transition") for run in runs]
            each = [sum(is_found(stages, k, run) for run in runs) for k in range(len(stages))]
            both = sum(
                found == "".join(stage.type for stage in stages) and all(is_found(stages, k, run) for k in range(5))
                for found, run in zip(types, runs, strict=True)
            )
            shares = ", ".join(f"{name}{k + 1} {count / RUNS:.0%}" for k, count in enumerate(each))
            lines.append(f"| {name} | {error} | {both / RUNS:.0%} | {shares} |")
    return "\n".join(lines)


def _draw(path: Path, seeds: Sequence[int] = (1_000_004, 1_000_005, 1_000_011, 1_000_014)) -> None:
    figure, panels = plt.subplots(2, 2, figsize=(11, 6.4), layout="constrained")
    for seed, axes in zip(seeds, panels.flat, strict=True):
        planted = plant(seed, 0.05)
        curve = planted.curve
        axes.errorbar(planted.x, curve.llc, curve.llc_std_error, fmt=".", color="#1b1b1b", markersize=3, linewidth=0.6)
        for true in planted.transitions:
            axes.axvspan(true.start, true.stop, 0.55, 1, color=TYPE_COLOURS[true.type], alpha=0.2, linewidth=0)
        for one in ours(planted):
            axes.axvspan(one.start, one.stop, 0, 0.45, color=TYPE_COLOURS[one.type], alpha=0.35, linewidth=0)
            for interval in filter(None, (one.start_interval, one.stop_interval)):
                axes.axvspan(*interval, 0.45, 0.5, color="#1b1b1b", alpha=0.6, linewidth=0)
        near = curve.llc[np.isfinite(curve.llc)]
        low, high = np.percentile(near, [1, 99])
        axes.set_ylim(low - 0.2 * (high - low), high + 0.2 * (high - low))
        axes.set_xlabel("log(step + 1)")
        axes.set_ylabel("LLC")
    figure.suptitle("planted above, found below (A orange, B blue); bars: 90 % intervals of their ends", fontsize=10)
    figure.savefig(path, dpi=110)
