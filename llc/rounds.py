"""Chains that go on, round by round of `num_draws`, until λ̂ is known well enough.

Whether a checkpoint goes on is decided by its own draws alone, so that its numbers do not depend on what else is in the
run. To stop as soon as an error bar is small enough favours error bars that are too small (Glynn & Whitt 1992, Ann.
Appl. Probab. 2:180), the more so the fewer effective draws they are from: so one from few has to be smaller still.
"""

import math
from collections.abc import Sequence

from llc import estimators, health
from llc.chains import Chains
from llc.draws import Draws
from llc.settings import LLCSettings

TRUSTED_ESS = 1000.0
"""Effective draws from which on an error bar is taken at its word. From fewer, it has to be below the target by the
square root of their share of these.
"""


def run_in_rounds(
    chains: Chains, groups: Sequence[Sequence[int]], settings: LLCSettings, rounds: Sequence[int] | None = None
) -> list[Draws]:
    """Burn in; then what each group of rows draws until the first of them has reached the target.

    rounds: how many of each group, if that is settled already.
    """
    chains.burn_in(settings.num_burnin_steps)
    found: list[list[Draws]] = [[] for _ in groups]
    going = list(range(len(groups)))
    while going:
        draws = chains.draw(settings.num_draws)
        for group in going:
            found[group].append(draws.of_rows(groups[group]))
        over = {
            group
            for group in going
            if (len(found[group]) >= rounds[group] if rounds else is_enough(Draws.joined(found[group]), settings))
        }
        chains.stop([row for group in over for row in groups[group]])
        going = [group for group in going if group not in over]
    chains.end()
    return [Draws.joined(parts) for parts in found]


def is_enough(draws: Draws, settings: LLCSettings) -> bool:
    """Whether row 0 has reached the target, or never will."""
    if settings.target is None or draws.num_draws + settings.num_draws > settings.max_draws:
        return True
    estimate = estimators.llc(draws, 0, settings.step_error)
    verdict = health.judge(draws, 0, estimate, settings.health)
    doubt = math.sqrt(max(1.0, TRUSTED_ESS / estimate.ess))
    return verdict.name in health.ILL or doubt * estimate.sampling_error <= settings.target.error(estimate.value)
