"""The report on a run of `bench.accuracy`: docs/accuracy.md and its picture."""

import math
import os
import platform
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import TypeVar

import matplotlib as mpl

mpl.use("agg")

import matplotlib.pyplot as plt
import numpy as np

from bench.methods import AUTO, Record
from bench.problems import FACTORS, Family, Problem, names, problem
from bench.truth import Reference, truth

Key = TypeVar("Key")

FAMILIES: Mapping[Family, str] = {
    "potential": "Potentials",
    "quadratic": "Quadratics, d = 20",
    "deep_linear": "Deep linear networks",
    "reduced_rank": "Reduced-rank regression 10-8-10, rank 3, with label noise",
    "superposition": "Toy model of superposition at its k-gons",
    "relu": "A trained ReLU network, 4-8-2, and its rescaled copies",
}

COVERING = 1.96
"""Standard errors on either side of a 95 % interval."""

MISS = 3.0
"""Error bars beyond which an estimate is missed."""

GOOD = 0.2
"""Relative error within which, and within `MISS`, an estimate should be called ok."""


@dataclass(frozen=True)
class Judged:
    """A record with what it should have been."""

    record: Record
    problem: Problem
    truth: Reference

    @property
    def relative_error(self) -> float:
        """Infinite where there is no number."""
        estimate = self.record.estimate
        return math.inf if estimate is None else (estimate - self.truth.value) / abs(self.truth.value)

    @property
    def error_bars(self) -> float:
        """|estimate − truth| in standard errors, the truth's own included; infinite without a number or an error."""
        if self.record.estimate is None or self.record.std_error is None:
            return math.inf
        error = math.hypot(self.record.std_error, self.truth.std_error)
        return abs(self.record.estimate - self.truth.value) / error if error > 0 else math.inf

    @property
    def is_ok(self) -> bool:
        return self.record.verdict == "ok"

    @property
    def is_good(self) -> bool:
        return self.error_bars <= MISS and abs(self.relative_error) <= GOOD

    @property
    def is_peer(self) -> bool:
        return self.record.verdict == "none"


def write(records: Sequence[Record], out: Path, missing: Sequence[str] = ()) -> None:
    """accuracy.md and accuracy.png in `out`. missing: peers that were not installed."""
    judged = [_judge(record) for record in records]
    judged.sort(key=lambda one: (one.is_peer, not one.record.method.startswith(AUTO)))
    out.mkdir(parents=True, exist_ok=True)
    _picture(judged, out / "accuracy.png")
    parts = [
        _HEAD,
        f"Measured on {_machine()}, {datetime.now(UTC):%Y-%m-%d}, one thread.\n",
        f"Not installed, so without columns here: {', '.join(missing)} (`make bench-peers`).\n" if missing else "",
        "![Relative errors of every method, by problem](accuracy.png)\n",
        "## Goals\n",
        _goals(judged),
        "## By method\n",
        _summary(judged),
        "## Beside the peers\n",
        _peers(judged),
        "## Rescaling a ReLU network\n",
        _rescaling(judged),
        "## By problem\n",
        *[_family(judged, family, title) for family, title in FAMILIES.items()],
    ]
    (out / "accuracy.md").write_text("\n".join(part for part in parts if part))


_HEAD = """# Accuracy

Every method on problems whose answer is known: `make bench-accuracy`. An estimate λ̂ depends on the scale (nβ, γ), so \
it is held to what a *perfect sampler* gives at that scale, not to its limit λ: by a formula, by quadrature, or by a \
long run of Hamiltonian Monte Carlo on the whole data set (`bench/truth.py`), whose own error counts as part of the \
error bar. Methods by hand are told the largest curvature and take equal numbers of gradients; `auto` is told nothing: \
its pilot, which a series pays once, comes on top (+).
"""


def _judge(record: Record) -> Judged:
    one = problem(record.problem)
    return Judged(record, one, truth(one, record.nbeta, record.gamma, record.tether))


