"""The sampling loop with SGLD against known answers, with power: the error bar is small, the truth lies inside, and
each broken kernel is told from the right one by the same check.
"""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from llc import estimators
from llc.estimators import LLCEstimate
from llc.samplers import sgld
from llc.settings import LLCSettings, SGLDSettings
from tests.llc.problems import draw, draw_oracle, linear_objective
from tests.oracles import ORACLES, QUADRATICS, LinearNetworkProblem, Quadratic, linear_network

Kernel = Callable[[SGLDSettings, Tensor, Tensor, Tensor, Tensor, float, float], Tensor]


def settings(epsilon: float, nbeta: float, gamma: float, num_draws: int = 4000) -> LLCSettings:
    """Many short chains, so that the error bar is small."""
    return LLCSettings(
        sampler=SGLDSettings(epsilon=epsilon),
        nbeta=nbeta,
        gamma=gamma,
        batch_size=1,
        num_chains=48,
        num_burnin_steps=500,
        num_draws=num_draws,
    )


def accepts(estimate: LLCEstimate, truth: float, power: float) -> bool:
    """Power first (relative error bar at most `power`), then the truth within three error bars."""
    return estimate.std_error <= power * truth and abs(estimate.value - truth) <= 3 * estimate.std_error


def quadratic_estimate(oracle: Quadratic) -> tuple[LLCEstimate, float]:
    """λ̂ with a step so large that SGLD's own stationary law is far from the posterior, and what that law gives."""
    chosen = settings(epsilon=0.006, nbeta=100.0, gamma=50.0, num_draws=1000)
    estimate = estimators.llc(draw_oracle(oracle, chosen), 0)
    return estimate, oracle.sgld_llc(nbeta=100.0, gamma=50.0, epsilon=0.006)


POTENTIALS = ("w4", "x2y2", "cusp")


def potential_estimate(name: str, num_draws: int = 4000) -> tuple[LLCEstimate, float]:
    """λ̂ with a small step, and the truth of the same tethered density by quadrature."""
    oracle = ORACLES[name]
    chosen = settings(epsilon=1e-3, nbeta=100.0, gamma=10.0, num_draws=num_draws)
    return estimators.llc(draw_oracle(oracle, chosen), 0), oracle.llc(nbeta=100.0, gamma=10.0)


@pytest.mark.parametrize("oracle", QUADRATICS, ids=lambda oracle: oracle.name)
def test_quadratics_follow_the_stationary_law_of_sgld(oracle: Quadratic) -> None:
    estimate, truth = quadratic_estimate(oracle)
    assert accepts(estimate, truth, power=0.01), (estimate, truth)
    assert abs(truth / oracle.llc(100.0, 50.0) - 1) > 0.1  # the law is told from the posterior


@pytest.mark.parametrize("name", POTENTIALS)
def test_potentials_agree_with_quadrature(name: str) -> None:
    estimate, truth = potential_estimate(name)
    assert accepts(estimate, truth, power=0.04), (estimate, truth)


def drift(w: Tensor, anchor: Tensor, gradient: Tensor, nbeta: float, gamma: float) -> Tensor:
    return nbeta * gradient + gamma * (w - anchor)


def full_epsilon(s: SGLDSettings, w: Tensor, a: Tensor, g: Tensor, noise: Tensor, nbeta: float, gamma: float) -> Tensor:
    return w - s.epsilon * drift(w, a, g, nbeta, gamma) + s.epsilon**0.5 * noise


def no_tether(s: SGLDSettings, w: Tensor, a: Tensor, g: Tensor, noise: Tensor, nbeta: float, gamma: float) -> Tensor:
    return w - s.epsilon / 2 * drift(w, a, g, nbeta, 0.0 * gamma) + s.epsilon**0.5 * noise


