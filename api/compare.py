"""/v1/series/{id}/compare: which of two checkpoints a posterior prefers."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel
from sqlalchemy.orm import Session

from api.curves import CurveValue
from api.dependencies import Reader, Shared
from api.fields import MAX_STEP
from api.of_series import JobId, chosen_job
from api.problems import RESPONSES
from api.reads import ReadRoute
from llc.errors import InputError
from llc.free_energy import Comparison, Phase, compare
from store.results import curve
from store.tables import Dataset, Job, Series

router = APIRouter(tags=["stages"], responses=RESPONSES, route_class=ReadRoute)

QueryStep = Annotated[int, Query(ge=0, lt=MAX_STEP, description="A checkpoint's step.")]


MAX_NUMBER = 1e100
"""Of a loss or an LLC: n times more is a number still."""


class PhaseOut(BaseModel):
    """What was measured there."""

    step: int
    loss: CurveValue
    llc: CurveValue


class ComparisonOut(Comparison):
    """n ΔL against Δλ log n, from the first checkpoint to the second."""

    series: str
    job: str
    first: PhaseOut
    second: PhaseOut


@router.get("/v1/series/{series_id}/compare", summary="Which of two checkpoints a posterior prefers")
def get_comparison(
    series_id: str,
    key: Reader,
    shared: Shared,
    from_step: QueryStep,
    to_step: QueryStep,
    n: Annotated[int | None, Query(ge=3, lt=2**62, description="Samples; else as many as the data set has.")] = None,
    job: JobId = None,
) -> ComparisonOut:
    """Their free energies, n L + λ log n, with errors, and the n from which the second is preferred."""
    with shared.reading() as session:
        chosen = chosen_job(session, key.tenant_id, series_id, job)
        first, second = (_measured(session, chosen, step) for step in (from_step, to_step))
        samples = n or _num_samples(session, series_id)
    where = {"series": series_id, "job": chosen and chosen.id, "first": first, "second": second}
    return ComparisonOut.model_validate(where | compare(_phase(first), _phase(second), samples).model_dump())


def _num_samples(session: Session, series_id: str) -> int:
    dataset = session.get_one(Dataset, session.get_one(Series, series_id).dataset_id)
    return max(3, dataset.num_samples)


def _measured(session: Session, job: Job | None, step: int) -> PhaseOut:
    """The loss and the LLC at a step. Raises: InputError `not_measured`."""
    rows = [] if job is None else curve(session, job.id, ["loss", "llc"], step, step)
    found = {
        name: CurveValue.model_validate({**row.quantities[name], "verdict": row.verdict_of(name)})
        for row in rows
        for name in ("loss", "llc")
        if name in row.quantities
    }
    if len(found) < 2 or not all(map(_is_number, found.values())):
        raise InputError(
            "not_measured",
            f"there is no loss and LLC with errors at step {step}",
            "name the step of a checkpoint that a job has measured: GET /v1/series/{id}/curve",
        )
    return PhaseOut(step=step, **found)


def _is_number(found: CurveValue) -> bool:
    return all(number is not None and abs(number) < MAX_NUMBER for number in (found.value, found.std_error))


def _phase(measured: PhaseOut) -> Phase:
    loss, llc = measured.loss, measured.llc
    return Phase(loss.value or 0.0, loss.std_error or 0.0, llc.value or 0.0, llc.std_error or 0.0)
