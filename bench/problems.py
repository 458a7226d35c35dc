"""The problems that accuracy is measured on: a loss, a point w*, and what is known of λ there.

Names are paths, `family/what/variant`, made on demand: a name costs nothing, `problem(name)` makes the data.
"""

import fnmatch
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property, partial
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.networks import Array, least_squares, moved, rescaled, trained
from bench.objectives import OneSample, closed_form, moments, whole
from bench.peers.client import Problem as PeerProblem
from llc.exact import POTENTIALS, quadratic_llc
from llc.models import MLP, DeepLinear, ModelSpec, ToyModelOfSuperposition
from llc.objective import ModelObjective, Objective
from llc.settings import LLCSettings
from tests.oracles import linear_network, rescaled_relu, superposition

Family = Literal["potential", "quadratic", "deep_linear", "reduced_rank", "superposition", "relu"]


@dataclass(frozen=True)
class Problem:
    """A point to estimate at, and what is known there."""

    name: str
    family: Family
    objective: Objective
    w_star: Tensor
    """(d,) float32."""
    spec: Mapping[str, Any]
    """As the peers take it."""
    nbeta: float
    """The default: n / log n, or as the name says where there are no data."""
    gamma: float
    """At which kernels with settings by hand are compared."""
    lambda_: float | None = None
    """The limit of λ̂ as n → ∞."""
    multiplicity: int | None = None
    exact: Callable[[float, float], float] | None = None
    """(nβ, γ) → λ̂, where a formula or quadrature gives it."""
    arrays: Mapping[str, NDArray[np.generic]] = field(default_factory=dict)

    @property
    def d(self) -> int:
        """Parameters."""
        return len(self.w_star)

    @property
    def n(self) -> int:
        """Samples; 1 for a loss that has no data."""
        return self.objective.num_samples

    @cached_property
    def whole(self) -> OneSample:
        """The loss on all data as one sample, up to a constant, for w float64."""
        if isinstance(self.objective, OneSample):
            return self.objective
        if isinstance(self.objective, ModelObjective) and isinstance(self.objective.model, DeepLinear):
            return moments(self.objective)
        return whole(self.objective)

    @property
    def peer(self) -> PeerProblem:
        """For `bench.peers`."""
        return PeerProblem(spec=self.spec, w_star=self.w_star.numpy(), arrays=self.arrays)


def names(pattern: str = "*") -> list[str]:
    """Names of problems, of those that match a pattern with * and ?, or several with commas between them."""
    return [name for name in PROBLEMS if any(fnmatch.fnmatchcase(name, one) for one in pattern.split(","))]


@cache
def problem(name: str) -> Problem:
    """The problem of this name. Raises: KeyError."""
    return PROBLEMS[name](name)


# Losses in closed form ------------------------------------------------------------------------------------------------

POTENTIAL_NBETAS = (1e2, 1e4, 1e6)

POTENTIAL_GAMMAS = {("x2y2", 1e4): 10.0, ("x2y2", 1e6): 100.0}
"""By hand; 1 elsewhere. The valley of x²y² is 18 nβ/γ² times as stiff across as along."""

CONDITION_NUMBERS = (1.0, 1e2, 1e4)


def _potential(which: str, nbeta: float, gamma: float, name: str) -> Problem:
    potential = POTENTIALS[which]
    return Problem(
        name=name,
        family="potential",
        objective=closed_form(potential.loss, potential.dimension),
        w_star=torch.zeros(potential.dimension),
        spec={"family": "potential", "name": which},
        nbeta=nbeta,
        gamma=gamma,
        lambda_=float(potential.lambda_),
        multiplicity=potential.multiplicity,
        exact=potential.llc,
    )


def _quadratic(condition: float, name: str, d: int = 20) -> Problem:
    h = np.geomspace(1 / condition, 1, d)
    curvatures = torch.tensor(h, dtype=torch.float64)
    return Problem(
        name=name,
        family="quadratic",
        objective=closed_form(lambda w: (curvatures.to(w.dtype) * w.square()).sum(-1) / 2, d),
        w_star=torch.zeros(d),
        spec={"family": "quadratic", "h": h.tolist()},
        nbeta=1e4,
        gamma=1.0,
        lambda_=d / 2,
        multiplicity=1,
        exact=partial(quadratic_llc, h),
    )


# Networks -------------------------------------------------------------------------------------------------------------

GAMMA, SUPERPOSITION_GAMMA = 100.0, 10.0
"""By hand, of networks. The loss of superposition is curved too little for the stronger tether to leave much of λ̂."""

