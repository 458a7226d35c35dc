"""The oracles themselves: minima where they say, and tensors and arrays alike."""

import numpy as np
import pytest
import torch

from llc.losses import LOSSES
from llc.models.deep_linear import DeepLinear
from tests.oracles import ORACLES, layers_of, linear_network


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
