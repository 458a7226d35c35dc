"""Curvature against a dense twin: the Hessian as a matrix, from torch's own."""

import numpy as np
import pytest
import torch
from torch import Tensor

from llc.ensemble import HessianOperator
from llc.evaluate import evaluate
from llc.measures import hessian
from llc.models import MLP
from llc.objective import ModelObjective
from llc.randomness import Stream, generator
from llc.settings import HessianSettings, MeasureSettings
from tests.llc.problems import OracleObjective
from tests.oracles import Quadratic


@pytest.fixture(scope="module")
def objective() -> ModelObjective:
    """A small network on more samples than fit in one call of the Hessian's products."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((5000, 3)).astype(np.float32)
    return ModelObjective(MLP(widths=(3, 5, 4), activation="tanh"), {"x": x, "y": rng.integers(0, 4, 5000)})


@pytest.fixture(scope="module")
def w(objective: ModelObjective) -> Tensor:
    return torch.from_numpy(
        np.random.default_rng(1).standard_normal(objective.layout.num_parameters).astype(np.float32)
    )


def dense(objective: ModelObjective, w: Tensor, indices: Tensor) -> np.ndarray:
    """H (d, d) of the mean loss of these samples."""
    batch = objective.batch(indices)
    found = torch.autograd.functional.hessian(lambda w: objective.per_sample_loss(w, batch).mean(), w)
    assert isinstance(found, Tensor)
    return found.double().numpy()


@pytest.mark.parametrize("num_samples", [1000, 5000])  # in one call, and in several
def test_products_are_those_of_the_matrix(objective: ModelObjective, w: Tensor, num_samples: int) -> None:
    matrix = dense(objective, w, torch.arange(num_samples) * 5000 // num_samples)
    operator = HessianOperator(objective, w, num_samples)
    for seed in range(3):
        v = torch.randn(len(w), generator=torch.Generator().manual_seed(seed))
        for _ in range(2):  # the kept graph serves more than once
            np.testing.assert_allclose(operator(v).numpy(), matrix @ v.numpy(), rtol=1e-3, atol=1e-5)


def test_everything_agrees_with_the_dense_twin(objective: ModelObjective, w: Tensor) -> None:
    matrix = dense(objective, w, torch.arange(5000))
    values = np.linalg.eigvalsh(matrix)[::-1]
    settings = HessianSettings(num_probes=8, num_lanczos_steps=44, num_eigenvalues=6, num_samples=5000, near_zero=0.05)
    ((found,),) = [
        list(row.values())
        for row in evaluate(objective, w[None], MeasureSettings(llc=None, loss=None, hessian=settings))
    ]

    trace = found.quantities["hessian_trace"]
    signs = [generator(0, Stream.PROBE, probe, 0).integers(0, 2, len(w), dtype=np.int8) * 2.0 - 1 for probe in range(8)]
    np.testing.assert_allclose(trace.value, np.mean([z @ matrix @ z for z in signs]), rtol=1e-4)  # Hutchinson, densely
    assert trace.std_error < 0.3 * values.sum()
    assert abs(trace.value - values.sum()) < 3 * trace.std_error

    np.testing.assert_allclose(found.details["eigenvalues"], values[:6], rtol=1e-3)
    assert max(found.details["residuals"]) < 1e-3 * values[0]

    share = found.quantities["hessian_near_zero_share"]
    truth = float((np.abs(values) <= 0.05 * values[0]).mean())
    assert 0.1 < truth < 0.9
    assert share.std_error < 0.1
    assert abs(share.value - truth) < 3 * share.std_error
    probes, truncation = found.details["near_zero_probe_error"], found.details["near_zero_truncation_error"]
    assert share.std_error == pytest.approx((probes**2 + truncation**2) ** 0.5)


def test_near_zero_is_beside_the_largest_of_either_sign() -> None:
    """Four of six are below a hundredth of 10, and of −10, at a saddle."""
    for sign in (1.0, -1.0):
        saddle = OracleObjective(Quadratic("saddle", (sign * 10.0, 1.0, 0.05, 0.05, 0.001, 0.001)))
        chosen = MeasureSettings(llc=None, loss=None, hessian=HessianSettings(near_zero=0.01, num_lanczos_steps=6))
        (found,) = evaluate(saddle, torch.zeros(1, 6), chosen)
        assert found["hessian"].quantities["hessian_near_zero_share"].value == pytest.approx(4 / 6, abs=1e-6)


def test_where_the_loss_overflows_there_is_a_verdict(objective: ModelObjective, w: Tensor) -> None:
    arrays = {name: array.numpy() for name, array in objective.batch(torch.arange(5000)).items()}
    objective = ModelObjective(MLP(widths=(3, 5, 4), activation="relu"), arrays)
    chosen = MeasureSettings(llc=None, loss=None, hessian=HessianSettings(num_samples=100))
    healthy, lost = evaluate(objective, torch.stack([w, 1e30 * w]), chosen)
    assert healthy["hessian"].verdict.name == "ok"
    assert lost["hessian"].verdict.name == "diverged"
    assert np.isnan(lost["hessian"].quantities["hessian_trace"].value)


def test_residuals_bound_the_error_of_unconverged_eigenvalues(objective: ModelObjective, w: Tensor) -> None:
    values = np.linalg.eigvalsh(dense(objective, w, torch.arange(5000)))
    settings = HessianSettings(num_probes=2, num_lanczos_steps=3, num_samples=5000)
    ((found,),) = [
        list(row.values())
        for row in evaluate(objective, w[None], MeasureSettings(llc=None, loss=None, hessian=settings))
    ]
    pairs = zip(found.details["eigenvalues"], found.details["residuals"], strict=True)
    assert max(found.details["residuals"]) > 1e-3  # not converged
    for value, residual in pairs:
        assert np.abs(values - value).min() <= residual * (1 + 1e-3)


def test_repeated_eigenvalues_are_found_as_often_as_they_are() -> None:
    h = np.array([5.0, 5.0, 5.0, 2.0, 2.0, *np.linspace(0.0, 1.0, 45)], dtype=np.float32)
    rng = np.random.default_rng(0)
    runs = [
        hessian.lanczos(lambda v: v * torch.from_numpy(h), torch.from_numpy(rng.choice([-1.0, 1.0], 50)).float(), 20)
        for _ in range(4)
    ]
    values, residuals = hessian.largest_eigenvalues(runs, 5)
    np.testing.assert_allclose(values, h[:5], rtol=1e-4)
    assert residuals.max() < 1e-2


def test_lanczos_ends_in_an_invariant_space() -> None:
    h = torch.tensor([3.0, 3.0, 1.0, 0.0])
    run = hessian.lanczos(lambda v: v * h, torch.ones(4), 4)
    np.testing.assert_allclose(np.linalg.eigvalsh(run.tridiagonal), [0.0, 1.0, 3.0], atol=1e-5)
    assert run.mass_within(0.5) == pytest.approx(0.25)
    assert run.mass_within(0.5, num_steps=1) == 0.0  # one node, at the mean


def test_probes_are_the_same_at_every_checkpoint(objective: ModelObjective, w: Tensor) -> None:
    settings = MeasureSettings(llc=None, hessian=HessianSettings(num_samples=100, num_lanczos_steps=5))
    first, second, both = (
        evaluate(objective, rows, settings) for rows in (w[None], 2 * w[None], torch.stack([w, 2 * w]))
    )
    assert [row["hessian"] for row in both] == [first[0]["hessian"], second[0]["hessian"]]
