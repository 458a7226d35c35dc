"""Which phase a posterior prefers: against known roots, and as n grows."""

import math

import numpy as np
import pytest
from scipy.special import lambertw

from llc.free_energy import Phase, compare, critical_n


def phase(loss: float, llc: float, loss_std_error: float = 0.0, llc_std_error: float = 0.0) -> Phase:
    return Phase(loss, loss_std_error, llc, llc_std_error)


@pytest.mark.parametrize("ratio", [2.7183, 2.8, 3.0, 10.0, 1e3, 1e9])
def test_the_critical_n_is_lambert_s(ratio: float):
    (found,) = critical_n(np.array([0.02]), np.array([0.02 * ratio]))
    assert found == pytest.approx((-ratio * lambertw(-1 / ratio, k=-1)).real, rel=1e-9)
    assert found * 0.02 == pytest.approx(0.02 * ratio * math.log(found))


@pytest.mark.parametrize(("loss", "llc"), [(1.0, 2.7), (-1.0, -2.7), (1.0, -3.0), (-1.0, 3.0), (0.0, 3.0), (1.0, 0.0)])
def test_there_may_be_none(loss: float, llc: float):
    assert np.isnan(critical_n(np.array([loss]), np.array([llc]))).all()


def test_a_lower_loss_wins_beyond_the_critical_n_and_a_lower_llc_before():
    """Numbers like those from 5 to 6 corners in the toy model of superposition [arXiv 2310.06301]."""
    five, six = phase(0.069, 7.0), phase(0.048, 8.5)
    critical = compare(five, six, 100).critical_n
    assert critical is not None
    assert critical == pytest.approx(445, rel=0.05)
    before, after = compare(five, six, int(0.9 * critical)), compare(five, six, int(1.1 * critical))
    assert (before.preferred, before.driven_by, before.predicted_type) == ("first", "complexity", None)
    assert (after.preferred, after.driven_by, after.predicted_type) == ("second", "loss", "A")
    assert after.relative_llc == pytest.approx(8.5 / 7)


def test_a_lower_llc_at_a_higher_loss_wins_before_the_critical_n():
    """The same two phases the other way round."""
    five, six = phase(0.069, 7.0, 0.001, 0.1), phase(0.048, 8.5, 0.001, 0.1)
    there, back = compare(five, six, 100), compare(six, five, 100)
    assert back.critical_n == there.critical_n
    assert (there.preferred_beyond, back.preferred_beyond) == ("second", "first")
    assert (there.critical_n_low, there.critical_n_high) == pytest.approx(
        (back.critical_n_low, back.critical_n_high), rel=0.05
    )
    assert back.probability_critical == pytest.approx(1)
    before, after = compare(six, five, 350), compare(six, five, 600)
    assert (before.preferred, before.driven_by, before.predicted_type) == ("second", "complexity", "B")
    assert (after.preferred, after.driven_by, after.predicted_type) == ("first", "loss", None)


def test_where_the_lower_loss_is_not_sure_the_critical_n_has_no_bound():
    found = compare(phase(0.07, 7, 0.02, 0.1), phase(0.05, 8.5, 0.02, 0.1), 1000)
    assert found.critical_n is not None
    assert found.probability_critical == pytest.approx(0.76, abs=0.03)  # that ΔL > 0: Φ(1/√2)
    assert found.critical_n_low is not None
    assert found.critical_n_low < found.critical_n
    assert found.critical_n_high is None
    sure_of_none = compare(phase(0.07, 7, 0.001, 1.0), phase(0.05, 7.3, 0.001, 1.0), 1000)
    assert (sure_of_none.critical_n_low, sure_of_none.preferred_beyond) == (1, "second")
    assert sure_of_none.critical_n_high is not None


def test_where_both_fall_the_second_is_preferred_at_every_n():
    for n in (10, 10**4, 10**8):
        found = compare(phase(1.0, 9.0), phase(0.99, 7.0), n)
        assert (found.preferred, found.driven_by, found.predicted_type) == ("second", "both", "B")
        assert found.critical_n is None
        assert found.probability_second == 1.0


def test_a_fall_of_the_llc_alone_is_driven_by_it():
    found = compare(phase(1.0, 9.0), phase(1.0, 7.0), 1000)
    assert (found.driven_by, found.predicted_type) == ("complexity", "B")
    assert found.delta_free_energy == pytest.approx(-2 * math.log(1000))


def test_errors_add_up_and_the_interval_holds_the_truth():
    """Phases measured again and again: nine intervals in ten hold the true n*, and they are not wide."""
    generator = np.random.default_rng(1)
    errors = {"loss_std_error": 2e-4, "llc_std_error": 0.05}
    (true,) = critical_n(np.array([0.02]), np.array([1.5]))
    held = 0
    for _ in range(200):
        first = phase(0.07 + 2e-4 * generator.standard_normal(), 7 + 0.05 * generator.standard_normal(), **errors)
        second = phase(0.05 + 2e-4 * generator.standard_normal(), 8.5 + 0.05 * generator.standard_normal(), **errors)
        found = compare(first, second, 1000)
        assert found.critical_n_low is not None
        assert found.critical_n_high is not None
        assert found.critical_n_high / found.critical_n_low < 1.4
        held += found.critical_n_low <= true <= found.critical_n_high
    assert 165 <= held <= 194
    found = compare(phase(0.07, 7, **errors), phase(0.05, 8.5, **errors), 1000)
    assert found.delta_free_energy_std_error == pytest.approx(
        math.hypot(1000 * 2e-4 * math.sqrt(2), math.log(1000) * 0.05 * math.sqrt(2))
    )


def test_an_unsure_difference_has_an_unsure_preference():
    found = compare(phase(1.0, 7, 0.01, 1.0), phase(1.0, 7, 0.01, 1.0), 1000)
    assert 0.4 < found.probability_second < 0.6
    assert found.critical_n is None
