"""Which of two phases the posterior prefers, from their losses and local learning coefficients (Watanabe 2009).

The free energy of a phase, a neighbourhood of w* with loss L and learning coefficient λ, on n samples:

    F_n = n L + λ log n − (m − 1) log log n + O(1)

From phase 1 to phase 2 it changes by

    F₂ − F₁ = n (L₂ − L₁) + (λ₂ − λ₁) log n + O(1)

so where one of loss and λ rises and the other falls they work against each other, and the phase of the lower loss, at a
type A the second, is preferred beyond the critical n*, where n* ΔL = Δλ log n*:

    n* = −(Δλ/ΔL) W₋₁(−ΔL/Δλ),   ΔL = L₁ − L₂, Δλ = λ₂ − λ₁, of one sign,   if ΔL/Δλ < 1/e;

else it is preferred at all n. Where both fall (type B), phase 2 is preferred at every n. The O(1) is not known, nor m:
it can move n* by a third (Chen et al., arXiv 2310.06301: from 445 to 601 in the toy model of superposition), and more
where n* is small.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from llc.summaries import INTERVAL

Floats = NDArray[np.float64]

NUM_DRAWS = 4000
MAX_N = 1e300
MAX_ITERATIONS, PRECISION = 60, 1e-12
"""Six or so do it, but where ratio is all but e."""

CAVEAT = "the free energy's constant and the multiplicities are not known, and can move critical_n by a third or more"


@dataclass(frozen=True)
class Phase:
    """Where a run is, or stays for a while: its loss and LLC, with standard errors."""

    loss: float
    loss_std_error: float
    llc: float
    llc_std_error: float


class Comparison(BaseModel):
    """Of a second phase with a first, on n samples; errors from those of losses and LLCs, as if they were independent,
    the constant left aside.
    """

    n: int
    loss_term: float = Field(description="n (L₂ − L₁).")
    loss_term_std_error: float
    complexity_term: float = Field(description="(λ₂ − λ₁) log n.")
    complexity_term_std_error: float
    delta_free_energy: float = Field(description="Their sum: below 0 the second is preferred.")
    delta_free_energy_std_error: float
    preferred: Literal["first", "second"]
    probability_second: float
    driven_by: Literal["loss", "complexity", "both"] = Field(description="The term that is the reason.")
    predicted_type: Literal["A", "B"] | None = Field(description="A: for the loss alone; null: the first is preferred.")
    critical_n: float | None = Field(
        description="Where the preference changes; null: at every n the same is preferred."
    )
    critical_n_low: float | None = Field(description="… to critical_n_high: its 90 % interval, from 1: at every n.")
    critical_n_high: float | None = Field(description="null, where there is a critical n: there is no upper bound.")
    preferred_beyond: Literal["first", "second"] | None = Field(
        description="From the critical n on: the phase of the lower loss. null: there is none."
    )
    probability_critical: float = Field(description="That there is a critical n.")
    relative_llc: float | None = Field(description="λ₂/λ₁.")
    caveat: str = CAVEAT


def compare(first: Phase, second: Phase, n: int) -> Comparison:
    """What the posterior on n samples prefers. n: at least 3.

    predicted_type: A where the loss term alone is for the second phase, B where the complexity term is, alone or with
    it; None where the first is preferred.
    """
    log_n = float(np.log(max(n, 3)))
    loss_term, complexity_term = n * (second.loss - first.loss), (second.llc - first.llc) * log_n
    loss_error = n * float(np.hypot(first.loss_std_error, second.loss_std_error))
    complexity_error = log_n * float(np.hypot(first.llc_std_error, second.llc_std_error))
    change = loss_term + complexity_term
    losses, llcs = _drawn(first, second)
    best = critical_n(np.array([first.loss - second.loss]), np.array([second.llc - first.llc]))[0]
    is_critical, found = bool(np.isfinite(best)), critical_n(losses, llcs)
    low, high = _interval(found, losses * np.sign(first.loss - second.loss)) if is_critical else (None, None)
    beyond: Literal["first", "second"] = "second" if second.loss < first.loss else "first"
    preferred: Literal["first", "second"] = "second" if change < 0 else "first"
    driven_by = _driver(loss_term, complexity_term, change)
    predicted: dict[str, Literal["A", "B"]] = {"loss": "A", "complexity": "B", "both": "B"}
    return Comparison(
        n=n,
        loss_term=loss_term,
        loss_term_std_error=loss_error,
        complexity_term=complexity_term,
        complexity_term_std_error=complexity_error,
        delta_free_energy=change,
        delta_free_energy_std_error=float(np.hypot(loss_error, complexity_error)),
        preferred=preferred,
        probability_second=float(np.mean(-n * losses + log_n * llcs < 0)),
        driven_by=driven_by,
        predicted_type=predicted[driven_by] if preferred == "second" else None,
        critical_n=_finite(best),
        critical_n_low=low,
        critical_n_high=high,
        preferred_beyond=beyond if is_critical else None,
        probability_critical=float(np.isfinite(found).mean()),
        relative_llc=second.llc / first.llc if first.llc > 0 else None,
    )


def critical_n(delta_loss: Floats, delta_llc: Floats) -> Floats:
    """n* > e where n ΔL = Δλ log n, of ΔL = L₁ − L₂ and Δλ = λ₂ − λ₁; NaN where there is none.

    n = e^y, and y = log(Δλ/ΔL) + log y, is -W₋₁: by Newton's iteration from above, where the function is convex.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(delta_loss * delta_llc != 0, delta_llc / delta_loss, np.nan)
    log_ratio = np.log(np.where(ratio > np.e, np.minimum(ratio, MAX_N), np.nan))
    y = 2 * log_ratio + 1
    for _ in range(MAX_ITERATIONS):
        step = (y - log_ratio - np.log(y)) / (1 - 1 / y)
        y = np.maximum(y - step, 1 + PRECISION)
        if np.nanmax(step, initial=0) < PRECISION:
            break
    return np.exp(y)


def _interval(critical: Floats, lower_by: Floats) -> tuple[float | None, float | None]:
    """Quantiles of the n beyond which a phase is preferred, of draws with this critical n in which its loss is lower by
    so much: 1 where it is preferred at every n, without bound where its loss is not the lower one.
    """
    beyond = np.where(lower_by > 0, np.nan_to_num(critical, nan=1.0), np.inf)
    low, high = np.quantile(beyond, INTERVAL, method="inverted_cdf")
    return _finite(low), _finite(high)


def _drawn(first: Phase, second: Phase) -> tuple[Floats, Floats]:
    """ΔL = L₁ − L₂ and Δλ = λ₂ − λ₁, as their errors have it."""
    generator = np.random.default_rng(0)
    losses = generator.normal(
        first.loss - second.loss, np.hypot(first.loss_std_error, second.loss_std_error), NUM_DRAWS
    )
    llcs = generator.normal(second.llc - first.llc, np.hypot(first.llc_std_error, second.llc_std_error), NUM_DRAWS)
    return losses, llcs


def _driver(loss_term: float, complexity_term: float, change: float) -> Literal["loss", "complexity", "both"]:
    """Which of the terms has the sign of their sum."""
    agree = [name for name, term in (("loss", loss_term), ("complexity", complexity_term)) if term * change > 0]
    if agree == ["loss"]:
        return "loss"
    return "complexity" if agree == ["complexity"] else "both"


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
