"""What a perfect sampler would give: λ̂ of each problem at a finite (nβ, γ).

By a formula or quadrature where there is one; else by a long run of `bench.hmc`, whose kernel has no step-size bias, on
the whole data set in double precision, with an error bar of its own. Half of its chains start at w*, half from a hotter
posterior. Two checks are kept beside it, with their errors: the halves apart, and a run of BAOAB with full gradients at
half of the time step. Where there is a formula, HMC is the check.

`python -m bench.truth [--problems PATTERN]` makes what is missing in bench/references.json, at the problems' own
(nβ, γ); `truth` makes any other on demand.
"""

import argparse
import fcntl
import hashlib
import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from bench.hmc import HMC, Posterior
from bench.problems import Problem, names, problem
from llc.chains import sample
from llc.ensemble import per_sample_losses
from llc.estimators import Estimate, mean
from llc.rows import Rows, tensor_scales
from llc.settings import BAOABSettings, Frozen, LLCSettings

REFERENCES = Path(__file__).parent / "references.json"

Tether = Literal["parameters", "tensors"]


class RunSettings(Frozen):
    """Of a reference run."""

    num_chains: int = 32
    num_warmup: int = 60
    num_draws: int = 30
    """Trajectories between two looks at the error bar."""
    min_looks: int = 3
    target: float = 0.005
    """Standard error over value at which it ends ..."""
    max_r_hat: float = 1.03
    max_seconds: float = 90.0
    """... or after this time."""


SMALL = RunSettings()
LARGE = RunSettings(num_chains=8, num_warmup=30, num_draws=15)
CHECKING = RunSettings(target=0.02, max_seconds=5.0)
"""Where a formula has the value."""
LARGE_FROM = 3000
"""Parameters."""


class Check(Frozen):
    """Another estimate of the same number."""

    value: float
    std_error: float


class Reference(Frozen):
    """λ̂ of a perfect sampler, and why to believe it."""

    value: float
    std_error: float
    source: Literal["exact", "hmc"]
    sharpness: float
    """The largest curvature of nβ L + (γ/2)‖u‖² at draws: the scale of every step size."""
    checks: Mapping[str, Check]
    """By kernel, or `hot` and `cold`: the halves of the HMC chains."""
    r_hat: float
    """Of the HMC run."""
    acceptance: float
    num_gradients: int
    """Full gradients that the run took, of all chains."""
    seconds: float
    fingerprint: tuple[float, ...]
    """Of the problem: losses about w*."""

    @property
    def z(self) -> float:
        """The largest disagreement of a check with the value, in standard errors."""
        return max(
            abs(check.value - self.value) / math.hypot(check.std_error, self.std_error)
            for name, check in self.checks.items()
            if name not in ("hot", "cold")
        )

    @property
    def start_z(self) -> float:
        """How far the chains that started hot are from those that started cold, in standard errors."""
        hot, cold = self.checks["hot"], self.checks["cold"]
        return abs(hot.value - cold.value) / math.hypot(hot.std_error, cold.std_error)


def truth(
    problem: Problem, nbeta: float | None = None, gamma: float | None = None, tether: Tether = "parameters"
) -> Reference:
    """λ̂ of a perfect sampler at (nβ, γ), the problem's own if not given: from the cache, or made now and kept there.

    tether: in units of parameters, or of each tensor's size (`llc.rows`).
    """
    nbeta, gamma = nbeta or problem.nbeta, gamma or problem.gamma
    settings = _settings(problem, tether)
    key = f"{problem.name} nbeta={nbeta:.6g} gamma={gamma:.6g} tether={tether} run={_digest(settings)}"
    fingerprint = _fingerprint(problem)
    known = _read().get(key)
    if known is not None and np.allclose(known["fingerprint"], fingerprint, rtol=1e-3):
        return Reference.model_validate(known)
    made = _make(problem, nbeta, gamma, tether, settings, fingerprint)
    _keep(key, made)
    return made


def posterior(problem: Problem, nbeta: float, gamma: float, tether: Tether = "parameters") -> Posterior:
    """The density that λ̂ is an expectation over."""
    return Posterior(problem.whole.loss, problem.w_star.double(), nbeta, gamma, _scales(problem, tether).double())


def _settings(problem: Problem, tether: Tether) -> RunSettings:
    if problem.exact is not None and tether == "parameters":
        return CHECKING
    return LARGE if problem.d >= LARGE_FROM else SMALL


