"""Every known answer against a second way to it, and against the values published or worked out for it."""

import itertools
import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from scipy.integrate import quad

from llc.errors import InputError
from llc.exact import (
    POTENTIALS,
    Floats,
    Potential,
    deep_linear,
    even_power,
    monomial,
    potential_llc,
    predicted_bias_factor,
    quadratic_llc,
    quadratic_sgld_llc,
    tms_kgon_lambda,
)


def test_a_quadratic_counts_its_curved_directions():
    assert quadratic_llc([1.0, 3.0, 0.0, 20.0], nbeta=1e9, gamma=0.0) == pytest.approx(3 / 2)
    assert quadratic_llc([1.0], nbeta=100.0, gamma=100.0) == pytest.approx(1 / 4)
    assert quadratic_llc([0.5, 2.0], nbeta=10.0, gamma=5.0) == pytest.approx((5 / 10 + 20 / 25) / 2)


def test_a_quadratic_agrees_with_quadrature():
    def loss(w: Floats) -> Floats:
        return 25 * w[..., 0] ** 2 + 5e-4 * w[..., 1] ** 2

    assert potential_llc(loss, 1e4, 3.0, dimension=2) == pytest.approx(quadratic_llc([50, 1e-3], 1e4, 3.0), rel=1e-6)


def stationary_variance(a: float, epsilon: float, noise: float) -> float:
    """The variance at which w ← (1 − εa/2) w + N(0, noise) settles, by stepping."""
    variance = 0.0
    for _ in range(20_000):
        variance = (1 - epsilon * a / 2) ** 2 * variance + noise
    return variance


@pytest.mark.parametrize("epsilon", [1e-4, 1e-3, 3e-3])
def test_sgld_on_a_quadratic_settles_where_its_recursion_does(epsilon: float):
    h, nbeta, gamma = np.array([1.0, 0.2, 0.0]), 1e3, 10.0
    stepped = sum(nbeta * x / 2 * stationary_variance(nbeta * x + gamma, epsilon, epsilon) for x in h)
    assert quadratic_sgld_llc(h, nbeta, gamma, epsilon) == pytest.approx(stepped, rel=1e-9)
    assert stepped > quadratic_llc(h, nbeta, gamma)


@pytest.mark.parametrize(("batch_size", "gradient_variance"), [(4, 2.0), (64, 2.0), (1, 0.0)])
def test_bias_from_step_and_minibatches_is_the_recursion_s(batch_size: int, gradient_variance: float):
    h, nbeta, gamma, epsilon = 0.7, 1e3, 5.0, 2e-3
    noise = epsilon + (epsilon * nbeta / 2) ** 2 * gradient_variance / batch_size
    stepped = nbeta * h / 2 * stationary_variance(nbeta * h + gamma, epsilon, noise)
    factor = predicted_bias_factor(h, nbeta, gamma, epsilon, gradient_variance, batch_size)
    assert factor * quadratic_llc(h, nbeta, gamma) == pytest.approx(stepped, rel=1e-9)


def test_an_unstable_step_is_refused():
    assert quadratic_sgld_llc([1.0], nbeta=90.0, gamma=10.0, epsilon=0.0399) > 100
    with pytest.raises(InputError, match=r"diverges.*below 0\.04") as refused:
        quadratic_sgld_llc([1.0, 0.1], nbeta=90.0, gamma=10.0, epsilon=0.04)
    assert refused.value.code == "unstable_step"
    with pytest.raises(InputError, match="diverges"):
        quadratic_sgld_llc([0.0], nbeta=90.0, gamma=10.0, epsilon=0.5)
    with pytest.raises(InputError, match="diverges"):
        predicted_bias_factor(1.0, 90.0, 10.0, 0.04, 0.0, 1)


@pytest.mark.parametrize("h", [[1.0, -0.1], [math.nan]])
def test_a_maximum_has_no_known_answer(h: list[float]):
    with pytest.raises(InputError, match="not a number ≥ 0"):
        quadratic_llc(h, 10.0, 1.0)


