"""Whether to believe an estimate, and why: a verdict with a reason that a person can act on.

A diverged, stuck or unconverged chain is a result with a reason, never an exception and never a silent mean. The first
verdict that applies is given, the worst first.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from llc.chains import Draws
from llc.estimators import LLCEstimate
from llc.settings import HealthSettings

VerdictName = Literal["ok", "not_mixed", "not_spread", "too_hot", "not_a_minimum", "stuck", "diverged"]


@dataclass(frozen=True)
class Verdict:
    """A name for programs and a reason for people; the reason of `ok` is empty."""

    name: VerdictName
    reason: str = ""


OK = Verdict("ok")


def judge(draws: Draws, checkpoint: int, estimate: LLCEstimate, settings: HealthSettings) -> Verdict:
    """The verdict on one checkpoint's λ̂."""
    diverged = np.flatnonzero(draws.diverged_at[checkpoint] >= 0)
    chains = draws.diverged_at.shape[1]
    if diverged.size:
        when = ", ".join(f"chain {chain} at step {draws.diverged_at[checkpoint, chain]}" for chain in diverged)
        rest = f"the value is of the other {chains - diverged.size}" if diverged.size < chains else "no value"
        return Verdict("diverged", f"the loss became infinite or NaN: {when}; {rest}; lower epsilon")
    if np.ptp(draws.distances[checkpoint]) == 0 or np.isnan(estimate.std_error):
        return Verdict("stuck", "the chains do not move; raise epsilon, or check that the loss depends on the weights")
    virial = float(draws.virials[checkpoint].mean())
    if virial > settings.max_virial:
        return Verdict("too_hot", f"the virial ratio is {virial:.3g}, not 1: the step is too large; lower epsilon")
    if virial < settings.min_virial:
        return Verdict(
            "not_spread",
            f"the virial ratio is {virial:.3g}, not 1: the chains are still spreading; "
            "raise num_burnin_steps, epsilon or gamma",
        )
    if estimate.value < -settings.min_z * estimate.std_error:
        return Verdict("not_a_minimum", "negative beyond its error: the loss falls away from w*, no local minimum")
    if not estimate.r_hat <= settings.max_r_hat:
        return Verdict("not_mixed", f"split R-hat is {estimate.r_hat:.3g}: the chains disagree; raise num_draws")
    if estimate.ess < settings.min_ess_per_chain * chains:
        return Verdict("not_mixed", f"only {estimate.ess:.3g} effective draws; raise num_draws")
    return OK