def _make(
    problem: Problem, nbeta: float, gamma: float, tether: Tether, settings: RunSettings, fingerprint: tuple[float, ...]
) -> Reference:
    start = time.perf_counter()
    target = posterior(problem, nbeta, gamma, tether)
    base = nbeta * target.loss(target.anchor).item()
    chains = HMC(target, settings.num_chains, settings.num_warmup)
    draws = np.empty((settings.num_chains, 0))
    looks = 0
    while True:
        draws = np.concatenate([draws, chains.draw(settings.num_draws).numpy() - base], axis=1)
        looks += 1
        found = mean(draws)
        enough = found.std_error <= settings.target * abs(found.value) and found.r_hat <= settings.max_r_hat
        if looks >= settings.min_looks and (enough or time.perf_counter() - start > settings.max_seconds):
            break
    half = settings.num_chains // 2
    checks = {"cold": _check(mean(draws[:half])), "hot": _check(mean(draws[half:]))}
    value, std_error = found.value, found.std_error
    if problem.exact is not None and tether == "parameters":
        checks["hmc"] = _check(found)
        value, std_error = problem.exact(nbeta, gamma), 0.0
    else:
        checks["baoab"] = _check(_baoab(problem, target, chains.time_step / 2))
    return Reference(
        value=value,
        std_error=std_error,
        source="exact" if "hmc" in checks else "hmc",
        sharpness=chains.sharpness(),
        checks=checks,
        r_hat=found.r_hat,
        acceptance=chains.acceptance,
        num_gradients=chains.num_gradients,
        seconds=time.perf_counter() - start,
        fingerprint=fingerprint,
    )


def _baoab(problem: Problem, target: Posterior, time_step: float) -> Estimate:
    """The second kernel: full gradients through `llc.chains`, friction about that which damps the slowest motion."""
    num_steps = 600 if problem.d >= LARGE_FROM else 2000
    settings = LLCSettings(
        sampler=BAOABSettings(epsilon=time_step**2, momentum=math.exp(-2 * time_step * math.sqrt(target.gamma))),
        nbeta=target.nbeta,
        gamma=target.gamma,
        batch_size=1,
        num_burnin_steps=num_steps // 4,
        num_draws=num_steps,
    )
    anchors = target.anchor[None]

    def column(value: float) -> Tensor:
        return torch.full((1,), value, dtype=torch.float64)

    rows = Rows(
        anchors=anchors,
        baselines=per_sample_losses(problem.whole, anchors),
        epsilon=column(time_step**2),
        gamma=column(target.gamma),
        nbeta=column(target.nbeta),
        batch_size=torch.ones(1, dtype=torch.long),
        scales=target.scales[None],
    )
    return mean(sample(problem.whole, rows, settings).potentials[0])


def _check(found: Estimate) -> Check:
    return Check(value=found.value, std_error=found.std_error)


def _scales(problem: Problem, tether: Tether) -> Tensor:
    if tether == "parameters":
        return torch.ones_like(problem.w_star)
    return tensor_scales(problem.w_star[None], problem.objective.layout)[0]


# The cache ------------------------------------------------------------------------------------------------------------


def _digest(settings: RunSettings) -> str:
    return hashlib.sha256(settings.model_dump_json().encode()).hexdigest()[:8]


def _fingerprint(problem: Problem, num_places: int = 3) -> tuple[float, ...]:
    """Losses at random places about w*, relative to that at w*: another problem under the same name has others."""
    anchor = problem.w_star.double()
    generator = torch.Generator().manual_seed(0)
    steps = 0.1 * torch.randn(num_places, len(anchor), generator=generator, dtype=torch.float64)
    base = problem.whole.loss(anchor)
    return tuple((problem.whole.loss(anchor + step) - base).item() for step in steps)


def _read() -> dict[str, Any]:
    return json.loads(REFERENCES.read_text()) if REFERENCES.exists() else {}


def _keep(key: str, made: Reference) -> None:
    """Add to the file; several processes may."""
    with Path(__file__).open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        known = {**_read(), key: made.model_dump(mode="json")}
        new = REFERENCES.with_suffix(".new")
        new.write_text(json.dumps(dict(sorted(known.items())), indent=1) + "\n")
        new.replace(REFERENCES)


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the references that are missing in bench/references.json.")
    parser.add_argument("--problems", default="*", metavar="PATTERN", help="names with * and ?, commas between them")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name in names(arguments.problems):
        one = problem(name)
        found = truth(one)
        print(
            f"{name:40s} {found.value:10.5g} ± {found.std_error:8.2g}  λ {one.lambda_ or math.nan:8.5g}  "
            f"other kernels z {found.z:4.1f}  hot and cold z {found.start_z:4.1f}  R-hat {found.r_hat:.3f}  "
            f"accepted {found.acceptance:.2f}  {found.num_gradients:8d} gradients  {found.seconds:5.1f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