@pytest.mark.parametrize(
    ("name", "nbeta", "llc"),
    [
        ("x2y2", 1e2, 0.3542),
        ("x2y2", 1e4, 0.4123),
        ("x2y2", 1e6, 0.4375),
        ("x4y4", 1e2, 0.1471),
        ("x4y4", 1e4, 0.1785),
        ("x4y4", 1e6, 0.1960),
        ("cusp", 1e2, 0.3570),
        ("cusp", 1e4, 0.3848),
        ("cusp", 1e6, 0.3974),
        ("w4", 1e2, 0.2417),
        ("w4", 1e4, 0.2492),
        ("w4", 1e6, 0.2499),
    ],
)
def test_potentials_at_a_finite_temperature(name: str, nbeta: float, llc: float):
    assert round(POTENTIALS[name].llc(nbeta, gamma=1.0), 4) == llc


def test_half_x2y2_at_the_canonical_temperature():
    n = 10_000
    llc = potential_llc(lambda w: w[..., 0] ** 2 * w[..., 1] ** 2 / 2, n / math.log(n), 1.0, dimension=2)
    assert round(llc, 3) == 0.382


@pytest.mark.parametrize("gamma", [1e-2, 1e2])
def test_quadrature_adapts_to_the_scale_of_the_tether(gamma: float):
    # In units of the tether's width, 1/√γ, the strength of a potential of degree 4 is nβ/γ².
    assert POTENTIALS["x2y2"].llc(1e3 * gamma**2, gamma) == pytest.approx(POTENTIALS["x2y2"].llc(1e3, 1.0), rel=1e-9)


def test_x2y2_agrees_with_its_marginal():
    # The integral over y of exp(−nβ x²y² − y²/2) is √(2π/(1 + 2nβx²)), and the mean of nβ x²y² is nβ x²/(1 + 2nβx²).
    nbeta = 300.0

    def density(x: float) -> float:
        return math.exp(-(x**2) / 2) / math.sqrt(1 + 2 * nbeta * x**2)

    mass = quad(density, 0, 10, points=[0.05, 0.5], epsabs=1e-13)[0]
    loss = quad(lambda x: density(x) * nbeta * x**2 / (1 + 2 * nbeta * x**2), 0, 10, points=[0.05, 0.5], epsabs=1e-13)
    assert POTENTIALS["x2y2"].llc(nbeta, 1.0) == pytest.approx(loss[0] / mass, rel=1e-7)


def test_quadrature_finds_a_valley_away_from_the_anchor():
    # Two minima of one curvature, at 0 and at 2, both far thinner than a first cell. The second costs e^-2 by the
    # tether and e^-3 by a step of the loss.
    nbeta, step = 1e6, 3.0

    def loss(w: Floats) -> Floats:
        return 1e9 * w[..., 0] ** 2 * (w[..., 0] - 2) ** 2 + (w[..., 0] > 1) * step / nbeta

    second = math.exp(-2 - step)
    assert potential_llc(loss, nbeta, 1.0) == pytest.approx(1 / 2 + step * second / (1 + second), rel=1e-4)


@pytest.mark.parametrize("potential", [*POTENTIALS.values(), even_power(3), monomial(1, 3)], ids=lambda p: p.name)
def test_potentials_tend_to_their_learning_coefficient(potential: Potential):
    # d log Z / d log nβ = −λ + (m − 1) / log nβ + …: from one nβ to the next, λ̂ closes in on λ from below.
    lambda_ = float(potential.lambda_)
    gaps = [lambda_ - potential.llc(nbeta, 1.0) for nbeta in (1e3, 1e6)]
    assert gaps[0] > gaps[1] > 0
    slow = (potential.multiplicity - 1) / math.log(1e6)
    assert gaps[1] - slow < 0.08 * lambda_
    if potential.multiplicity == 2:
        assert gaps[1] > slow / 2


def test_the_learning_coefficients_of_the_potentials():
    assert {name: (p.lambda_, p.multiplicity) for name, p in POTENTIALS.items()} == {
        "w4": (Fraction(1, 4), 1),
        "x2y2": (Fraction(1, 2), 2),
        "x4y4": (Fraction(1, 4), 2),
        "x2+y4": (Fraction(3, 4), 1),
        "cusp": (Fraction(5, 12), 1),
        "disc": (Fraction(1, 2), 1),
    }
    assert (monomial(1, 3).lambda_, monomial(1, 3).multiplicity) == (Fraction(1, 6), 1)
    assert even_power(3).lambda_ == Fraction(1, 6)