# Tables ---------------------------------------------------------------------------------------------------------------


def _goals(judged: Sequence[Judged]) -> str:
    """What `auto` is held to, and what it reaches."""
    own = [one for one in judged if one.record.method == AUTO]
    if not own:
        return "`auto` is not in this run.\n"
    errors = [abs(one.relative_error) for one in own]
    good, misses = [one for one in own if one.is_good], [one for one in own if one.error_bars > MISS]
    no_number = sum(map(math.isinf, errors))
    ratios, spread = _ratios(judged).get(AUTO, []), _spreads(judged).get(f"{AUTO}, by tensor")
    rows = [
        _at_most(0.05, "median abs. rel. error", median(errors)),
        _at_most(0.2, "worst", max(errors)),
        ("no number", "0", str(no_number), _verdict(no_number == 0)),
        _at_least(0.9, "95 % interval covers the truth", [one.error_bars <= COVERING for one in own]),
        _at_least(0.9, "good ones are called ok", [one.is_ok for one in good]),
        _at_least(0.95, "misses are called otherwise", [not one.is_ok for one in misses]),
    ]
    if ratios:
        rows.append(_at_most(1 / 3, f"RMSE over the best peer's, median of problems: {len(ratios)}", median(ratios)))
    if spread is not None:
        rows.append(_at_most(0.013, "± of λ̂ when a network is rescaled, tether by tensor", spread))
    seeds = Counter(one.record.problem for one in own)
    most, least = max(seeds.values()), min(seeds.values())
    fully = sum(count == most for count in seeds.values())
    at = f"each at {most} seeds" if least == most else f"{fully} of them at {most} seeds, the others at {least} or more"
    counted = f"`auto` on {len(seeds)} of {len(names())} problems, {at}:"
    return f"{counted}\n\n" + _table(("what", "goal", "measured", ""), rows)


def _at_most(goal: float, title: str, found: float) -> tuple[str, ...]:
    return title, f"≤ {_percent(goal)}", _percent(found), _verdict(found <= goal)


def _at_least(goal: float, title: str, flags: Sequence[bool]) -> tuple[str, ...]:
    met = _verdict(sum(flags) >= goal * len(flags)) if flags else "nothing to tell it by"
    return title, f"≥ {_percent(goal)}", _share(flags), met


def _verdict(met: bool) -> str:
    return "met" if met else "missed"


def _summary(judged: Sequence[Judged]) -> str:
    """One row a method."""
    columns = (
        "method",
        "estimates",
        "no number",
        "median abs. rel. error",
        "worst",
        "95 % interval covers",
        "ok among good",
        "not ok among misses",
    )
    rows = []
    for method, own in _grouped(judged, lambda one: one.record.method).items():
        errors = [abs(one.relative_error) for one in own]
        peer = own[0].is_peer
        misses = [one for one in own if one.error_bars > MISS]
        rows.append(
            (
                method,
                str(len(own)),
                str(sum(math.isinf(error) for error in errors)),
                _percent(median(errors)),
                _percent(max(errors)),
                _share(one.error_bars <= COVERING for one in own),
                "no verdict" if peer else _share(one.is_ok for one in own if one.is_good),
                "no verdict" if peer else _share(not one.is_ok for one in misses),
            )
        )
    good = f"*Good*: within {MISS:g} error bars and {GOOD:.0%} of the truth."
    misses = f"*Misses*: off by more than {MISS:g} error bars."
    return f"{_table(columns, rows)}{good} {misses} Numbers are over the problems that a method was run on.\n"


