"""/v1/series/{id}/compare: which of two checkpoints or plateaus a posterior prefers."""

from collections.abc import Mapping
from statistics import fmean
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel
from sqlalchemy.orm import Session

from api.curves import CurveValue
from api.dependencies import Reader, Shared
from api.fields import MAX_STEP, Estimate, Id
from api.of_series import JobId, chosen_job
from api.problems import RESPONSES
from api.reads import ReadRoute
from llc.errors import InputError
from llc.free_energy import Comparison, Phase, compare
from store.results import curve, stages
from store.tables import Dataset, Job, Series

router = APIRouter(tags=["stages"], responses=RESPONSES, route_class=ReadRoute)

QueryStep = Annotated[int | None, Query(ge=0, lt=MAX_STEP, description="A checkpoint's step; or else:")]
QueryStage = Annotated[Id | None, Query(description="Id of a plateau, as GET /v1/series/{id}/stages has it.")]

MAX_NUMBER = 1e100
"""Of a loss or an LLC: n times more is a number still."""


class PhaseOut(BaseModel):
    """What was measured there: at a checkpoint, whose step stands twice, or over a plateau."""

    stage: str | None
    from_step: int
    to_step: int
    loss: CurveValue
    llc: CurveValue


class ComparisonOut(Comparison):
    """n ΔL against Δλ log n, from the first checkpoint to the second."""

    series: str
    job: str
    first: PhaseOut
    second: PhaseOut


@router.get("/v1/series/{series_id}/compare", summary="Which of two checkpoints or plateaus a posterior prefers")
def get_comparison(
    series_id: str,
    key: Reader,
    shared: Shared,
    from_step: QueryStep = None,
    to_step: QueryStep = None,
    from_stage: QueryStage = None,
    to_stage: QueryStage = None,
    n: Annotated[int | None, Query(ge=3, lt=2**62, description="Samples; else as many as the data set has.")] = None,
    job: JobId = None,
) -> ComparisonOut:
    """Their free energies, n L + λ log n, with errors, and the n from which the second is preferred."""
    with shared.reading() as session:
        chosen = chosen_job(session, key.tenant_id, series_id, job)
        asked = (from_step, from_stage), (to_step, to_stage)
        first, second = (_phase_at(session, chosen, step, stage) for step, stage in asked)
        samples = n or _num_samples(session, series_id)
    where = {"series": series_id, "job": chosen and chosen.id, "first": first, "second": second}
    return ComparisonOut.model_validate(where | compare(_phase(first), _phase(second), samples).model_dump())


def _num_samples(session: Session, series_id: str) -> int:
    dataset = session.get_one(Dataset, session.get_one(Series, series_id).dataset_id)
    return max(3, dataset.num_samples)


def _phase_at(session: Session, job: Job | None, step: int | None, stage: str | None) -> PhaseOut:
    """Raises: InputError `which_phase`, `not_measured`, `not_a_plateau`."""
    if stage is not None and step is None:
        return _over_plateau(session, job, stage)
    if step is not None and stage is None:
        return _measured(session, job, step)
    raise InputError(
        "which_phase",
        "each side is either a step or a stage",
        "for example: from_step=0&to_step=100, or from_stage=stg_…&to_stage=stg_…",
    )


def _over_plateau(session: Session, job: Job | None, stage_id: str) -> PhaseOut:
    """The level of the LLC, and the mean loss of the checkpoints there. Their errors don't average out: all are of the
    same samples.
    """
    found = next((row for row in stages(session, job.id) if row.id == stage_id), None) if job else None
    if job is None or found is None or found.kind != "plateau":
        raise InputError(
            "not_a_plateau",
            f"the job has no plateau '{stage_id}'",
            "name one that GET /v1/series/{id}/stages has; a transition leads from one phase to another",
        )
    rows = curve(session, job.id, ["loss"], found.from_step, found.to_step)
    losses = [row.quantities["loss"] for row in rows if "loss" in row.quantities]
    known = [Estimate.model_validate(loss) for loss in losses]
    measured = [(loss.value, loss.std_error) for loss in known if _is_number(loss)]
    loss = [fmean(column) for column in zip(*measured, strict=True)] or [None, None]
    llc = found.details.get("llc"), found.details.get("llc_std_error")
    phase = {
        name: CurveValue(value=value, std_error=std_error, verdict="ok")
        for name, (value, std_error) in (("loss", loss), ("llc", llc))
    }
    _require_numbers(phase, f"over plateau '{stage_id}'")
    return PhaseOut(stage=stage_id, from_step=found.from_step, to_step=found.to_step, **phase)


def _measured(session: Session, job: Job | None, step: int) -> PhaseOut:
    """The loss and the LLC at a step. Raises: InputError `not_measured`."""
    rows = [] if job is None else curve(session, job.id, ["loss", "llc"], step, step)
    found = {
        name: CurveValue.model_validate({**row.quantities[name], "verdict": row.verdict_of(name)})
        for row in rows
        for name in ("loss", "llc")
        if name in row.quantities
    }
    _require_numbers(found, f"at step {step}")
    return PhaseOut(stage=None, from_step=step, to_step=step, **found)


def _require_numbers(found: Mapping[str, CurveValue], where: str) -> None:
    if len(found) < 2 or not all(map(_is_number, found.values())):
        raise InputError(
            "not_measured",
            f"there is no loss and LLC with errors {where}",
            "name the step of a checkpoint that a job has measured: GET /v1/series/{id}/curve",
        )


def _is_number(found: Estimate) -> bool:
    return all(number is not None and abs(number) < MAX_NUMBER for number in (found.value, found.std_error))


def _phase(measured: PhaseOut) -> Phase:
    loss, llc = measured.loss, measured.llc
    return Phase(loss.value or 0.0, loss.std_error or 0.0, llc.value or 0.0, llc.std_error or 0.0)
