"""`python -m worker.child`: the mathematics, in a process of its own: killable, one thread, no database, no network.

Requests come as lines of JSON on standard input, answers go as lines of JSON to standard output: `{"work": row-steps
done}` now and then, at the end `{"answer": ...}` or `{"error": ...}` (`worker.failures`). A request whose job has no
plan yet is answered with `{"plan": ...}` first, and goes on with the one that comes back, which all its shards share.

Now and then all that was computed goes to the file `saved` of the request (`llc.progress`), from where the next process
with the same request goes on, should this one be killed.
"""

import ctypes
import dataclasses
import json
import math
import os
import platform
import signal
import sys
import time
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from worker.failures import failure_of
from worker.limits import give_way, limit_memory

if TYPE_CHECKING:  # torch comes with it
    from torch import Tensor

    from llc.ensemble import Plan
    from llc.measures import Measurement, Quantity
    from llc.objective import ModelObjective
    from llc.progress import Progress
    from llc.settings import MeasureSettings

REPORT_SECONDS = 0.2
PR_SET_PDEATHSIG = 1


def main() -> None:
    """Answer requests until standard input ends."""
    parent, memory_bytes = map(int, sys.argv[1:])
    die_with_parent(parent)
    limit_memory(memory_bytes)
    # What libraries print must not end up between the answers.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    import torch

    torch.set_num_threads(1)
    import_module("llc.evaluate")  # takes seconds: before anybody asks
    give_way()  # not before: after a worker's death shards wait for that
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = {"answer": RUN[request["kind"]](request, Answers(answers))}
        except Exception as error:
            failure = failure_of(error)
            if failure is None:
                raise  # our last words
            answer = {"error": dataclasses.asdict(failure)}
        answers.write(json.dumps(finite(answer), allow_nan=False) + "\n")


def measure(request: dict[str, Any], answers: "Answers") -> list[dict[str, Any]]:
    """Every measure at every checkpoint: [{checkpoint_id, measure, quantities, details, verdict, reason, draws}].

    draws: the name of a file in the request's folder `scratch`, or null.
    """
    from llc.data import read_arrays
    from llc.evaluate import evaluate
    from llc.objective import ModelObjective
    from llc.settings import MeasureSettings

    objective, anchors = load(request)
    settings = MeasureSettings.model_validate(request["measures"])
    plan = agree(request, objective, anchors, settings, answers)
    others = {
        name: ModelObjective(objective.model, read_arrays(Path(path)), objective.device)
        for name, path in request["datasets"].items()
    }
    found = evaluate(objective, anchors, settings, progress(request, plan, answers), others, plan)
    scratch = Path(request["scratch"])
    scratch.mkdir(parents=True, exist_ok=True)
    return [
        result(checkpoint["id"], name, measurement, scratch)
        for checkpoint, measurements in zip(request["checkpoints"], found, strict=True)
        for name, measurement in measurements.items()
    ]


def load(request: dict[str, Any]) -> tuple["ModelObjective", "Tensor"]:
    """The objective, and the checkpoints as rows (checkpoints, d)."""
    import numpy as np
    import torch

    from llc.checkpoints import read_parameters
    from llc.data import read_arrays
    from llc.models import MODEL_SPEC
    from llc.objective import ModelObjective

    model = MODEL_SPEC.validate_python(request["model"])
    device = "cuda" if request["gpu"] else "cpu"
    objective = ModelObjective(model, read_arrays(Path(request["dataset"])), device)
    paths = [Path(checkpoint["path"]) for checkpoint in request["checkpoints"]]
    anchors = torch.from_numpy(np.stack([read_parameters(path, model.layout()) for path in paths])).to(device)
    return objective, anchors


def calibrate(request: dict[str, Any], answers: "Answers") -> list[dict[str, Any]]:
    """Settings chosen by a pilot on these checkpoints: [{measures, report}]."""
    from llc.evaluate import calibrated
    from llc.settings import MeasureSettings

    objective, anchors = load(request)
    settings = MeasureSettings.model_validate(request["measures"])
    plan = agree(request, objective, anchors, settings, answers)
    measures, found = calibrated(objective, anchors, settings, progress(request, plan, answers), plan)
    return [{"measures": measures.model_dump(mode="json"), "report": found}]


