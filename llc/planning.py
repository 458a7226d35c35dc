"""How rows go through the model: chosen by measuring memory and by timing, once, and kept with the job.

A row's **bytes** are what its forward pass keeps for the backward pass, counted as autograd saves it, beside the few
vectors of d numbers that a step of a row makes. The rows of a call have to fit in a budget; row by row, nothing is
left to choose. Of the numbers of rows that fit, a few are **timed** in the sampling loop itself against row by row,
turn by turn.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from llc.chains import Chains
from llc.ensemble import PLAN, Plan, minibatch_gradients
from llc.objective import Objective
from llc.rows import rows_of
from llc.samplers import kernel
from llc.settings import AutoLLCSettings, LLCSettings

SIZES = (8, 32, 128)
"""Rows of a call that are timed, as far as there are so many and they fit; beside them as many as do."""

ROUNDS = 3
STEP_SECONDS = 0.1
"""Of a step that is timed, if it has more than one row of every chain."""

MAX_COMPILED_GAIN = 2
"""Row by row, compiling spares the calls of operations of every row; it takes up to a minute to find out how many."""

MAX_ROW_SECONDS = 0.5
"""A gradient that takes longer gains nothing from others beside it."""

VECTORS = 6
"""Of d numbers, that a row has in a call: w, its gradient in pieces and whole, force, old and new place."""

GPU_SHARE = 0.5
"""Of its free memory."""


PILOT_SHARE = 1 / 4
"""Of a call's memory: a pilot may try batches several times as large as planned for."""


@dataclass(frozen=True)
class Planning:
    """A plan, and what it was chosen from."""

    plan: Plan
    row_bytes: int
    """Of one row in a call."""
    budget_bytes: int
    row_steps_per_second: dict[str, float]
    """Of every candidate: 'row by row', '8 rows', ..."""
    reason: str = ""
    """Why it isn't compiled, if that was asked for."""

    def report(self) -> dict[str, Any]:
        """JSON-like: the fields of the plan, and the rest of this."""
        return {**asdict(self.plan), **{name: value for name, value in vars(self).items() if name != "plan"}}


