"""How numbers are written."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lambdahat.numbers import duration, with_error


@pytest.mark.parametrize(
    ("value", "std_error", "written"),
    [
        (36.2049, 1.43, "36.2 ± 1.4"),
        (36.2049, 0.0996, "36.20 ± 0.10"),
        (-0.00349, 0.000102, "-0.00349 ± 0.00010"),
        (253.4, 12.6, "253 ± 13"),
        (12345.0, 678.0, "12340 ± 680"),
        (0.5, 99.6, "0 ± 100"),
        (1.234e-8, 1.04e-9, "(1.23 ± 0.10)e-08"),
        (2.5e9, 1.0e8, "(2.50 ± 0.10)e+09"),
        (0.0, 0.012, "0.000 ± 0.012"),
        (3.25, 0.0, "3.25 ± 0"),
        (36.2049, None, "36.2"),
        (36.2049, math.nan, "36.2"),
        (None, 1.0, "–"),
        (math.inf, 1.0, "–"),
    ],
)
def test_value_has_the_digits_of_its_error(value: float | None, std_error: float | None, written: str) -> None:
    assert with_error(value, std_error) == written


@given(value=st.floats(-1e12, 1e12), exponent=st.floats(-12, 12))
def test_rounding_hides_less_than_a_tenth_of_the_error(value: float, exponent: float) -> None:
    std_error = 10**exponent
    text = with_error(value, std_error)
    scale = 1.0
    if text.startswith("("):
        text, power = text.removeprefix("(").split(")e")
        scale = 10.0 ** int(power)
    shown, shown_error = (float(part) * scale for part in text.split(" ± "))
    assert abs(shown - value) <= 0.06 * std_error + 1e-9 * abs(value)
    assert shown_error == pytest.approx(std_error, rel=0.06)


@pytest.mark.parametrize(
    ("seconds", "written"),
    [(3.21, "3.2 s"), (42.4, "42 s"), (245, "4 min 05 s"), (7380, "2 h 03 min"), (None, "–")],
)
def test_durations(seconds: float | None, written: str) -> None:
    assert duration(seconds) == written
