"""The methods whose accuracy is measured. A method is a function (problem, seed) → `Record`.

*auto*: what a user gets who sets nothing: `llc.calibration` at the one checkpoint that there is, then the chains.

*By hand*: each kernel once, at the problem's own (nβ, γ), with the step that suits a hand who knows the largest
curvature A of the energy at the posterior's draws, and as many gradients as every other: `EFFORT`.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np

from bench.problems import Problem
from bench.truth import Tether, truth
from llc import estimators, health
from llc.calibration import calibrate
from llc.chains import DRAWS_BETWEEN_EXCESSES, Chains, sample
from llc.draws import Draws
from llc.ensemble import per_sample_losses
from llc.randomness import seed_of
from llc.rounds import run_in_rounds
from llc.rows import rows_of
from llc.settings import (
    AutoLLCSettings,
    BAOABSettings,
    Frozen,
    LLCSettings,
    MALASettings,
    PSGLDSettings,
    SamplerSettings,
    SGLDSettings,
    SGNHTSettings,
)

NUM_CHAINS = 4
BATCH_SIZE = 256
BURNIN_SHARE = 0.25


class Record(Frozen):
    """One estimate. A NaN is null."""

    problem: str
    method: str
    seed: int
    nbeta: float
    gamma: float
    tether: Tether = "parameters"
    estimate: float | None
    std_error: float | None
    gradient_evaluations: int
    """Samples whose gradient was taken, of all chains; a Hessian product counts for two gradients."""
    pilot_evaluations: int = 0
    """The same, of a calibration before: a series pays it once."""
    seconds: float
    verdict: str
    reason: str = ""
    epsilon: float | None = None


Method = Callable[[Problem, int], Record]


def methods(problem: Problem, effort: float = 1.0) -> Mapping[str, Method]:
    """Those that this problem is given to, by name. effort: gradients, as a share of the usual number."""
    found: dict[str, Method] = {AUTO: partial(auto, AUTO, "parameters", effort)}
    if _is_rescaled(problem):
        found[f"{AUTO}, by tensor"] = partial(auto, f"{AUTO}, by tensor", "tensors", effort)
    return found | {name: partial(by_hand, hand, name, effort) for name, hand in BY_HAND.items() if hand.suits(problem)}


# Auto -----------------------------------------------------------------------------------------------------------------

AUTO = "auto"


def auto(name: str, tether: Tether, effort: float, problem: Problem, seed: int) -> Record:
    """Settings from a pilot. Where there are no data, which n / log n could be of, it is told nβ."""
    usual = AutoLLCSettings()
    wanted = AutoLLCSettings(
        nbeta=problem.nbeta if problem.n == 1 else None,
        tether=tether,
        budget=round(effort * usual.budget),
        seed=_noise_of(problem, seed),
    )
    start = time.perf_counter()
    anchors = problem.w_star[None]
    baselines = per_sample_losses(problem.objective, anchors)
    calibration = calibrate(problem.objective, anchors, baselines, wanted)
    settings = calibration.settings
    rows = rows_of(anchors, baselines, settings, problem.objective.layout)
    (draws,) = run_in_rounds(Chains(problem.objective, rows, settings), [[0]], settings)
    seconds = time.perf_counter() - start
    per_step = _per_step(problem, settings)
    steps = settings.num_burnin_steps + draws.num_draws * settings.steps_between_draws
    made = record_of(problem, name, seed, settings, draws, round(settings.num_chains * steps * per_step), seconds)
    return made.model_copy(update={"pilot_evaluations": calibration.gradients * min(settings.batch_size, problem.n)})


# By hand --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Hint:
    """What the hand is told."""

    A: float
    """The largest curvature of the energy at the posterior's draws."""
    nbeta: float
    d: int


@dataclass(frozen=True)
class Hand:
    """A kernel with its settings."""

    sampler: Callable[[Hint], SamplerSettings]
    gradient: Literal["minibatch", "control_variate"] = "minibatch"
    tether: Tether = "parameters"
    suits: Callable[[Problem], bool] = lambda _: True


def budget(problem: Problem, effort: float = 1.0) -> int:
    """Gradients of one sample that a method by hand may take, over all chains."""
    if problem.n == 1:
        return round(effort * NUM_CHAINS * 4000)
    return round(effort * NUM_CHAINS * BATCH_SIZE * (600 if problem.d >= 3000 else 1600))


