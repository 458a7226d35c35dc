"""Settings for a whole series from a pilot on a few of its checkpoints: nothing to tune by hand.

What has to be chosen, and from what:

- **ε and γ together.** The stiffest direction allows `ε = 2f / (nβ h + γ)`, f < 2, h the largest curvature *where the
  chains go*, by power iteration at the anchors and along short chains (at a degenerate minimum the anchor alone shows
  nothing). The tether's own directions relax as `e^{−ε γ t}`, so a burn-in of B steps needs `ε γ B ≥ 3`. Both
  give the weakest tether at which the chains can spread within the budget.
- **f** is the largest of a few, run side by side as rows of one loop at that γ, whose draws are healthy and whose λ̂
  agrees with that at half of it; not one next to a step at which chains were lost. What they differ by, beyond their
  sampling errors, is the **step error** kept with the settings: a part of every error bar.
- **Gradient and batch** by the excess that gradient noise causes: control variates where most of the noise is there at
  the anchor already, and a larger batch where the excess is too large still.
- **Kernel**: averaged-noise SGLD against BAOAB, by the sampling error that either reaches with equal gradients.
- **Draws** by that sampling error and the target, within the budget.

The pilot has noise of its own. Settings that are chosen because these very draws look good would make the same draws,
taken again for the measurement, look better than they are.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from llc.chains import Chains
from llc.curvature import Curvature, random_signs
from llc.ensemble import PLAN, Plan
from llc.errors import InputError
from llc.objective import Objective
from llc.progress import NO_PROGRESS, Progress
from llc.randomness import seed_of
from llc.rows import concatenate, rows_of
from llc.settings import AutoLLCSettings, BAOABSettings, LLCSettings, SamplerSettings, Target
from llc.trials import MAX_EXCESS, Move, Trial, TrialRun

SPREADING = 3.0
"""ε γ B: after burn-in, a direction that only the tether holds has e⁻³ = 5 % of its way left."""

BURNIN_SHARE = 0.3
"""Of the steps of a chain."""

SHARES = (1.5, 1.0, 0.5, 0.25)
"""f, the step as a share of half the largest stable one; the tether is chosen so that chains spread at the smallest.
The first is never chosen: it shows whether the second is safe.
"""

MAX_STEP_CHANGE = 0.03
"""A step is small enough if halving it moves λ̂ by no more than this share, or than its noise."""

MIN_STEP_ERROR = 0.01
"""What a pilot can hardly see."""

MOMENTUM = 0.8
"""Of the BAOAB that is tried."""

MAX_ERROR_RATIO = 0.85
"""Of BAOAB's error bars to SGLD's, to be worth it."""

FLOOR = 0.1
"""Of the largest λ̂ of a pilot: to know smaller ones better than that has no use in a series."""

ROUNDS = 5
"""Of a choice that is made until it agrees with what it was made from."""

LOOKS = 8
"""At where the chains are, while they burn in: curvature that they meet but now and then counts as well."""


@dataclass(frozen=True)
class Calibration:
    """The settings chosen, and how they were found."""

    settings: LLCSettings
    curvature: float
    """The largest that the chains met."""
    trials: Sequence[Trial]
    gradients: int
    """Minibatch gradients that the pilot took, all rows together."""
    reasons: Sequence[str]
    """What was decided, in words."""

    def report(self) -> dict[str, Any]:
        """JSON-like: everything above."""
        return {**asdict(self), "settings": self.settings.model_dump(mode="json")}


def calibrate(
    objective: Objective,
    anchors: Tensor,
    baselines: Tensor,
    auto: AutoLLCSettings,
    plan: Plan = PLAN,
    progress: Progress = NO_PROGRESS,
) -> Calibration:
    """Choose settings. anchors: (checkpoints, d) of the pilot; baselines: (checkpoints, n), per-sample losses there.

    Raises: InputError `not_finite`, where there is nothing to choose by.
    """
    finite = baselines.isfinite().all(1)  # of others no chain can tell anything
    if not bool(finite.any()):
        raise _not_finite("the loss of every checkpoint of the pilot is infinite or NaN")
    found = _Pilot(objective, anchors[finite], baselines[finite], auto, plan, progress).run()
    numbers = finite.nonzero().flatten().tolist()
    return replace(found, trials=[replace(trial, checkpoint=numbers[trial.checkpoint]) for trial in found.trials])


def _not_finite(detail: str) -> InputError:
    return InputError("not_finite", detail, "leave out the checkpoints of a run that blew up, or set epsilon yourself")


@dataclass
class _Pilot:
    objective: Objective
    anchors: Tensor
    baselines: Tensor
    auto: AutoLLCSettings
    plan: Plan
    progress: Progress
    trials: list[Trial] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    gradients: int = 0
    """Minibatches of them."""
    num_trials: int = 0
    firmness: float = 1.0
    """Of the tether, beside what the curvature calls for: more where chains wander along valleys."""

    @cached_property
    def curvature(self) -> Curvature:
        """Where it was last looked for, by checkpoint, it goes on."""
        scales = rows_of(self.anchors, self.baselines, self.auto.as_given(), self.objective.layout).scales
        return Curvature(self.objective, scales, self.auto.batch_size, self.auto.seed, self.plan)

    def run(self) -> Calibration:
        """All decisions, one after the other."""
        settings = self._affordable(
            self.auto.as_given(
                gamma=self.auto.gamma or 0.0,
                batch_size=min(self.auto.batch_size, self.objective.num_samples),
                num_probe_samples=0,
                seed=seed_of("pilot", self.auto.seed),
            )
        )
        settings, curvature = self._choose_scale(settings)
        settings = self._choose_gradient(settings, curvature)
        settings, curvature = self._choose_step(settings, curvature)
        settings, trials = self._choose_kernel(settings)
        settings = self._choose_draws(settings, trials)
        settings = _update(settings, num_probe_samples=self.auto.num_probe_samples, seed=self.auto.seed)
        return Calibration(settings, curvature, self.trials, self.gradients, self.reasons)

    def _affordable(self, settings: LLCSettings) -> LLCSettings:
        """As many steps as the budget allows with this gradient and batch, a part of them burn-in."""
        base = min(self.auto.batch_size, self.objective.num_samples)
        cost = settings.batch_size / base * (2 if settings.gradient == "control_variate" else 1)
        steps = max(100, int(self.auto.budget / self.auto.num_chains / cost))
        burnin = round(BURNIN_SHARE * steps)
        return _update(settings, num_burnin_steps=burnin, num_draws=steps - burnin)

    # ε and γ ----------------------------------------------------------------------------------------------------------

    def _scaled(self, settings: LLCSettings, curvature: float, share: float = SHARES[2]) -> LLCSettings:
        """ε of this share, and the weakest tether at which chains spread even with the smallest share."""
        stiffness = settings.nbeta_for(self.objective.num_samples) * curvature
        gamma = self.auto.gamma
        if gamma is None:
            slowest = min(0.5, SPREADING / (2 * SHARES[-1] * settings.num_burnin_steps))
            gamma = _round_up(self.firmness * max(slowest / (1 - slowest) * stiffness, 1e-6))
        epsilon = 2 * share / (stiffness + gamma)
        return _update(settings, gamma=gamma, sampler=_with_epsilon(settings, epsilon))

    def _choose_scale(self, settings: LLCSettings) -> tuple[LLCSettings, float]:
        """By the largest curvature that chains meet."""
        found = self.progress.once("pilot's curvature", lambda: self._search(settings))
        curvature, self.gradients = float(found["curvature"]), int(found["gradients"])
        settings = self._scaled(settings, curvature)
        self.reasons.append(
            f"largest curvature {curvature:.3g} where the chains go: the weakest tether that lets them spread in "
            f"{settings.num_burnin_steps} steps is gamma {settings.gamma:.3g}"
            if self.auto.gamma is None
            else f"largest curvature {curvature:.3g} where the chains go; gamma {settings.gamma:.3g} as asked for"
        )
        return settings, curvature

    def _search(self, settings: LLCSettings) -> dict[str, NDArray[Any]]:
        """Largest curvature at the anchors, then where chains go; until that agrees with the one they were run with."""
        sizes = self.anchors.square().mean(-1)
        nudge = 0.1 * sizes.sqrt().where(sizes > 0, torch.ones_like(sizes))[:, None]
        signs = torch.from_numpy(
            np.stack([random_signs(self.auto.seed, 1 + k, self.anchors.shape[1]) for k in range(len(self.anchors))])
        ).to(self.anchors)
        curvature = max(self.curvature.at(self.anchors), self.curvature.at(self.anchors + nudge * signs))
        if not math.isfinite(curvature):
            raise _not_finite("at a checkpoint of the pilot the loss has no finite curvature")
        for _ in range(ROUNDS):
            settings = self._scaled(settings, curvature)
            chains = self._chains(settings)
            found = 0.0
            for _ in range(LOOKS):
                self._run(chains, settings.num_burnin_steps // LOOKS, settings)
                found = max(found, *map(self.curvature.at, chains.positions))
            if not math.isfinite(found):
                curvature *= 16
                continue
            agrees, curvature = found < 1.5 * curvature and found > curvature / 4, max(found, curvature / 16)
            if agrees:
                break
        gradients = self.gradients + self.curvature.gradients
        return {"curvature": np.array(curvature), "gradients": np.array(gradients)}

    # Gradient and batch -----------------------------------------------------------------------------------------------

    def _choose_gradient(self, settings: LLCSettings, curvature: float) -> LLCSettings:
        """Control variates if most of the noise is at the anchor already, a larger batch while it is still too much."""
        n = self.objective.num_samples
        for _ in range(ROUNDS):
            if settings.batch_size >= n:
                self.reasons.append(f"the batch is the whole data set of {n} samples: no gradient noise")
                break
            trial = self._trial([settings])
            excess, (share,) = float(np.nanmean(trial.draws.excesses)), trial.excess_shares()
            if not share > MAX_EXCESS:
                self.reasons.append(
                    f"gradient noise adds {excess:.2g} to an LLC of {excess / share:.3g}: {settings.gradient} "
                    f"gradients of {settings.batch_size} samples will do"
                    if share > 0
                    else f"there is no gradient noise in batches of {settings.batch_size} samples"
                )
                break
            heat = float(np.nanmean(trial.draws.virial_excesses))
            if settings.gradient == "minibatch" and self._anchor_heat(settings) > heat / 2:
                settings = _update(settings, gradient="control_variate")
            else:
                settings = _update(settings, batch_size=min(n, 2 * settings.batch_size))
            settings = self._scaled(self._affordable(settings), curvature)
        return settings

    def _anchor_heat(self, settings: LLCSettings) -> float:
        """What the gradient noise at the anchors alone would add to half the virial."""
        at_rest = _update(settings, sampler=_with_epsilon(settings, 1e-30), num_burnin_steps=0, num_draws=8)
        chains = self._chains(at_rest)
        self.gradients += 16 * settings.num_chains * len(self.anchors)
        return float(np.nanmean(chains.draw(8).virial_excesses)) * settings.sampler.epsilon / 1e-30

    # Step, kernel, draws ----------------------------------------------------------------------------------------------

    def _choose_step(self, settings: LLCSettings, curvature: float) -> tuple[LLCSettings, float]:
        """The largest share f whose λ̂ is that of f/2."""
        for attempt in range(ROUNDS):
            variants = [self._scaled(settings, curvature, share) for share in SHARES]
            trial = self._trial(variants)
            safe, cool, quiet = trial.fitness()
            if not safe[-1]:
                curvature *= 4
            elif not cool[-2] and attempt == 0:  # once, for a pilot's virials are noisy
                curvature *= 2
            elif "not_spread" in trial.verdicts_of(len(SHARES) - 1) and self.auto.gamma is None:
                self.firmness *= 3
            else:
                return self._largest_step(trial, safe & cool & quiet), curvature
        self.reasons.append("no step was found at which the chains are healthy: mind the verdicts")
        return self._scaled(settings, curvature, SHARES[-1]), curvature

    def _largest_step(self, trial: TrialRun, fit: NDArray[np.bool_]) -> LLCSettings:
        """Of those whose λ̂ is that of the next smaller one, the largest; with what the step size does to it. λ̂ has to
        be the same without its control variate, too: that hides some of a step's heat, by which chains may be lost.
        """
        moves = [trial.changes(v, control=control) for v in range(len(SHARES) - 1) for control in (True, False)]
        agrees = list(map(_is_small, moves))
        chosen = len(SHARES) - 1
        while chosen and fit[chosen - 1] and all(agrees[2 * chosen - 2 : 2 * chosen]):
            chosen -= 1
        error = _beyond_noise(moves[2 * min(chosen, len(SHARES) - 2)])
        if chosen == len(SHARES) - 1:
            error /= 4  # the change from twice the step; of second order
        error, settings = max(error, MIN_STEP_ERROR), trial.variants[chosen]
        self.reasons.append(
            f"epsilon {settings.sampler.epsilon:.3g}, {SHARES[chosen]:g} of half the largest stable step; the step "
            f"size moves the LLC by about {error:.1%}"
        )
        return _update(settings, step_error=error)

    def _choose_kernel(self, settings: LLCSettings) -> tuple[LLCSettings, Sequence[Trial]]:
        """BAOAB in place of SGLD if it is as healthy, at half the step the same, and reaches a smaller error with as
        many gradients; and the trials of the one chosen.
        """
        other = _update(settings, sampler=BAOABSettings(epsilon=settings.sampler.epsilon, momentum=MOMENTUM))
        beyond = _update(other, sampler=_with_epsilon(other, SHARES[0] * settings.sampler.epsilon))
        finer = _update(other, sampler=_with_epsilon(other, settings.sampler.epsilon / 2))
        first, second = self._trial([settings]), self._trial([beyond, other, finer])
        telling = first.telling(0)
        mine, its = ([trials[row] for row in telling] for trials in (first.table(), second.table()[second.rows(1)]))
        pairs = [(first.estimates[row], second.estimates[second.rows(1)][row]) for row in telling]
        agree = pairs and all(abs(a.value - b.value) <= 3 * math.hypot(a.std_error, b.std_error) for a, b in pairs)
        moves = [second.changes(1, control=control) for control in (True, False)]
        if not (agree and second.fitness()[:, 1].all() and all(map(_is_small, moves))):
            self.reasons.append("SGLD with averaged noise: BAOAB is too hot at this step")
            return settings, mine
        ratio = float(np.median([b.std_error / a.std_error for a, b in pairs]))
        if ratio < MAX_ERROR_RATIO:
            self.reasons.append(f"BAOAB: its error bars are {ratio:.2f} of SGLD's")
            return _update(other, step_error=max(settings.step_error, _beyond_noise(moves[0]))), its
        self.reasons.append(f"SGLD with averaged noise: BAOAB's error bars are {ratio:.2f} of its")
        return settings, mine

    def _choose_draws(self, settings: LLCSettings, trials: Sequence[Trial]) -> LLCSettings:
        """As many as the target needs by these trials' sampling errors, within the budget; more where that errs."""
        target = self._target(max((abs(trial.llc) for trial in trials), default=0.0))
        most, share = settings.num_draws, self._trial_draws(settings)
        wanted = [target.error(trial.llc) for trial in trials]
        needed = [
            share * (t.sampling_error / error) ** 2 if error else math.inf
            for t, error in zip(trials, wanted, strict=True)
        ]
        least = min(most, settings.num_burnin_steps)  # fewer would save less than the burn-in has cost
        draws = int(min(most, max(least, *needed))) if needed and all(map(math.isfinite, needed)) else most
        max_draws = round(self.auto.extension * (settings.num_burnin_steps + most)) - settings.num_burnin_steps
        self.reasons.append(
            f"{draws} draws a chain{_why_as_many(draws, least, most)}; up to {max_draws} where that misses it"
        )
        return _update(settings, num_draws=draws, target=target, max_draws=max_draws)

    def _target(self, largest: float) -> Target:
        """The target, a share of a small λ̂ never meaning less than that share of a tenth of the series' largest: near
        zero it could not be reached.
        """
        target = self.auto.target
        if target.std_error is not None or target.relative_error is None or not math.isfinite(largest):
            return target
        return Target(std_error=target.relative_error * FLOOR * largest or None, relative_error=target.relative_error)

    # Running ----------------------------------------------------------------------------------------------------------

    def _trial_draws(self, settings: LLCSettings) -> int:
        return max(50, settings.num_burnin_steps)

    def _trial(self, variants: Sequence[LLCSettings]) -> TrialRun:
        """Draws of every variant of ε and γ at every checkpoint."""
        (settings, *_) = variants
        parts = [rows_of(self.anchors, self.baselines, v, self.objective.layout) for v in variants]
        name = f"pilot's trial {self.num_trials}"
        chains = Chains(self.objective, concatenate(parts), settings, self.plan, self.progress, name)
        self._run(chains, settings.num_burnin_steps, settings, len(variants))
        trial = TrialRun(chains.draw(self._trial_draws(settings)), variants)
        chains.end()
        self.num_trials += 1
        self._count_steps(self._trial_draws(settings), settings, len(variants))
        self.trials.extend(trial.table())
        return trial

    def _chains(self, settings: LLCSettings) -> Chains:
        rows = rows_of(self.anchors, self.baselines, settings, self.objective.layout)
        return Chains(self.objective, rows, settings, self.plan, self.progress)

    def _run(self, chains: Chains, steps: int, settings: LLCSettings, variants: int = 1) -> None:
        chains.burn_in(steps)
        self._count_steps(steps, settings, variants)

    def _count_steps(self, steps: int, settings: LLCSettings, variants: int) -> None:
        gradients = 2 if settings.gradient == "control_variate" else 1
        self.gradients += steps * gradients * settings.num_chains * len(self.anchors) * variants


def _is_small(move: Move) -> bool:
    moved, noise = move
    return bool(np.all(np.abs(moved) <= np.maximum(MAX_STEP_CHANGE, noise)))


def _beyond_noise(move: Move) -> float:
    """Root mean square over checkpoints."""
    moved, noise = move
    return math.sqrt(max(0.0, float(np.mean(moved**2 - noise**2))))


def _why_as_many(draws: int, least: int, most: int) -> str:
    if draws >= most:
        return ", all that the budget allows"
    return " for the target" if draws > least else ", as many as burn-in steps"


def _update(settings: LLCSettings, **changes: Any) -> LLCSettings:
    return settings.model_copy(update=changes)


def _with_epsilon(settings: LLCSettings, epsilon: float) -> SamplerSettings:
    return settings.sampler.model_copy(update={"epsilon": epsilon})


def _round_up(gamma: float) -> float:
    """To 1, 3, 10, 30, ...: jobs on similar series get the same tether."""
    decade = 10.0 ** math.floor(math.log10(gamma) + 1e-9)
    return next(decade * step for step in (1, 3, 10) if decade * step >= gamma * (1 - 1e-9))
