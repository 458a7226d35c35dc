"""The oracles themselves: minima where they say, and tensors and arrays alike."""

import numpy as np
import pytest
import torch

from llc.losses import LOSSES
from llc.models import MLP, DeepLinear, ToyModelOfSuperposition
from llc.objective import ModelObjective
from tests.oracles import ORACLES, layers_of, linear_network, rescaled_relu, superposition


@pytest.mark.parametrize("name", ORACLES)
def test_a_loss_takes_arrays_and_tensors(name: str):
    oracle = ORACLES[name]
    w = np.random.default_rng(0).standard_normal((3, 5, oracle.dimension))
    loss = oracle.loss(w)
    assert loss.shape == (3, 5)
    assert loss.min() > 0
    assert oracle.loss(np.zeros(oracle.dimension)) == 0
    np.testing.assert_allclose(oracle.loss(torch.from_numpy(w)).numpy(), loss, rtol=1e-12)
    assert 0 < oracle.llc(100.0, 1.0) < oracle.dimension / 2


def test_a_linear_network_s_teacher_is_a_minimum_of_its_model():
    problem = linear_network((4, 3, 5), rank=2, n=50, seed=1)
    model = DeepLinear(widths=problem.widths)
    layout = model.layout()
    assert problem.w_star.shape == (layout.num_parameters,)
    w = torch.from_numpy(problem.w_star).requires_grad_()
    outputs = model.forward(layout.unflatten(w), torch.from_numpy(problem.x))
    loss = LOSSES[model.loss](outputs, torch.from_numpy(problem.y)).mean()
    loss.backward()
    assert loss.item() == 0
    assert w.grad is not None
    assert w.grad.abs().max() == 0
    matrices = layers_of(problem)
    assert [np.linalg.matrix_rank(matrix) for matrix in matrices] == [2, 2]
    assert [matrix.shape for matrix in matrices] == [(3, 4), (5, 3)]
    assert float(problem.lambda_) == 8


def test_a_linear_network_s_noise_has_its_size():
    quiet, noisy = (linear_network((4, 3, 5), rank=2, n=4000, seed=1, noise=noise) for noise in (0.0, 0.5))
    np.testing.assert_array_equal(quiet.x, noisy.x)
    assert np.std(noisy.y - quiet.y) == pytest.approx(0.5, rel=0.03)


@pytest.mark.parametrize(("k", "c"), [(5, 5), (5, 6), (6, 6), (7, 7), (8, 8)])
def test_a_k_gon_is_a_minimum_with_as_many_flat_directions_as_its_lambda_says(k: int, c: int):
    problem = superposition(k, c, samples_per_feature=10_000)
    model = ToyModelOfSuperposition(num_features=c)
    x = torch.from_numpy(problem.x).double()

    def gradient(w: torch.Tensor) -> torch.Tensor:
        w = w.clone().requires_grad_()
        loss = LOSSES[model.loss](model.forward(model.layout().unflatten(w), x), x).mean()
        return torch.autograd.grad(loss, w)[0]

    w_star = torch.from_numpy(problem.w_star).double()
    assert gradient(w_star).norm() < 1e-7
    # Differences see the curvature that lies in the kinks of the ReLU; a second derivative does not.
    step = 2e-3
    shifts = step * torch.eye(len(w_star), dtype=torch.float64)
    hessian = torch.stack([gradient(w_star + shift) - gradient(w_star - shift) for shift in shifts]) / (2 * step)
    curvatures = torch.linalg.eigvalsh((hessian + hessian.T) / 2)
    assert curvatures.min() > -1e-5
    assert int((curvatures > 1e-3).sum()) == int((curvatures > 1e-5).sum()) == 2 * problem.lambda_


@pytest.mark.parametrize(("k", "length", "bias"), [(5, 1.17046, -0.28230), (6, 1.32053, -0.61814)])
def test_a_k_gon_is_the_published_one(k: int, length: float, bias: float):
    problem = superposition(k, 6, samples_per_feature=10_000)
    W, b = problem.w_star[:12].reshape(2, 6), problem.w_star[12:]
    np.testing.assert_allclose(np.linalg.norm(W, axis=0), [length] * k + [0] * (6 - k), atol=3e-5)
    np.testing.assert_allclose(b, [bias] * k + [-0.5] * (6 - k), atol=3e-5)
    assert problem.x.shape == (60_000, 6)
    assert (np.count_nonzero(problem.x, axis=1) == 1).all()
    np.testing.assert_allclose(problem.x.mean(0), np.full(6, 1 / 12), rtol=1e-4)


def test_rescaled_copies_are_one_function():
    problem = rescaled_relu((4, 6, 5, 3), factors=(1.0, 1e-3, 1e3), n=50, seed=0, layer=1)
    objective = ModelObjective(MLP(widths=problem.widths, loss="gaussian_nll"), {"x": problem.x, "y": problem.y})
    w = torch.from_numpy(problem.w_star)
    assert w.shape == (3, objective.layout.num_parameters)
    assert (w[1] - w[0]).norm() > 0.5 * w[0].norm()
    everything = objective.batch(torch.arange(50))
    assert everything["y"].square().mean() > 0.1
    for row in w:
        assert objective.per_sample_loss(row, everything).max() < 1e-9
    noisy = rescaled_relu((4, 6, 5, 3), factors=(1.0,), n=4000, seed=0, noise=0.5)
    quiet = rescaled_relu((4, 6, 5, 3), factors=(1.0,), n=4000, seed=0)
    assert np.std(noisy.y - quiet.y) == pytest.approx(0.5, rel=0.03)
