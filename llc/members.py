"""The settings of an ensemble of measurements that might as well have been made (`llc.stability` reads it).

A member has its own chains, at nβ, γ and ε times factors of its own:

    log f = (2u − 1) log `spread` for nβ and γ, and −u log `spread` for ε, once it is as stable as the LLC's own

with u from an additive recurrence (Roberts 2018, "The unreasonable effectiveness of quasirandom sequences"), which
fills the cube evenly however many members there are, so that a further one changes none before it.
"""

from llc.randomness import seed_of
from llc.settings import LLCSettings

PLASTIC = 1.2207440846057596
"""The real root of x⁴ = x + 1; the recurrence's steps in three dimensions are PLASTIC⁻¹, PLASTIC⁻² and PLASTIC⁻³."""


def factors(member: int, spread: float) -> tuple[float, float, float]:
    """Of nβ, γ and ε, of a member by its number."""
    u = [(0.5 + (member + 1) * PLASTIC**-k) % 1 for k in (1, 2, 3)]
    return spread ** (2 * u[0] - 1), spread ** (2 * u[1] - 1), spread ** -u[2]


def settings_of(member: int, main: LLCSettings, spread: float) -> LLCSettings:
    """A member's settings; main: of the LLC, with its nβ."""
    assert main.nbeta is not None
    nbeta, gamma, epsilon = factors(member, spread)
    moved = at_scale(main, nbeta * main.nbeta, gamma * main.gamma, epsilon)
    return moved.model_copy(update={"seed": seed_of(f"member {member}", main.seed)})


def at_scale(main: LLCSettings, nbeta: float, gamma: float, epsilon: float = 1.0) -> LLCSettings:
    """The settings at another scale. ε: that at which no ε (nβ h + γ) is larger than at this one, times `epsilon`."""
    assert main.nbeta is not None
    share = main.nbeta / nbeta
    if main.gamma > 0:
        share = min(share, main.gamma / gamma)
    sampler = main.sampler.model_copy(update={"epsilon": epsilon * share * main.sampler.epsilon})
    return main.model_copy(update={"nbeta": nbeta, "gamma": gamma, "sampler": sampler})
