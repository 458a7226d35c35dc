"""Every kernel through the sampling loop against known answers, with power: the error bar is small, the truth lies
inside, and each way of breaking a kernel is told from the right one by the same check.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from llc import estimators
from llc.draws import Draws
from llc.estimators import Estimate
from llc.samplers import KERNELS, Columns, Kernel, Point, State
from llc.settings import (
    BAOABSettings,
    LLCSettings,
    MALASettings,
    PSGLDSettings,
    SamplerSettings,
    SGLDSettings,
    SGNHTSettings,
)
from tests.llc.problems import draw, draw_oracle, linear_objective
from tests.oracles import ORACLES, QUADRATICS, LinearNetworkProblem, Quadratic, linear_network

SAMPLERS: dict[str, Callable[[float], SamplerSettings]] = {
    "sgld": lambda epsilon: SGLDSettings(epsilon=epsilon, noise="independent"),
    "averaged": lambda epsilon: SGLDSettings(epsilon=epsilon),
    "psgld": lambda epsilon: PSGLDSettings(epsilon=epsilon / 5),
    "corrected": lambda epsilon: PSGLDSettings(epsilon=epsilon / 5, correction=True),
    "sgnht": lambda epsilon: SGNHTSettings(epsilon=epsilon),
    "baoab": lambda epsilon: BAOABSettings(epsilon=epsilon, momentum=0.8),
    "mala": lambda epsilon: MALASettings(epsilon=epsilon),
}


def settings(sampler: SamplerSettings, nbeta: float, gamma: float, num_draws: int) -> LLCSettings:
    """Many short chains, so that the error bar is small."""
    return LLCSettings(
        sampler=sampler,
        nbeta=nbeta,
        gamma=gamma,
        batch_size=1,
        num_chains=32,
        num_burnin_steps=1000 if sampler.name == "psgld" else 300,  # v₀ = 1 has to be forgotten
        num_draws=num_draws,
    )


def accepts(estimate: Estimate, truth: float, power: float) -> bool:
    """Power first (relative error bar at most `power`), then the truth within three error bars."""
    return estimate.std_error <= power * truth and abs(estimate.value - truth) <= 3 * estimate.std_error


def plain(draws: Draws) -> Estimate:
    """λ̂ without its control variate, which would mend some of what is wrong with a kernel."""
    return estimators.llc(draws, 0, control=False)


PROBLEMS = {
    "valley": (100.0, 50.0, 1e-3),
    "w4": (100.0, 10.0, 2e-3),
    "x2y2": (100.0, 10.0, 2e-3),
    "cusp": (100.0, 10.0, 2e-3),
}
"""(nβ, γ, ε) of each."""


def estimate_and_truth(name: str, sampler: str, num_draws: int = 1200) -> tuple[Estimate, float]:
    """λ̂ with a small step, and what a perfect sampler gives."""
    nbeta, gamma, epsilon = PROBLEMS[name]
    draws = draw_oracle(ORACLES[name], settings(SAMPLERS[sampler](epsilon), nbeta, gamma, num_draws))
    return plain(draws), ORACLES[name].llc(nbeta, gamma)


@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_kernel_agrees_with_the_posterior(name: str, sampler: str) -> None:
    estimate, truth = estimate_and_truth(name, sampler)
    assert accepts(estimate, truth, power=0.1), (estimate, truth)


@pytest.mark.parametrize("oracle", QUADRATICS, ids=lambda oracle: oracle.name)
def test_plain_sgld_follows_its_own_stationary_law_and_the_excess_is_known(oracle: Quadratic) -> None:
    """A step so large that SGLD's law is far from the posterior."""
    chosen = settings(SGLDSettings(epsilon=0.006, noise="independent"), 100.0, 50.0, 1000)
    estimate = plain(draw_oracle(oracle, chosen))
    law, truth = oracle.sgld_llc(100.0, 50.0, 0.006), oracle.llc(100.0, 50.0)
    assert estimate.sampling_error < 0.012 * truth
    assert law > 1.1 * truth
    assert abs(estimate.value + estimate.excess - law) < 3 * estimate.sampling_error
    assert abs(estimate.value - truth) < 3 * estimate.sampling_error  # of which the excess' own doubt is no part