LINEAR_NETWORKS: tuple[tuple[tuple[int, ...], int, int], ...] = (
    ((5, 3, 5), 2, 1000),
    ((10, 10, 10), 3, 1000),
    ((3,) * 4, 1, 1000),
    ((5,) * 5, 2, 1000),
    ((10,) * 6, 4, 2000),
    ((20, 10, 20), 5, 2000),
    ((30, 30, 30), 10, 2000),
    ((50,) * 3, 10, 2000),
    ((20,) * 5, 5, 2000),
    ((50,) * 4, 10, 2000),
    ((100,) * 3, 20, 4000),
    ((100,) * 4, 30, 4000),
)
"""Widths, rank, n."""

REDUCED_RANK = (10, 8, 10)

SUPERPOSITIONS = ((5, 6), (6, 6), (6, 8))
"""k-gons of c features."""

RELU_WIDTHS = (4, 8, 2)

FACTORS = ("0.01", "0.1", "1", "10", "100")


def _network(
    name: str,
    family: Family,
    model: ModelSpec,
    arrays: Mapping[str, NDArray[np.generic]],
    w_star: Array,
    gamma: float = GAMMA,
    **known: Any,
) -> Problem:
    objective = ModelObjective(model, arrays)
    return Problem(
        name=name,
        family=family,
        objective=objective,
        w_star=torch.from_numpy(w_star.astype(np.float32)),
        spec=model.model_dump(mode="json"),
        nbeta=LLCSettings().nbeta_for(objective.num_samples),
        gamma=gamma,
        arrays=arrays,
        **known,
    )


def _deep_linear(widths: tuple[int, ...], rank: int, n: int, where: str, name: str) -> Problem:
    made = linear_network(widths, rank, n, seed=0)
    w_star = moved(made.w_star, widths, seed=1) if where == "moved" else made.w_star
    known = {"lambda_": float(made.lambda_), "multiplicity": made.multiplicity}
    return _network(name, "deep_linear", DeepLinear(widths=widths), {"x": made.x, "y": made.y}, w_star, **known)


def _reduced_rank(noise: float, where: str, name: str, n: int = 20_000) -> Problem:
    made = linear_network(REDUCED_RANK, 3, n, seed=0, noise=noise)
    w_star = least_squares(made.x, made.y, REDUCED_RANK[1]) if where == "minimum" else made.w_star
    known = {"lambda_": float(made.lambda_), "multiplicity": made.multiplicity}
    return _network(name, "reduced_rank", DeepLinear(widths=REDUCED_RANK), {"x": made.x, "y": made.y}, w_star, **known)


def _superposition(k: int, c: int, name: str) -> Problem:
    made = superposition(k, c, samples_per_feature=256)
    model = ToyModelOfSuperposition(num_features=c)
    return _network(
        name,
        "superposition",
        model,
        {"x": made.x},
        made.w_star,
        gamma=SUPERPOSITION_GAMMA,
        lambda_=float(made.lambda_),
    )


def _relu(factor: float, name: str) -> Problem:
    model, arrays, w_star = _relu_minimum()
    return _network(name, "relu", model, arrays, rescaled(w_star, RELU_WIDTHS, factor))


@cache
def _relu_minimum() -> tuple[MLP, Mapping[str, NDArray[np.generic]], Array]:
    """Trained on a network's outputs with noise."""
    made = rescaled_relu(RELU_WIDTHS, (1.0,), n=500, seed=0, noise=0.3)
    model = MLP(widths=RELU_WIDTHS, loss="gaussian_nll")
    arrays = {"x": made.x, "y": made.y}
    return model, arrays, trained(ModelObjective(model, arrays), made.w_star[0])


# All of them ----------------------------------------------------------------------------------------------------------


def _all() -> Iterator[tuple[str, Callable[[str], Problem]]]:
    for which in POTENTIALS:
        for nbeta in POTENTIAL_NBETAS:
            gamma = POTENTIAL_GAMMAS.get((which, nbeta), 1.0)
            yield f"potential/{which}/{_power_of_ten(nbeta)}", partial(_potential, which, nbeta, gamma)
    for condition in CONDITION_NUMBERS:
        yield f"quadratic/{_power_of_ten(condition)}", partial(_quadratic, condition)
    for widths, rank, n in LINEAR_NETWORKS:
        for where in ("block", "moved"):
            sizes = "-".join(map(str, widths))
            yield f"deep_linear/{sizes}/r{rank}/{where}", partial(_deep_linear, widths, rank, n, where)
    for noise, where in ((0.1, "minimum"), (1.0, "minimum"), (1.0, "teacher")):
        yield f"reduced_rank/{noise:g}/{where}", partial(_reduced_rank, noise, where)
    for k, c in SUPERPOSITIONS:
        yield f"superposition/{k}-of-{c}", partial(_superposition, k, c)
    for factor in FACTORS:
        yield f"relu/{factor}", partial(_relu, float(factor))


def _power_of_ten(value: float) -> str:
    return f"1e{round(np.log10(value))}"


PROBLEMS: Mapping[str, Callable[[str], Problem]] = dict(_all())
"""By name, in the order of the tables."""