def uphill(s: SGLDSettings, w: Tensor, a: Tensor, g: Tensor, noise: Tensor, nbeta: float, gamma: float) -> Tensor:
    return w + s.epsilon / 2 * drift(w, a, g, nbeta, gamma) + s.epsilon**0.5 * noise


def epsilon_noise(
    s: SGLDSettings, w: Tensor, a: Tensor, g: Tensor, noise: Tensor, nbeta: float, gamma: float
) -> Tensor:
    return w - s.epsilon / 2 * drift(w, a, g, nbeta, gamma) + s.epsilon * noise


@pytest.mark.parametrize("broken", [full_epsilon, no_tether, uphill, epsilon_noise])
@pytest.mark.parametrize("name", ["bowl", *POTENTIALS])
def test_broken_kernels_are_found(name: str, broken: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sgld, "step", broken)
    estimate, truth = quadratic_estimate(QUADRATICS[0]) if name == "bowl" else potential_estimate(name, num_draws=1500)
    assert not abs(estimate.value - truth) <= 3 * estimate.std_error


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


def two_layer_estimate(rank: int, epsilon: float) -> tuple[LLCEstimate, float, float]:
    """λ̂ on a linear network 1-2-3, the truth at this finite nβ, and λ."""
    problem = linear_network((1, 2, 3), rank, n=4, seed=0)
    # Inputs ±1: every sample has the same loss, so that a minibatch has no noise.
    problem.y[:] = np.sign(problem.x) * problem.y / problem.x
    problem.x[:] = np.sign(problem.x)
    chosen = settings(epsilon, nbeta=200.0, gamma=10.0)
    draws = draw(linear_objective(problem), torch.from_numpy(problem.w_star)[None], chosen)
    return estimators.llc(draws, 0), two_layer_truth(200.0, 10.0, problem), float(problem.lambda_)


@pytest.mark.parametrize(("rank", "epsilon"), [(0, 5e-4), (1, 1e-4)])  # the stiffer, the smaller
def test_two_layer_linear_network_agrees_with_quadrature(rank: int, epsilon: float) -> None:
    estimate, truth, asymptote = two_layer_estimate(rank, epsilon)
    assert truth < asymptote  # which it approaches as nβ grows
    assert accepts(estimate, truth, power=0.04), (estimate, truth, asymptote)


@pytest.mark.parametrize("broken", [full_epsilon, no_tether, uphill, epsilon_noise])
def test_broken_kernels_are_found_on_the_two_layer_network(broken: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sgld, "step", broken)
    estimate, truth, _ = two_layer_estimate(rank=0, epsilon=5e-4)
    assert not abs(estimate.value - truth) <= 3 * estimate.std_error


def test_a_chain_is_the_same_with_other_chains_and_checkpoints_beside_it() -> None:
    problem = linear_network((4, 3, 4), 2, n=100, seed=1, noise=0.1)
    anchors = torch.from_numpy(problem.w_star) + torch.tensor([[0.0], [0.1], [0.3]])
    chosen = settings(1e-4, 20.0, 10.0, 100).model_copy(update={"batch_size": 16, "num_chains": 3})
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
    chosen = settings(1e-5, 100.0, 10.0, 200).model_copy(update={"batch_size": 16, "num_chains": 4})
    draws = draw(linear_objective(problem), torch.from_numpy(problem.w_star)[None], chosen)
    paired, unpaired = (draws.losses - draws.baselines).std(), draws.losses.std()
    assert paired < unpaired / 4


def test_divergence_is_recorded_where_it_happens() -> None:
    chosen = settings(1.0, 1e3, 1.0, 50).model_copy(update={"num_burnin_steps": 0, "num_chains": 2})
    draws = draw_oracle(ORACLES["w4"], chosen)
    (first, second) = draws.diverged_at[0]
    assert first > 0
    assert np.isnan(draws.losses[0, 0, first:]).all() or np.isinf(draws.losses[0, 0, first])
    assert np.isfinite(draws.losses[0, 1, :second]).all()