def _peers(judged: Sequence[Judged]) -> str:
    """Root-mean-square errors relative to the truth: ours over the best peer's."""
    errors = _rms(judged)
    peers = sorted({one.record.method for one in judged if one.is_peer})
    asked = [name for name in names() if any((name, peer) in errors for peer in peers)]
    if not asked:
        return "No peer was asked in this run.\n"
    best = _best(errors, peers)
    rows = [
        (name, *(_percent(errors.get((name, peer), math.nan)) for peer in peers), _percent(best[name]))
        for name in asked
    ]
    ratios = [(method, _number(median(found)), str(len(found))) for method, found in _ratios(judged).items()]
    return (
        "Root-mean-square relative error over seeds, at the (nβ, γ) that `auto` chose most often and the mean number "
        "of gradient evaluations of its chains. *Best of a sweep* is told the largest curvature, and the truth: the "
        "step size, sampler and minibatches that come closest to it over three seeds, held to it on ten others; "
        "*defaults* are at three. "
        "Neither that sweep nor the pilot of `auto` is counted.\n\n"
        + _table(("problem", *peers, "best peer"), rows)
        + "Ours over the best peer's, median over these problems:\n\n"
        + _table(("method", "ratio", "problems"), ratios)
    )


def _ratios(judged: Sequence[Judged]) -> dict[str, list[float]]:
    """Our methods' root-mean-square errors over the best peer's, by method, of every problem that peers were asked."""
    errors = _rms(judged)
    peers = {one.record.method for one in judged if one.is_peer}
    best = _best(errors, peers)
    ratios: dict[str, list[float]] = {}
    for (name, method), error in sorted(errors.items(), key=lambda item: item[0][1]):
        if method not in peers and name in best:
            ratios.setdefault(method, []).append(error / best[name] if best[name] else math.inf)
    return ratios


def _best(errors: Mapping[tuple[str, str], float], peers: Collection[str]) -> dict[str, float]:
    """The best peer's error on every problem that one was asked."""
    best: dict[str, float] = {}
    for (name, method), error in errors.items():
        if method in peers:
            best[name] = min(error, best.get(name, math.inf))
    return best


def _spreads(judged: Sequence[Judged]) -> dict[str, float]:
    """How far each method's λ̂ moves between the copies of one function, half the range over the mean."""
    spreads = {}
    for method, means in _copies(judged).items():
        spreads[method] = (max(means) - min(means)) / 2 / abs(float(np.mean(means)))
    return spreads


def _copies(judged: Sequence[Judged]) -> dict[str, list[float]]:
    """λ̂ of each copy of the ReLU network, means over the seeds that all copies have, by method."""
    found = {}
    for method, own in _grouped((o for o in judged if o.problem.family == "relu"), lambda o: o.record.method).items():
        found[method] = means = []
        of_copy = {factor: [o.record for o in own if o.record.problem == f"relu/{factor}"] for factor in FACTORS}
        common = set.intersection(*({record.seed for record in records} for records in of_copy.values()))
        for records in of_copy.values():
            here = [record.estimate for record in records if record.seed in common]
            means.append(float(np.mean([math.nan if v is None else v for v in here])) if here else math.nan)
    return found


def _rescaling(judged: Sequence[Judged]) -> str:
    """λ̂ of the copies of one function."""
    copies, spreads = _copies(judged), _spreads(judged)
    if not copies:
        return "Not in this run.\n"
    rows = [(method, *map(_number, means), "± " + _percent(spreads[method])) for method, means in copies.items()]
    return (
        "The hidden layer times a factor, the output layer divided by it: the function, and so λ, stay as they are. A "
        "tether in units of the parameters does not; one in units of each tensor's size does.\n\n"
        + _table(("method", *(f"× {factor}" for factor in FACTORS), "moves"), rows)
    )