def agree(
    request: dict[str, Any],
    objective: "ModelObjective",
    anchors: "Tensor",
    settings: "MeasureSettings",
    answers: "Answers",
) -> "Plan":
    """The job's plan; measured here if it has none yet."""
    from llc.planning import choose_plan, read_plan

    agreed = request["plan"] or answers.agree(choose_plan(objective, anchors, settings.llc).report())
    return read_plan(agreed)


def result(checkpoint_id: str, name: str, measurement: "Measurement", scratch: Path) -> dict[str, Any]:
    """A row of `results`; the draws go to a file."""
    from llc.draw_files import write_draws

    file = None
    if measurement.draws is not None:
        file = f"{checkpoint_id}.{name}"
        write_draws(measurement.draws, scratch / file)
    return {
        "checkpoint_id": checkpoint_id,
        "measure": name,
        "quantities": {key: shown(quantity) for key, quantity in measurement.quantities.items()},
        "details": measurement.details,
        "verdict": measurement.verdict.name,
        "reason": measurement.verdict.reason,
        "draws": file,
    }


def shown(quantity: "Quantity") -> dict[str, Any]:
    """{value, std_error}, with a verdict and a reason where it has its own."""
    own = quantity.verdict
    about = {} if own is None else {"verdict": own.name, "reason": own.reason}
    return {"value": quantity.value, "std_error": quantity.std_error} | about


def stages(request: dict[str, Any], answers: "Answers") -> list[dict[str, Any]]:
    """Plateaus and transitions of a curve: rows of `stages`."""
    from llc.settings import StabilitySettings, StageSettings
    from llc.stability import read_with_members
    from llc.stages import Curve

    stability = StabilitySettings.model_validate(request["stability"] or {})
    members = [Curve.of(**member) for member in request["members"]]
    settings = StageSettings.model_validate(request["stages"])
    found = read_with_members(Curve.of(**request["curve"]), members, settings, stability.keep, lambda: answers.work(1))
    return [dataclasses.asdict(stage) for stage in found]


RUN = {"calibrate": calibrate, "measure": measure, "stages": stages}


def progress(request: dict[str, Any], plan: "Plan", answers: "Answers") -> "Progress":
    """What the computation tells and keeps. It goes on from what an earlier process kept of the same."""
    import numpy as np
    import torch

    from llc.progress import SavedProgress

    class Told(SavedProgress):
        """And tells our parent."""

        def report(self, row_steps: int) -> None:
            super().report(row_steps)
            answers.work(self.row_steps)

    versions = [version("lambdahat"), torch.__version__, np.__version__]
    machine = [platform.machine(), torch.backends.cpu.get_cpu_capability(), request["gpu"]]
    asked = {key: request[key] for key in ("kind", "model", "dataset", "datasets", "checkpoints", "measures")}
    made_of = {**asked, "plan": dataclasses.asdict(plan), "versions": versions, "machine": machine}
    told = Told(Path(request["saved"]), made_of, request["save_seconds"])
    told.report(0)
    signal.signal(signal.SIGTERM, lambda *_: told.stop())
    return told


class Answers:
    """Where they go. A parent that is gone ends us here."""

    def __init__(self, answers: IO[str]) -> None:
        self._answers = answers
        self._next = 0.0

    def work(self, done: int) -> None:
        """Row-steps done so far, written down a few times a second."""
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + REPORT_SECONDS
            self._answers.write(json.dumps({"work": done}) + "\n")

    def agree(self, plan: dict[str, Any]) -> dict[str, Any]:
        """Propose a plan; the one to go on with."""
        self._answers.write(json.dumps({"plan": plan}) + "\n")
        line = sys.stdin.readline()
        if not line:
            sys.exit()
        return json.loads(line)["plan"]


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
