"""The references are what they claim to be."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from bench import truth as truths
from bench.hmc import HMC
from bench.networks import layers_of, least_squares
from bench.objectives import whole
from bench.problems import names, problem
from llc.ensemble import mean_gradients
from llc.estimators import mean


@pytest.fixture
def references(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    path = tmp_path / "references.json"
    monkeypatch.setattr(truths, "REFERENCES", path)
    return path


def test_hmc_finds_the_answer_of_a_quadratic() -> None:
    """At (nβ, γ) where the tether counts; half of the chains start hot."""
    one = problem("quadratic/1e2")
    assert one.exact is not None
    chains = HMC(truths.posterior(one, nbeta=100.0, gamma=10.0), num_chains=32, num_warmup=30)
    found = mean(chains.draw(60).numpy())
    exact = one.exact(100.0, 10.0)
    assert found.std_error < 0.02 * exact
    assert abs(found.value - exact) < 4 * found.std_error


def test_a_formula_is_the_value_and_hmc_its_check(references: Path) -> None:
    found = truths.truth(problem("quadratic/1e0"), nbeta=30.0, gamma=10.0)
    assert found.source == "exact"
    assert found.value == pytest.approx(10 * 30 / (30 + 10))
    assert found.z < 4
    assert found.sharpness == pytest.approx(40, rel=1e-3)
    assert references.exists()


def test_a_reference_is_kept_until_the_problem_changes(references: Path) -> None:
    one = problem("quadratic/1e0")
    first = truths.truth(one, nbeta=30.0, gamma=10.0)
    assert truths.truth(one, nbeta=30.0, gamma=10.0) == first
    references.write_text(references.read_text().replace(repr(first.fingerprint[0]), "123.0"))
    again = truths.truth(one, nbeta=30.0, gamma=10.0)
    assert again.fingerprint == first.fingerprint
    assert again.seconds != first.seconds


@pytest.mark.parametrize("name", ["deep_linear/5-3-5/r2/moved", "reduced_rank/1/minimum"])
def test_second_moments_have_the_loss_of_the_data(name: str) -> None:
    """As a difference from w*, and its gradient."""
    one = problem(name)
    slow = whole(one.objective)
    start = one.w_star.double()
    there = start + 0.1 * torch.randn(start.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    differences = [(loss(there) - loss(start)).item() for loss in (one.whole.loss, slow.loss)]
    assert differences[0] == pytest.approx(differences[1], rel=1e-6)
    gradients = [torch.func.grad(loss)(there) for loss in (one.whole.loss, slow.loss)]
    torch.testing.assert_close(*gradients, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    "name",
    [n for n in names("deep_linear/*,reduced_rank/*,superposition/*,relu/1") if "teacher" not in n and "100" not in n],
)
def test_anchors_are_minima(name: str) -> None:
    """As far as single precision lets them be; a step along the gradient saves nothing that λ̂ could see."""
    one = problem(name)
    gradient = mean_gradients(one.objective, one.w_star[None])[0]
    assert one.nbeta * gradient.square().sum() < 1e-3
    assert math.isfinite(one.whole.loss(one.w_star.double()).item())


def test_moving_a_network_leaves_its_function() -> None:
    block, moved = (problem(f"deep_linear/5-5-5-5-5/r2/{where}") for where in ("block", "moved"))
    products = [np.linalg.multi_dot(layers_of(one.w_star.double().numpy(), (5,) * 5)[::-1]) for one in (block, moved)]
    np.testing.assert_allclose(products[0], products[1], atol=1e-5)
    assert (block.w_star - moved.w_star).norm() > 1


def test_reduced_rank_regression_is_below_nearby_networks() -> None:
    """Also below its start from the full-rank solution's neighbours: the best of rank 2."""
    generator = np.random.default_rng(0)
    x = generator.standard_normal((200, 4))
    y = x @ generator.standard_normal((4, 3)) + generator.standard_normal((200, 3))

    def loss(w: np.ndarray) -> float:
        first, second = layers_of(w, (4, 2, 3))
        return float(np.square(y - x @ first.T @ second.T).sum())

    best = least_squares(x, y, 2)
    others = [loss(best + 0.01 * generator.standard_normal(best.shape)) for _ in range(50)]
    assert loss(best) < min(others)
    full = np.linalg.lstsq(x, y, rcond=None)[0]
    left, sizes, right = np.linalg.svd(full, full_matrices=False)
    unweighted = (left[:, :2] * sizes[:2]) @ right[:2]
    assert loss(best) < float(np.square(y - x @ unweighted).sum())
