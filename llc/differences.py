"""What a run has that others have not: `llc.alignment` says what others have.

Beside the common sequence of its experiment a run differs by

- what it *misses*, and what it has besides (*extra*);
- what is *reversed*: missing, with an extra one that goes the other way at the same place;
- what is *far* off in place or in ΔLLC, by z > 3.5 robust standard deviations (Iglewicz & Hoaglin, 1993), or its tempo.

Each counts 1, what is far off z / 3.5, at most 2. A run is an outlier if it differs in d ≥ 2 and chance seldom has as
many: P(Poisson(m) ≥ d) < 0.03, where m is the mean of the other runs.
"""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from pydantic import BaseModel, Field

from llc.matching import Bools, Floats, Matching, Transition, robust

FAR = 3.5
TEMPO_SPREAD = 0.2  # of log tempo, at least: no run is slow that takes less than twice as long as the usual one
MIN_RUNS = 3  # with outliers: of two that differ, either may be the usual one
MIN_DIFFERENCES, CHANCE = 2, 0.03


class Far(BaseModel):
    """A match that is not where, or not as large as, in the other runs."""

    transition: int = Field(description="Of the run, from 0.")
    common: int = Field(description="Of the common sequence, from 0.")
    what: Literal["early", "late", "small", "large"]
    by: float = Field(
        description="Factor in steps, tempo apart, or in ΔLLC; where the axis is the loss, its difference in place."
    )
    z: float = Field(description="In robust standard deviations, at least 3.5.")


class Reversed(BaseModel):
    """A transition that goes the other way where the others have a common one."""

    transition: int = Field(description="Of the run, from 0.")
    common: int = Field(description="Of the common sequence, from 0.")


class Run(BaseModel):
    """A run beside the common sequence. Transitions are numbered from 0, in the order of training."""

    matched: list[int | None] = Field(description="For each common transition the run's own; null: it is missing.")
    missing: list[int] = Field(description="Common transitions that the run lacks.")
    extra: list[int] = Field(description="Transitions of the run that are not common.")
    reversed: list[Reversed]
    far: list[Far]
    tempo: float | None = Field(
        description="It takes so many times as long as the usual run; null: fewer than two matches, or not by steps."
    )
    differences: float = Field(description="Score: missing, extra, reversed, and far off (1 to 2, by how far).")
    verdict: Literal["ok", "outlier"]
    reasons: list[str] = Field(description="Each difference in words.")


def runs_beside(matching: Matching, runs: Sequence[Sequence[Transition]], names: Sequence[str]) -> list[Run]:
    """Each run beside the common sequence. names: of the common transitions, in words."""
    z, tempo_z = matching.z, _tempo_z(matching)
    found = [_run(matching, z, tempo_z, row, run, names) for row, run in enumerate(runs)]
    total = sum(run.differences for run in found)
    for run in found:
        usual = (total - run.differences) / max(len(found) - 1, 1)
        if len(found) >= MIN_RUNS and run.differences >= MIN_DIFFERENCES and _chance(run.differences, usual) < CHANCE:
            run.verdict = "outlier"
    return found


def said(transition: Transition) -> str:
    """A transition in words."""
    direction = "rise" if transition.delta_llc > 0 else "fall"
    return f"{direction} of the LLC from step {transition.from_step} to {transition.to_step}"


def _run(
    matching: Matching, z: Floats, tempo_z: Floats, row: int, run: Sequence[Transition], names: Sequence[str]
) -> Run:
    matched = [int(i) if i >= 0 else None for i in matching.matched[row]]
    missing = [k for k, i in enumerate(matched) if i is None]
    extra = [i for i in range(len(run)) if i not in matched]
    against = _goes_against(matching, row)
    turned = [Reversed(transition=i, common=k) for k in missing for i in extra if against[i, k]]
    far = [one for k in np.flatnonzero((z[row] > FAR).any(axis=1)) for one in _far(matching, z, row, int(k))]
    tempo, off_tempo = float(matching.tempo[row]), float(tempo_z[row])
    has, of = (matching.matched >= 0).sum(axis=0), len(matching.matched)
    reasons = [f"it lacks the {names[k]}, which {has[k]} of {of} runs have" for k in missing]
    reasons += [f"its {said(run[i])} is not common" for i in extra]
    reasons += [f"its {said(run[one.transition])} is where others have a {names[one.common]}" for one in turned]
    reasons += [_why(one, run[one.transition], matching.can_shift) for one in far]
    if off_tempo > FAR:
        reasons.append(f"it takes {math.exp(tempo):.2g} times as long as the usual run")
    off = [one.z for one in far] + [off_tempo] * (off_tempo > FAR)
    return Run(
        matched=matched,
        missing=missing,
        extra=extra,
        reversed=turned,
        far=far,
        tempo=math.exp(tempo) if math.isfinite(tempo) else None,
        differences=len(missing) + len(extra) + len(turned) + sum(min(one / FAR, 2.0) for one in off),
        verdict="ok",
        reasons=reasons,
    )


def _goes_against(matching: Matching, row: int) -> Bools:
    """Whether a run's transitions go the other way than common ones, and overlap with them: (transitions, common)."""
    ends = matching.table.ends[row, :, None] - matching.shift[row]
    other_way = matching.table.sign[row, :, None] == -matching.common.sign
    overlaps = (ends[..., 0] < matching.common.ends[:, 1]) & (matching.common.ends[:, 0] < ends[..., 1])
    return np.asarray(other_way & overlaps)


def _far(matching: Matching, z: Floats, row: int, k: int) -> list[Far]:
    place, size = (float(value) for value in matching.off[row, k])
    by = math.exp(place) if matching.can_shift else -place / matching.unit
    rest: dict[str, int] = {"transition": int(matching.matched[row, k]), "common": k}
    found: list[Far] = []
    if z[row, k, 0] > FAR:
        found.append(Far(**rest, what="late" if place > 0 else "early", by=by, z=z[row, k, 0]))
    if z[row, k, 1] > FAR:
        found.append(Far(**rest, what="large" if size > 0 else "small", by=math.exp(size), z=z[row, k, 1]))
    return found


def _tempo_z(matching: Matching) -> Floats:
    """By how many standard deviations each run is slow or fast, 0 where that isn't known: (runs,)."""
    return np.nan_to_num(np.abs(matching.tempo) / max(float(robust(matching.tempo)), TEMPO_SPREAD))


def _chance(differences: float, usual: float) -> float:
    """Of so many differences or more, where a run usually has `usual`."""
    if usual == 0:
        return 0.0
    # By logarithms: neither 171! nor e⁻⁷⁵⁰ is a float.
    return 1 - sum(math.exp(j * math.log(usual) - usual - math.lgamma(j + 1)) for j in range(int(differences)))


def _why(far: Far, transition: Transition, by_steps: bool) -> str:
    words = f"its {said(transition)}"
    if far.what in ("small", "large"):
        return f"{words} is {far.what}: {far.by:.2g} times the usual ΔLLC"
    if by_steps:
        return f"{words} is {far.what}: after {far.by:.2g} times the usual number of steps, its tempo apart"
    return f"{words} is {far.what}: at a loss {abs(far.by):.2g} {'below' if far.by < 0 else 'above'} the usual one"
