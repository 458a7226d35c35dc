"""The schedule of checkpoints."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lambdahat import log_linear_steps


@given(total=st.integers(0, 10**7), num_log=st.integers(0, 150), num_linear=st.integers(0, 150))
def test_has_the_ends_in_order_and_nothing_twice(total: int, num_log: int, num_linear: int) -> None:
    steps = log_linear_steps(total, num_log, num_linear)
    assert steps[0] == 0
    assert steps[-1] == total
    assert all(a < b for a, b in pairwise(steps))
    assert len(steps) <= num_log + num_linear + 2


@given(total=st.integers(1, 10**7), num_log=st.integers(1, 150))
def test_log_steps_are_as_many_as_asked_for(total: int, num_log: int) -> None:
    steps = log_linear_steps(total, num_log)
    wanted = min(num_log, total)
    # 0 comes on top, and the end where one log step alone would be at 1.
    assert len(steps) == wanted + 1 + (num_log == 1 and total > 1)


def test_spacing_is_even_in_the_logarithm_once_whole_numbers_allow() -> None:
    steps = [step for step in log_linear_steps(1_000_000, 60) if step >= 1_000]
    ratios = [b / a for a, b in pairwise(steps)]
    assert max(ratios) / min(ratios) < 1.01


def test_linear_steps_close_the_gaps_of_the_end() -> None:
    steps = log_linear_steps(50_000, num_log=100, num_linear=50)
    assert max(b - a for a, b in pairwise(steps)) == 1_000
    assert {1_000, 17_000, 49_000} <= set(steps)
    assert steps[:6] == [0, 1, 2, 3, 4, 5]


def test_refuses_negative_numbers() -> None:
    with pytest.raises(ValueError, match="num_log=-1"):
        log_linear_steps(10, -1)