@pytest.mark.parametrize("sampler", ["averaged", "baoab", "sgnht"])
def test_symmetric_kernels_are_exact_on_quadratics_at_any_step(sampler: str) -> None:
    estimate = plain(draw_oracle(QUADRATICS[0], settings(SAMPLERS[sampler](0.006), 100.0, 50.0, 1000)))
    assert accepts(estimate, QUADRATICS[0].llc(100.0, 50.0), power=0.01), estimate


def full_force(point: Point, noise: Tensor) -> tuple[Point, Tensor]:
    return replace(point, forces=2 * point.forces), noise


def no_tether(point: Point, noise: Tensor) -> tuple[Point, Tensor]:
    return replace(point, forces=point.gradients), noise


def uphill(point: Point, noise: Tensor) -> tuple[Point, Tensor]:
    return replace(point, forces=-point.forces), noise


def weak_noise(point: Point, noise: Tensor) -> tuple[Point, Tensor]:
    return point, 0.7 * noise


BREAKS = [full_force, no_tether, uphill, weak_noise]


def break_kernel(
    monkeypatch: pytest.MonkeyPatch, sampler: str, broken: Callable[[Point, Tensor], tuple[Point, Tensor]]
) -> None:
    """The kernel's step is given something else than it should."""
    kernel = KERNELS[SAMPLERS[sampler](1.0).name]
    right = kernel.step

    def step(self: Kernel, point: Point, state: State, noise: Tensor, columns: Columns) -> Tensor:
        return right(self, *broken(point, noise)[:1], state, broken(point, noise)[1], columns)

    monkeypatch.setattr(kernel, "step", step)


CAN_FAIL = [
    (sampler, broken)
    for sampler in SAMPLERS
    for broken in BREAKS
    if (sampler, broken) != ("sgnht", weak_noise)  # which the thermostat mends: it is what it is for
]


