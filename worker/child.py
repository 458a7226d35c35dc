"""`python -m worker.child`: the mathematics, in a process of its own: killable, one thread, no database, no network.

Requests come as lines of JSON on standard input, answers go as lines of JSON to standard output: `{"work": row-steps
done}` now and then, and at the end `{"answer": ...}` or `{"error": {code, detail, hint}}`.
"""

import ctypes
import dataclasses
import json
import math
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

REPORT_SECONDS = 0.2
PR_SET_PDEATHSIG = 1


def main() -> None:
    """Answer requests until standard input ends."""
    die_with_parent(int(sys.argv[1]))
    # What libraries print must not end up between the answers.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    import torch

    from llc.errors import InputError

    torch.set_num_threads(1)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = {"answer": RUN[request["kind"]](request, Reporter(answers))}
        except InputError as error:
            answer = {"error": {"code": error.code, "detail": error.detail, "hint": error.hint}}
        answers.write(json.dumps(finite(answer), allow_nan=False) + "\n")


def measure(request: dict[str, Any], report: Callable[[int], None]) -> list[dict[str, Any]]:
    """Every measure at every checkpoint: [{checkpoint_id, measure, quantities, details, verdict, reason}]."""
    import numpy as np
    import torch

    from llc.checkpoints import read_parameters
    from llc.data import read_arrays
    from llc.evaluate import evaluate
    from llc.models import MODEL_SPEC
    from llc.objective import ModelObjective
    from llc.settings import MeasureSettings

    model = MODEL_SPEC.validate_python(request["model"])
    device = "cuda" if request["gpu"] else "cpu"
    objective = ModelObjective(model, read_arrays(Path(request["dataset"])), device)
    paths = [Path(checkpoint["path"]) for checkpoint in request["checkpoints"]]
    anchors = torch.from_numpy(np.stack([read_parameters(path, model.layout()) for path in paths])).to(device)
    found = evaluate(objective, anchors, MeasureSettings.model_validate(request["measures"]), report)
    return [
        {
            "checkpoint_id": checkpoint["id"],
            "measure": name,
            "quantities": {key: dataclasses.asdict(quantity) for key, quantity in measurement.quantities.items()},
            "details": measurement.details,
            "verdict": measurement.verdict.name,
            "reason": measurement.verdict.reason,
        }
        for checkpoint, measurements in zip(request["checkpoints"], found, strict=True)
        for name, measurement in measurements.items()
    ]


def stages(request: dict[str, Any], report: Callable[[int], None]) -> list[dict[str, Any]]:
    """Plateaus and transitions of a curve: rows of `stages`."""
    from llc.settings import StageSettings
    from llc.stages import read_stages

    curve = request["curve"]
    found = read_stages(
        curve["step"],
        curve["llc"],
        curve["llc_std_error"],
        curve["loss"],
        curve["loss_std_error"],
        StageSettings.model_validate(request["stages"]),
    )
    report(1)
    return [dataclasses.asdict(stage) for stage in found]


RUN = {"measure": measure, "stages": stages}


class Reporter:
    """Sums up the row-steps done and writes them down a few times a second. A parent that is gone ends us here."""

    def __init__(self, answers: IO[str]) -> None:
        self._answers = answers
        self._done = 0
        self._next = 0.0

    def __call__(self, row_steps: int) -> None:
        self._done += row_steps
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + REPORT_SECONDS
            self._answers.write(json.dumps({"work": self._done}) + "\n")


def finite(value: Any) -> Any:
    """JSON has no NaN and no infinity: null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    return [finite(item) for item in value] if isinstance(value, list | tuple) else value


def die_with_parent(parent: int) -> None:
    """Ask the kernel (Linux) for SIGKILL when our parent dies; end now if it is dead already."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


if __name__ == "__main__":
    main()
