"""Numbers as a researcher writes them: no more digits than the error allows."""

import math

MISSING = "–"


def with_error(value: float | None, std_error: float | None) -> str:
    """`36.2 ± 1.4`: the error with two digits, the value to the same place; very large or small: `(1.23 ± 0.10)e-08`.

    Without an error, four digits of the value; without a value, a dash.
    """
    if value is None or not math.isfinite(value):
        return MISSING
    if std_error is None or not math.isfinite(std_error) or std_error < 0:
        return f"{value:.4g}"
    if std_error == 0:
        return f"{value:.6g} ± 0"
    largest = max(abs(value), std_error)
    exponent = math.floor(math.log10(largest))
    if -4 <= exponent < 7:
        return _fixed(value, std_error)
    return f"({_fixed(value / 10**exponent, std_error / 10**exponent)})e{exponent:+03d}"


def _fixed(value: float, std_error: float) -> str:
    """Both rounded to the place of the error's second digit."""
    place = math.floor(math.log10(std_error)) - 1
    if round(std_error, -place) >= 10 ** (place + 2):  # 0.0996 becomes 0.10: its second digit is one place up
        place += 1
    decimals = max(-place, 0)
    return f"{round(value, -place):.{decimals}f} ± {round(std_error, -place):.{decimals}f}"


def duration(seconds: float | None) -> str:
    """`3.2 s`, `4 min 05 s`, `2 h 03 min`."""
    if seconds is None or not math.isfinite(seconds):
        return MISSING
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"