@pytest.mark.parametrize(("sampler", "broken"), CAN_FAIL)
def test_broken_kernels_are_found(sampler: str, broken: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    break_kernel(monkeypatch, sampler, broken)
    estimate, truth = estimate_and_truth("valley", sampler, num_draws=400)
    assert not accepts(estimate, truth, power=0.1)


@pytest.mark.parametrize("broken", BREAKS)
@pytest.mark.parametrize("name", ["w4", "cusp"])
def test_broken_kernels_are_found_where_the_loss_is_degenerate(
    name: str, broken: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_kernel(monkeypatch, "averaged", broken)
    estimate, truth = estimate_and_truth(name, "averaged")
    assert not accepts(estimate, truth, power=0.1)


def two_layer_truth(nbeta: float, gamma: float, problem: LinearNetworkProblem) -> float:
    """λ̂ of a perfect sampler on a linear network 1-2-N with inputs ±1, `L = ½‖W₂w₁ − t‖²`, by quadrature.

    Given w₁ (two numbers), every row of W₂ is Gaussian, of precision `A = nβ w₁w₁ᵀ + γ I`, and integrates to a closed
    form; w₁ is integrated on a grid. Then `E[nβ L] = −nβ ∂ log Z / ∂(nβ)`, by a central difference.
    """
    first, rows = problem.w_star[:2], problem.w_star[2:].reshape(-1, 2)
    reach = 8 / gamma**0.5
    axes = [np.linspace(mid - reach, mid + reach, 1501) for mid in first]
    w1 = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)

    def log_z(nbeta: float) -> float:
        squares = (w1**2).sum(-1)
        log_p = -gamma / 2 * ((w1 - first) ** 2).sum(-1)
        for row in rows:
            target = row @ first
            b = nbeta * target * w1 + gamma * row
            along = nbeta * (b * w1).sum(-1) ** 2 / (gamma + nbeta * squares)
            b_inverse_a_b = ((b**2).sum(-1) - along) / gamma
            log_det_a = np.log(gamma) + np.log(gamma + nbeta * squares)
            log_p += b_inverse_a_b / 2 - log_det_a / 2 - (nbeta * target**2 + gamma * row @ row) / 2
        top = log_p.max()
        return float(np.log(np.exp(log_p - top).sum()) + top)

    step = 1e-3 * nbeta
    return -nbeta * (log_z(nbeta + step) - log_z(nbeta - step)) / (2 * step)


def two_layer_estimate(rank: int, epsilon: float, num_draws: int = 2000) -> tuple[Estimate, float, float]:
    """λ̂ on a linear network 1-2-3, the truth at this finite nβ, and λ."""
    problem = linear_network((1, 2, 3), rank, n=4, seed=0)
    # Inputs ±1: every sample has the same loss, so that a minibatch has no noise.
    problem.y[:] = np.sign(problem.x) * problem.y / problem.x
    problem.x[:] = np.sign(problem.x)
    chosen = settings(SGLDSettings(epsilon=epsilon), 200.0, 10.0, num_draws)
    draws = draw(linear_objective(problem), torch.from_numpy(problem.w_star)[None], chosen)
    return plain(draws), two_layer_truth(200.0, 10.0, problem), float(problem.lambda_)


@pytest.mark.parametrize(("rank", "epsilon"), [(0, 1e-3), (1, 1e-3)])
def test_two_layer_linear_network_agrees_with_quadrature(rank: int, epsilon: float) -> None:
    estimate, truth, asymptote = two_layer_estimate(rank, epsilon)
    assert truth < asymptote  # which it approaches as nβ grows
    assert accepts(estimate, truth, power=0.06), (estimate, truth, asymptote)


@pytest.mark.parametrize("broken", BREAKS)
def test_broken_kernels_are_found_on_the_two_layer_network(broken: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    break_kernel(monkeypatch, "averaged", broken)
    estimate, truth, _ = two_layer_estimate(rank=0, epsilon=1e-3, num_draws=1000)
    assert not accepts(estimate, truth, power=0.06)


def test_a_chain_is_the_same_with_other_chains_and_checkpoints_beside_it() -> None:
    problem = linear_network((4, 3, 4), 2, n=100, seed=1, noise=0.1)
    anchors = torch.from_numpy(problem.w_star) + torch.tensor([[0.0], [0.1], [0.3]])
    chosen = settings(SGLDSettings(epsilon=1e-4), 20.0, 10.0, 100).model_copy(
        update={"batch_size": 16, "num_chains": 3}
    )
    objective = linear_objective(problem)
    together = draw(objective, anchors, chosen)
    alone = draw(objective, anchors[1:2], chosen.model_copy(update={"num_chains": 4}))
    again = draw(objective, anchors, chosen)
    assert np.array_equal(together.losses, again.losses)
    assert np.ptp(together.losses[1], axis=0).min() > 0  # chains differ from each other
    np.testing.assert_allclose(alone.losses[0, :3], together.losses[1], rtol=1e-4)
    np.testing.assert_allclose(alone.distances[0, :3], together.distances[1], rtol=1e-4)


def test_the_paired_baseline_cancels_the_noise_of_minibatches() -> None:
    problem = linear_network((4, 3, 4), 2, n=1000, seed=1, noise=1.0)
    chosen = settings(SGLDSettings(epsilon=1e-5), 100.0, 10.0, 200).model_copy(
        update={"batch_size": 16, "num_chains": 4}
    )
    draws = draw(linear_objective(problem), torch.from_numpy(problem.w_star)[None], chosen)
    paired, unpaired = (draws.losses - draws.baselines).std(), draws.losses.std()
    assert paired < unpaired / 4


def test_divergence_is_recorded_where_it_happens() -> None:
    chosen = settings(SGLDSettings(epsilon=1.0), 1e3, 1.0, 50).model_copy(
        update={"num_burnin_steps": 0, "num_chains": 2}
    )
    draws = draw_oracle(ORACLES["w4"], chosen)
    (first, second) = draws.diverged_at[0]
    assert first > 0
    assert np.isnan(draws.losses[0, 0, first:]).all() or np.isinf(draws.losses[0, 0, first])
    assert np.isfinite(draws.losses[0, 1, :second]).all()