@pytest.mark.parametrize(
    ("loss", "gamma", "dimension", "reason"),
    [
        (lambda w: w[..., 0] ** 2 + 1, 1.0, 1, "not zero"),
        (lambda w: w[..., 0] ** 3, 1.0, 1, "has to be a number"),
        (lambda w: w[..., 0] ** 2, 0.0, 1, "γ > 0"),
        (lambda w: w[..., 0] ** 2, 1.0, 3, "1 or 2 dimensions"),
    ],
)
def test_quadrature_refuses_what_it_cannot_answer(
    loss: Callable[[Floats], Floats], gamma: float, dimension: int, reason: str
):
    with pytest.raises(InputError, match=reason):
        potential_llc(loss, 100.0, gamma, dimension)


@pytest.mark.parametrize(
    ("widths", "rank", "lambda_", "multiplicity"),
    [
        ([2, 2, 2], 0, Fraction(3, 2), 1),
        ([2, 2, 2], 1, Fraction(2), 2),
        ([5, 3, 5], 2, Fraction(19, 2), 2),
        ([10, 10, 10], 3, Fraction(44), 2),
        ([3, 3, 3, 3], 1, Fraction(4), 3),
        ([5] * 5, 2, Fraction(11), 4),
        ([10] * 6, 4, Fraction(43), 5),
        ([784, 256, 64, 10], 5, Fraction(2120), 1),
        ([10, 8, 10], 3, Fraction(40), 2),
        ([6, 6, 6, 6], 2, Fraction(31, 2), 3),
    ],
)
def test_deep_linear_networks(widths: list[int], rank: int, lambda_: Fraction, multiplicity: int):
    assert deep_linear(widths, rank) == (lambda_, multiplicity)


def reduced_rank(inputs: int, hidden: int, outputs: int, rank: int) -> tuple[Fraction, int]:
    """(λ, m) of two layers, by the four cases of Aoyagi & Watanabe 2005."""
    M, H, N, r = inputs, hidden, outputs, rank
    if N + r > M + H:
        return Fraction(H * M - H * r + N * r, 2), 1
    if M + r > N + H:
        return Fraction(H * N - H * r + M * r, 2), 1
    if H + r > M + N:
        return Fraction(M * N, 2), 1
    odd = (M + N + H + r) % 2
    return Fraction(-((H + r) ** 2) - M**2 - N**2 + 2 * (H + r) * (M + N) + 2 * M * N + odd, 8), 1 + odd


def test_two_layers_agree_with_the_reduced_rank_formula():
    for M, H, N in itertools.product(range(1, 8), repeat=3):
        for rank in range(min(M, H, N) + 1):
            assert deep_linear([M, H, N], rank) == reduced_rank(M, H, N, rank), (M, H, N, rank)


def test_deep_linear_networks_in_special_cases():
    assert deep_linear([7, 3], 2) == (Fraction(21, 2), 1)  # one layer is a regular model: d/2
    assert deep_linear([4, 4, 4, 4], 4) == (Fraction(8), 1)  # full rank: half the dimension of the matrices
    assert deep_linear([5, 3, 5], 3) == (Fraction(21, 2), 1)  # ... of rank 3, 3(5 + 5 − 3)
    assert deep_linear([1, 1, 1, 1, 1], 0) == (Fraction(1, 2), 4)  # (w₁w₂w₃w₄)²
    for widths in itertools.product(range(1, 5), repeat=4):
        for rank in range(min(widths) + 1):
            lambda_, multiplicity = deep_linear(widths, rank)
            assert (lambda_, multiplicity) == deep_linear(widths[::-1], rank)
            assert Fraction(rank * (widths[0] + widths[-1] - rank), 2) <= lambda_ <= Fraction(widths[0] * widths[-1], 2)


@pytest.mark.parametrize(("widths", "rank"), [([3], 1), ([3, 2, 3], 3), ([3, 3], -1)])
def test_deep_linear_refuses_impossible_ranks(widths: list[int], rank: int):
    with pytest.raises(InputError, match="no deep linear network"):
        deep_linear(widths, rank)


def test_toy_model_of_superposition():
    assert [float(tms_kgon_lambda(k, 9)) for k in (5, 6, 7, 8)] == [7, 8.5, 10, 11.5]
    assert tms_kgon_lambda(5, 6) == 7
    assert tms_kgon_lambda(6, 6) == Fraction(17, 2)
    assert tms_kgon_lambda(10, 10) == Fraction(29, 2)
    for k, c in ((4, 6), (9, 10), (7, 6), (4, 4)):
        with pytest.raises(InputError, match="no λ is known"):
            tms_kgon_lambda(k, c)