def choose_plan(objective: Objective, anchors: Tensor, settings: LLCSettings | AutoLLCSettings | None) -> Planning:
    """The fastest plan for chains about these anchors (checkpoints, d) whose calls fit in memory. settings: none where
    no chains run.
    """
    sampled = settings is not None
    if settings is None:
        settings = LLCSettings()
    elif isinstance(settings, AutoLLCSettings):
        megabytes = max(1, round(PILOT_SHARE * settings.call_megabytes))
        settings = settings.as_given(call_megabytes=megabytes)
    budget = _budget(objective, settings)
    batch_size = min(settings.batch_size, objective.num_samples)
    if kernel(settings.sampler).full_data:
        batch_size = objective.num_samples
    alone, sample_bytes = row_bytes(objective, anchors[0], batch_size, vectorised=False)
    samples_per_call = min(PLAN.samples_per_call, max(1, budget // max(1, sample_bytes)))
    single = Plan(vectorised=False, rows_per_call=1, samples_per_call=samples_per_call)
    together, sizes = alone, list[int]()
    if not sampled:
        return Planning(single, alone, budget, {})
    timing = _Timing(objective, anchors, settings, single)
    if 2 * alone <= budget and timing.row_seconds <= MAX_ROW_SECONDS:
        together, _ = row_bytes(objective, anchors[0], batch_size, vectorised=True)
        most = min(budget // together, timing.num_rows)
        sizes = sorted(size for size in {*SIZES, most} if 1 < size <= most)
    times = timing.compare([single, *(replace(single, vectorised=True, rows_per_call=size) for size in sizes)])
    best = min(times, key=lambda plan: times[plan])
    reason = ""
    if settings.compile:
        best, reason = _compiled(best, single, times, timing)
    return Planning(
        plan=best,
        row_bytes=together if best.vectorised else alone,
        budget_bytes=budget,
        row_steps_per_second={_name(plan): 1 / seconds for plan, seconds in times.items()},
        reason=reason,
    )


def read_plan(report: Mapping[str, Any]) -> Plan:
    """The plan of a report."""
    return Plan(**{field.name: report[field.name] for field in fields(Plan)})


def _compiled(best: Plan, single: Plan, times: dict[Plan, float], timing: "_Timing") -> tuple[Plan, str]:
    """The fastest of the best plan as it is, compiled, and row by row compiled where that may be faster; and why it is
    not compiled. times is added to.
    """
    tried = [best]
    if best != single and times[single] <= MAX_COMPILED_GAIN * times[best]:
        tried.append(single)
    compiled = [replace(plan, compiled=True) for plan in tried]
    try:
        times |= timing.compare([best, *compiled])
    except RuntimeError as error:  # of the compiler, or of a model that can't be recorded as a graph
        return best, f"it could not be compiled: {str(error).splitlines()[0]}"
    fastest = min([best, *compiled], key=lambda plan: times[plan])
    return fastest, "" if fastest.compiled else "compiled it is slower"


def _budget(objective: Objective, settings: LLCSettings) -> int:
    budget = settings.call_megabytes * 2**20
    if objective.device.type != "cuda":
        return budget
    return max(budget, int(GPU_SHARE * torch.cuda.mem_get_info(objective.device)[0]))


def _name(plan: Plan) -> str:
    name = f"{plan.rows_per_call} rows" if plan.vectorised else "row by row"
    return f"{name}, compiled" if plan.compiled else name


def row_bytes(objective: Objective, w: Tensor, batch_size: int, *, vectorised: bool) -> tuple[int, int]:
    """Of one row at w (d,) in a call, and the part of it that a sample of its minibatch has."""
    rows = 2 if vectorised else 1
    batch = objective.batch(torch.arange(batch_size, device=objective.device)[None] % objective.num_samples)
    matrix = w.expand(1, rows, -1).contiguous()
    known = {array.untyped_storage().data_ptr() for array in (matrix, *batch.values())}
    with _saved_bytes(known) as saved:
        minibatch_gradients(objective, matrix, batch, vectorised=vectorised)
    return saved() // rows + VECTORS * w.numel() * w.element_size(), saved() // rows // batch_size


@contextmanager
def _saved_bytes(known: set[int]) -> Iterator[Callable[[], int]]:
    """Bytes of what autograd keeps in this block, each storage once, those of `known` addresses left out."""
    kept: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        address = tensor.untyped_storage().data_ptr()
        if address not in known:
            kept[address] = tensor  # which also keeps the address from being given to another
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield lambda: sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


class _Timing:
    """Times steps of the same matrix of rows, as many as take little time, by one plan and another."""

    def __init__(self, objective: Objective, anchors: Tensor, settings: LLCSettings, single: Plan) -> None:
        self._objective, self._anchors = objective, anchors
        # Control variates take the same gradients twice; a pass over the data for their mean would take too long.
        self._settings = settings.model_copy(update={"num_probe_samples": 0, "gradient": "minibatch"})
        chains, self._count = settings.num_chains, 1
        self.row_seconds = self._seconds(self._warm(single)) / chains
        affordable = int(STEP_SECONDS / self.row_seconds / chains)
        self._count = max(1, min(affordable, settings.num_rows * len(anchors), SIZES[-1] // chains))
        self.num_rows = chains * self._count

    def compare(self, plans: Sequence[Plan]) -> dict[Plan, float]:
        """Seconds of a row-step: the least of a few rounds, in which the plans take turns."""
        chains = {plan: self._warm(plan) for plan in plans}
        rounds = ROUNDS if self.row_seconds * self.num_rows < 3 * STEP_SECONDS else 1
        times = [{plan: self._seconds(warm) for plan, warm in chains.items()} for _ in range(rounds)]
        return {plan: min(time[plan] for time in times) / self.num_rows for plan in plans}

    def _warm(self, plan: Plan) -> Chains:
        which = torch.arange(self._count, device=self._anchors.device) % len(self._anchors)
        baselines = self._anchors.new_zeros(1, 1).expand(self._count, self._objective.num_samples)
        rows = rows_of(self._anchors[which], baselines, self._settings, self._objective.layout)
        chains = Chains(self._objective, rows, self._settings, plan)
        chains.burn_in(1)
        return chains

    def _seconds(self, chains: Chains) -> float:
        """Of a step."""
        steps, start = 0, self._clock()
        while steps == 0 or self._clock() - start < STEP_SECONDS / 2:
            chains.burn_in(1)
            steps += 1
        return (self._clock() - start) / steps

    def _clock(self) -> float:
        """This process' own time, since others may share the machine; on a GPU, the time by which it is done."""
        if self._objective.device.type != "cuda":
            return time.process_time()
        torch.cuda.synchronize(self._objective.device)
        return time.perf_counter()
