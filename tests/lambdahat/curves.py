"""A curve as a grokking run gives it, with one of everything that can go wrong."""

import math
from typing import Any

from lambdahat import log_linear_steps
from lambdahat.objects import Curve, Stage

STEPS = log_linear_steps(1000, 40)
NOT_CONVERGED = STEPS[22]
DIVERGED = STEPS[13]


def quantities(step: int) -> dict[str, dict[str, Any]]:
    """{quantity: {value, std_error}} at a step: the LLC rises, then falls, as the loss only falls."""
    scale = math.log1p(step)
    llc = 60 + 200 / (1 + math.exp(-4 * (scale - 3.2))) - 256 / (1 + math.exp(-4 * (scale - 5.9)))
    loss = 3.97 * math.exp(-step / 18) + 0.05 * math.exp(-step / 200) + 3e-4
    return {
        "llc": {
            "value": None if step == DIVERGED else llc,
            "std_error": None if step == DIVERGED else 0.03 * llc + 0.3,
        },
        "loss": {"value": loss, "std_error": 0.04 * loss},
        "hessian_trace": {"value": 30 + 4 * llc, "std_error": 8.0},
        "hessian_max_eigenvalue": {"value": 3 + 0.1 * llc, "std_error": None},
        "hessian_near_zero_share": {"value": 0.9 - 0.0015 * llc, "std_error": 0.02},
    }


def verdict(step: int) -> tuple[str, str]:
    """(verdict, reason) of the LLC at a step."""
    if step == DIVERGED:
        return "diverged", "2 of 4 chains left the numbers <b>at step 17</b>; make epsilon smaller"
    if step == NOT_CONVERGED:
        return "not_converged", "R-hat is 1.31, above 1.05"
    return "ok", ""


def curve(*names: str) -> Curve:
    """The curve as the server answers it, of these quantities (default: all)."""
    points = []
    for step in STEPS:
        found = {name: {**q, "verdict": "ok"} for name, q in quantities(step).items() if not names or name in names}
        if "llc" in found:
            found["llc"]["verdict"] = verdict(step)[0]
        points.append({"step": step, "checkpoint": f"ckp_{step}", **found})
    kept = [name for name in quantities(0) if not names or name in names]
    return Curve.model_validate({"series": "ser_1", "job": "job_1", "quantities": kept, "points": points})


TRANSITIONS: list[dict[str, Any]] = [
    {
        "type": "A",
        "from_step": 11,
        "from_step_low": 9,
        "from_step_high": 13,
        "to_step": 60,
        "to_step_low": 52,
        "to_step_high": 71,
        "probability_a": 0.99,
        "probability_b": 0.0,
        "probability_neither": 0.01,
        "survival": 1.0,
        "delta_loss": {"value": -3.41, "std_error": 0.02},
        "delta_llc": {"value": 197.0, "std_error": 8.4},
    },
    {
        "type": "B",
        "from_step": 180,
        "from_step_low": 150,
        "from_step_high": 201,
        "to_step": 700,
        "to_step_low": 640,
        "to_step_high": 760,
        "probability_a": 0.0,
        "probability_b": 0.97,
        "probability_neither": 0.03,
        "survival": 0.625,
        "delta_loss": {"value": -0.031, "std_error": 0.011},
        "delta_llc": {"value": -241.0, "std_error": 6.2},
    },
]


def transitions() -> list[Stage]:
    """The transitions as the server answers them."""
    return [Stage.model_validate({"id": f"stg_{i}", "details": {}, **t}) for i, t in enumerate(TRANSITIONS)]