def _family(judged: Sequence[Judged], family: Family, title: str) -> str:
    """One row for a problem, a method and a scale; numbers are medians over seeds."""
    own = [one for one in judged if one.problem.family == family]
    if not own:
        return ""
    columns = (
        "problem",
        "λ",
        "method",
        "nβ, γ",
        "truth",
        "estimate",
        "error bar",
        "rel. error",
        "gradients",
        "verdicts",
    )
    rows = []
    for (name, method, *_), seeds in _grouped(own, _same_truth).items():
        first = seeds[0]
        verdicts = Counter(one.record.verdict for one in seeds)
        rows.append(
            (
                name,
                _number(first.problem.lambda_),
                method,
                f"{first.record.nbeta:.4g}, {first.record.gamma:.3g}",
                f"{_number(first.truth.value)} ± {first.truth.std_error:.1g}",
                _number(_median(one.record.estimate for one in seeds)),
                _number(_median(one.record.std_error for one in seeds)),
                _percent(median(one.relative_error for one in seeds)),
                f"{first.record.gradient_evaluations:.2g}"
                + (f" + {first.record.pilot_evaluations:.2g}" if first.record.pilot_evaluations else ""),
                ", ".join(f"{count} × {verdict}" for verdict, count in verdicts.items()),
            )
        )
    return f"<details><summary>{title}</summary>\n\n{_table(columns, rows)}\n</details>\n"


# Picture --------------------------------------------------------------------------------------------------------------

FLOOR, CEILING = 1e-3, 10.0
"""Relative errors are drawn between these."""


def _picture(judged: Sequence[Judged], path: Path) -> None:
    """Every estimate's relative error, a column a method; filled where the verdict is ok."""
    groups = _grouped(judged, lambda one: one.record.method)
    figure, axes = plt.subplots(figsize=(max(6, 0.75 * len(groups)), 5), layout="constrained")
    generator = np.random.default_rng(0)
    for column, own in enumerate(groups.values()):
        errors = np.clip([abs(one.relative_error) for one in own], FLOOR, CEILING)
        x = column + generator.uniform(-0.3, 0.3, len(own))
        colours = np.array(["tab:grey" if one.is_peer else "tab:blue" if one.is_ok else "tab:red" for one in own])
        axes.scatter(x, errors, s=9, c=colours, alpha=0.6, linewidths=0)
        axes.hlines(median(errors), column - 0.35, column + 0.35, color="black")
    axes.set(yscale="log", ylim=(FLOOR / 1.3, CEILING * 1.3), ylabel="relative error to the truth at the same (nβ, γ)")
    axes.axhline(0.05, color="tab:green", linewidth=0.8, linestyle=":")
    axes.set_xticks(range(len(groups)), list(groups), rotation=40, ha="right")
    axes.set_title("blue: called ok · red: called otherwise · grey: no verdict · bar: median · dots: 5 %", fontsize=9)
    figure.savefig(path, dpi=130)
    plt.close(figure)


# Small change ---------------------------------------------------------------------------------------------------------


def _grouped(judged: Iterable[Judged], key: Callable[[Judged], Key]) -> dict[Key, list[Judged]]:
    groups: dict[Key, list[Judged]] = {}
    for one in judged:
        groups.setdefault(key(one), []).append(one)
    return groups


def _same_truth(one: Judged) -> tuple[str, str, float, float]:
    record = one.record
    return record.problem, record.method, record.nbeta, record.gamma


def _rms(judged: Sequence[Judged]) -> dict[tuple[str, str], float]:
    """Of the relative errors, by problem and method."""
    groups = _grouped(judged, lambda one: (one.record.problem, one.record.method))
    return {key: math.sqrt(float(np.mean([one.relative_error**2 for one in own]))) for key, own in groups.items()}


def _median(values: Iterable[float | None]) -> float:
    """Of those that are numbers."""
    known = [value for value in values if value is not None]
    return median(known) if known else math.nan


def _share(flags: Iterable[bool]) -> str:
    known = list(flags)
    return f"{sum(known) / len(known):.0%} of {len(known)}" if known else "none"


def _percent(value: float) -> str:
    if math.isnan(value):
        return "–"
    return "no number" if math.isinf(value) else f"{100 * value:.3g} %"


def _number(value: float | None) -> str:
    return "–" if value is None or math.isnan(value) else f"{value:.4g}"


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n\n"


def _machine() -> str:
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        model = next((x.split(":", 1)[1].strip() for x in cpuinfo.read_text().splitlines() if "model name" in x), model)
    return f"{model}, {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}"
