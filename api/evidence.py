"""/v1/series/{id}/evidence: which curves change at which transition."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

from fastapi import APIRouter
from pydantic import BaseModel, Field

from api.dependencies import Reader, Shared
from api.fields import Estimate
from api.of_series import JobId, chosen_job
from api.problems import RESPONSES
from api.reads import ReadRoute
from api.stages import StageOut, shown
from llc.evidence import Change, changes_at
from store.jobs import settings_of
from store.results import VOID, CurveRow, curve, metrics, stages

router = APIRouter(tags=["stages"], responses=RESPONSES, route_class=ReadRoute)

Source = Literal["measure", "metric"]


class ChangeOut(BaseModel):
    """Of one curve, from before a transition to after it. Null where it is not known on both sides."""

    name: str
    source: Source = Field(description="measure: of the job; metric: posted with the checkpoints, without errors.")
    change: Estimate
    share: float | None = Field(description="Of the curve's range over the run.")
    z: float | None = Field(description="The change in standard errors.")
    changes: bool | None = Field(description="More than noise, and a share of the range that counts.")


class TransitionEvidence(BaseModel):
    """A transition, and what each curve does there."""

    transition: StageOut
    curves: list[ChangeOut]


class Evidence(BaseModel):
    """Which curves change at which transition."""

    series: str
    job: str | None
    data: list[TransitionEvidence]


class _Curve(NamedTuple):
    """std_error: None where it has none of its own."""

    name: str
    source: Source
    step: list[int]
    value: list[float | None]
    std_error: list[float | None] | None


@router.get("/v1/series/{series_id}/evidence", summary="Which measures and metrics change at which transition")
def get_evidence(series_id: str, key: Reader, shared: Shared, job: JobId = None) -> Evidence:
    with shared.reading() as session:
        chosen = chosen_job(session, key.tenant_id, series_id, job)
        if chosen is None:
            return Evidence(series=series_id, job=None, data=[])
        found = [row for row in stages(session, chosen.id) if row.kind == "transition"]
        rows = curve(session, chosen.id, None, None, None)
        curves = [*_measured(rows), *_posted(metrics(session, chosen))]
    settings = settings_of(chosen.settings).stages
    ends = [(row.from_step, row.to_step) for row in found]
    changes = [
        [_shown(one, change) for change in changes_at(ends, one.step, one.value, one.std_error, settings)]
        for one in curves
    ]
    data = [
        TransitionEvidence(transition=StageOut.model_validate(shown(row)), curves=list(of_transition))
        for row, of_transition in zip(found, zip(*changes, strict=True), strict=True)
    ]
    return Evidence(series=series_id, job=chosen.id, data=data)


def _measured(rows: Sequence[CurveRow]) -> Iterator[_Curve]:
    """A curve of every quantity, but for points that say nothing of the checkpoint."""
    for name in dict.fromkeys(name for row in rows for name in row.quantities):
        points = [row for row in rows if name in row.quantities and row.verdict_of(name) not in VOID]
        value, std_error = ([row.quantities[name][key] for row in points] for key in ("value", "std_error"))
        yield _Curve(name, "measure", [row.step for row in points], value, std_error)


def _posted(found: Mapping[int, Mapping[str, float]]) -> Iterator[_Curve]:
    for name in sorted({name for values in found.values() for name in values}):
        points = {step: values[name] for step, values in found.items() if name in values}
        yield _Curve(name, "metric", list(points), list(points.values()), None)


def _shown(one: _Curve, change: Change | None) -> ChangeOut:
    if change is None:
        unknown = Estimate(value=None, std_error=None)
        return ChangeOut(name=one.name, source=one.source, change=unknown, share=None, z=None, changes=None)
    estimate = Estimate(value=change.value, std_error=change.std_error)
    about = {"share": change.share, "z": change.z, "changes": change.changes}
    return ChangeOut(name=one.name, source=one.source, change=estimate, **about)
