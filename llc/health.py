"""Whether to believe an estimate, and why: a verdict with a reason that a person can act on.

A diverged, stuck or unconverged chain is a result with a reason, never an exception and never a silent mean. The first
verdict that applies is given, the worst first.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from llc import estimators
from llc.draws import Array, Draws
from llc.estimators import Estimate
from llc.settings import HealthSettings

VerdictName = Literal["ok", "not_mixed", "not_spread", "too_hot", "not_a_minimum", "stuck", "diverged"]

ILL: frozenset[VerdictName] = frozenset({"diverged", "too_hot", "stuck"})
"""Verdicts on a step that is not right, which no number of draws will change."""

MIN_DRIFT_Z = 4.0
"""Standard errors beyond which a drift is significant."""

MIN_VIRIAL_Z = 3.0
"""Standard errors beyond which a virial ratio is not 1."""

SURELY_HOT = 2.0
"""A virial ratio beyond this is too hot whatever its error: that of a chain that explodes grows with it."""


@dataclass(frozen=True)
class Verdict:
    """A name for programs and a reason for people; the reason of `ok` is empty."""

    name: VerdictName
    reason: str = ""


OK = Verdict("ok")


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The first of the worst ones."""
    return max(verdicts, key=lambda verdict: get_args(VerdictName).index(verdict.name))


def judge(draws: Draws, row: int, estimate: Estimate, settings: HealthSettings) -> Verdict:
    """The verdict on one row's λ̂."""
    return (
        _lost(draws, row, estimate)
        or _temperature(draws, row, estimate, settings)
        or _place(estimate, settings)
        or _mixing(draws, row, estimate, settings)
        or OK
    )


def _lost(draws: Draws, row: int, estimate: Estimate) -> Verdict | None:
    """Chains that never saw the posterior."""
    diverged = np.flatnonzero(draws.diverged_at[row] >= 0)
    chains = draws.diverged_at.shape[1]
    if diverged.size:
        when = ", ".join(f"chain {chain} at step {draws.diverged_at[row, chain]}" for chain in diverged)
        rest = f"the value is of the other {chains - diverged.size}" if diverged.size < chains else "no value"
        return Verdict("diverged", f"the loss became infinite or NaN: {when}; {rest}; lower epsilon")
    if np.ptp(draws.squares[row]) > 0 and draws.is_flat(row):
        return Verdict("stuck", "the loss is the same wherever the chains go: it does not depend on the weights there")
    if np.ptp(draws.squares[row]) == 0 or np.isnan(estimate.std_error):
        return Verdict("stuck", "the chains do not move; raise epsilon")
    refused = draws.acceptance[row]
    if refused.size and refused.min() < 0.05:
        return Verdict("stuck", f"only {refused.min():.1%} of a chain's proposals are accepted; lower epsilon")
    return None


def _temperature(draws: Draws, row: int, estimate: Estimate, settings: HealthSettings) -> Verdict | None:
    """Chains at another temperature than the posterior's 1, or still on their way out."""
    virial, error = _virial(draws, row)
    if virial > max(settings.max_virial, min(1 + MIN_VIRIAL_Z * error, SURELY_HOT)):
        return Verdict("too_hot", f"the virial ratio is {virial:.3g}, not 1: the step is too large; lower epsilon")
    noise = estimate.std_error if np.isnan(estimate.sampling_error) else estimate.sampling_error
    if estimate.excess > settings.max_excess * max(abs(estimate.value), noise):  # an LLC may be 0
        return Verdict(
            "too_hot",
            f"step size and gradient noise add {estimate.excess:.3g} to an LLC of {estimate.value:.3g}, too much to be "
            "taken off with confidence; lower epsilon or raise batch_size",
        )
    if virial < min(settings.min_virial, 1 - MIN_VIRIAL_Z * error):
        return Verdict(
            "not_spread",
            f"the virial ratio is {virial:.3g}, not 1: the chains are still spreading; "
            "raise num_burnin_steps, epsilon or gamma",
        )
    return None


def _virial(draws: Draws, row: int) -> tuple[float, float]:
    """The virial ratio with its error; of few parameters it is a noisy mean."""
    found = estimators.mean(draws.virials[row])
    return found.value, 0.0 if np.isnan(found.std_error) else found.std_error


def _place(estimate: Estimate, settings: HealthSettings) -> Verdict | None:
    """An anchor that the loss falls away from."""
    if estimate.value < -settings.min_z * estimate.std_error:
        return Verdict("not_a_minimum", "negative beyond its error: the loss falls away from w*, no local minimum")
    return None


def _mixing(draws: Draws, row: int, estimate: Estimate, settings: HealthSettings) -> Verdict | None:
    """Chains that have not forgotten where they come from."""
    if not estimate.r_hat <= settings.max_r_hat:
        return Verdict("not_mixed", f"split R-hat is {estimate.r_hat:.3g}: the chains disagree; raise num_draws")
    if estimate.ess < settings.min_ess_per_chain * draws.losses.shape[1]:
        return Verdict("not_mixed", f"only {estimate.ess:.3g} effective draws; raise num_draws")
    drift, error = _drift(draws.potentials[row])
    if abs(drift) > max(MIN_DRIFT_Z * error, settings.max_drift * abs(estimate.value)):
        return Verdict(
            "not_mixed",
            f"the value moves by {drift:+.3g} from the first to the second half of the draws; raise num_burnin_steps",
        )
    return None


def _drift(x: Array) -> tuple[float, float]:
    """Change of the mean from the first half of the draws to the second, with its error: over chains, or over draws if
    that is larger, since a few chains may agree by chance.
    """
    half = x.shape[1] // 2
    first, second = x[:, :half], x[:, half:]
    changes = second.mean(axis=1) - first.mean(axis=1)
    over_chains = float(changes.std(ddof=1)) / len(changes) ** 0.5
    over_draws = math.hypot(*(estimators.mean(part).sampling_error for part in (first, second)))
    return float(changes.mean()), max(over_chains, 0.0 if math.isnan(over_draws) else over_draws)