def by_hand(hand: Hand, name: str, effort: float, problem: Problem, seed: int) -> Record:
    """Chains of one kernel."""
    sharpness = truth(problem, tether=hand.tether).sharpness
    sampler = hand.sampler(Hint(sharpness, problem.nbeta, problem.d))
    settings = LLCSettings(
        sampler=sampler,
        gradient=hand.gradient,
        nbeta=problem.nbeta,
        gamma=problem.gamma,
        tether=hand.tether,
        batch_size=BATCH_SIZE,
        num_chains=NUM_CHAINS,
        seed=_noise_of(problem, seed),
    )
    per_step = _per_step(problem, settings)
    num_steps = max(40, round(budget(problem, effort) / (NUM_CHAINS * per_step)))
    burnin = round(BURNIN_SHARE * num_steps)
    settings = settings.model_copy(update={"num_burnin_steps": burnin, "num_draws": num_steps - burnin})
    start = time.perf_counter()
    anchors = problem.w_star[None]
    rows = rows_of(anchors, per_sample_losses(problem.objective, anchors), settings, problem.objective.layout)
    draws = sample(problem.objective, rows, settings)
    seconds = time.perf_counter() - start
    return record_of(problem, name, seed, settings, draws, round(settings.work * per_step), seconds)


def _per_step(problem: Problem, settings: LLCSettings) -> float:
    """Samples whose gradient a step of one chain takes."""
    sampler = settings.sampler
    if sampler.name == "mala" or settings.batch_size >= problem.n:
        return problem.n
    factor = (2.0 if settings.gradient == "control_variate" else 1.0) * (1 + 1 / DRAWS_BETWEEN_EXCESSES)
    if sampler.name == "psgld" and sampler.correction:
        factor += 2
    return factor * settings.batch_size


def record_of(
    problem: Problem,
    method: str,
    seed: int,
    settings: LLCSettings,
    draws: Draws,
    gradient_evaluations: int,
    seconds: float,
) -> Record:
    """What the draws of one row say."""
    estimate = estimators.llc(draws, 0, settings.step_error)
    verdict = health.judge(draws, 0, estimate, settings.health)
    return Record(
        problem=problem.name,
        method=method,
        seed=seed,
        nbeta=float(draws.nbeta[0]),
        gamma=float(draws.gamma[0]),
        tether=settings.tether,
        estimate=_finite(estimate.value),
        std_error=_finite(estimate.std_error),
        gradient_evaluations=gradient_evaluations,
        seconds=seconds,
        verdict=verdict.name,
        reason=verdict.reason,
        epsilon=float(draws.epsilon[0]),
    )


def _sgld(hint: Hint) -> SGLDSettings:
    return SGLDSettings(epsilon=0.2 / hint.A)


def _averaged(hint: Hint) -> SGLDSettings:
    return SGLDSettings(epsilon=1 / hint.A, noise="averaged")


def _psgld(hint: Hint, correction: bool = False) -> PSGLDSettings:
    """The gradient in the stiffest direction, whose curvature is A/nβ, has size √A/nβ at the posterior's draws."""
    stability = PSGLDSettings().stability
    return PSGLDSettings(epsilon=0.3 / hint.A * (hint.A**0.5 / hint.nbeta + stability), correction=correction)


def _sgnht(hint: Hint) -> SGNHTSettings:
    return SGNHTSettings(epsilon=0.1 / hint.A)


def _baoab(hint: Hint) -> BAOABSettings:
    return BAOABSettings(epsilon=0.5 / hint.A, momentum=0.8)


def _mala(hint: Hint) -> MALASettings:
    return MALASettings(epsilon=1.5 / hint.A / hint.d ** (1 / 3))


def _noise_of(problem: Problem, seed: int) -> int:
    """Problems share no noise, or a seed's luck would be that of all of them; but copies of one function do, whose
    differences are of interest.
    """
    return seed_of(problem.family if _is_rescaled(problem) else problem.name, seed)


def _has_data(problem: Problem) -> bool:
    return problem.n > 1


def _is_small(problem: Problem) -> bool:
    return problem.d <= 100


def _is_rescaled(problem: Problem) -> bool:
    return problem.family == "relu"


BY_HAND: Mapping[str, Hand] = {
    "sgld": Hand(_sgld),
    "sgld + cv": Hand(_sgld, gradient="control_variate", suits=_has_data),
    "averaged": Hand(_averaged),
    "averaged + cv": Hand(_averaged, gradient="control_variate", suits=_has_data),
    "psgld": Hand(_psgld),
    "psgld + cv": Hand(_psgld, gradient="control_variate", suits=_has_data),
    "psgld, corrected": Hand(partial(_psgld, correction=True), suits=lambda problem: problem.d <= 500),
    "sgnht": Hand(_sgnht),
    "baoab": Hand(_baoab),
    "baoab + cv": Hand(_baoab, gradient="control_variate", suits=_has_data),
    "mala": Hand(_mala, suits=_is_small),
    "averaged, by tensor": Hand(_averaged, tether="tensors", suits=_is_rescaled),
    "psgld, by tensor": Hand(_psgld, tether="tensors", suits=_is_rescaled),
}
"""cv: control variates; averaged: SGLD with averaged noise; by tensor: tether and steps in units of each tensor."""


def _finite(number: float) -> float | None:
    return number if np.isfinite(number) else None
