"""What jobs found: results, curves, stages, events."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import orjson
from sqlalchemy import Row, exists, select, text, tuple_
from sqlalchemy.orm import Session

from llc.errors import InputError
from llc.settings import MeasureSettings
from store.errors import NotFoundError
from store.owned import is_id
from store.tables import Checkpoint, Event, Job, Result, Stage

MEASURES = tuple(MeasureSettings.model_fields)
VOID = ("diverged", "stuck")
"""Verdicts on chains that never saw the posterior: such a point is no part of the curve."""


class CurveRow(NamedTuple):
    """What a measure found at a checkpoint. quantities: {name: {value, std_error}}, some with their own verdict."""

    step: int
    checkpoint_id: str
    measure: str
    verdict: str
    quantities: Mapping[str, Mapping[str, Any]]

    def verdict_of(self, quantity: str) -> str:
        """A quantity's own verdict, else its measure's; so says the view llc_curve."""
        return self.quantities[quantity].get("verdict", self.verdict)


def results(session: Session, job: Job, after: tuple[int, str] | None, limit: int) -> Sequence[Row[Result, int]]:
    """At most `limit` results of a job with their steps, by (step, measure), from the one after `after`."""
    key = tuple_(Checkpoint.step, Result.measure)
    query = select(Result, Checkpoint.step).join(Checkpoint, Checkpoint.id == Result.checkpoint_id)
    # The series leads straight to the first checkpoints: without it all results of the job would be sorted.
    query = query.where(Result.job_id == job.id, Checkpoint.series_id == job.series_id)
    query = query.order_by(Checkpoint.step, Result.measure).limit(limit)
    return session.execute(query if after is None else query.where(key > after)).all()


def draws(session: Session, job_id: str, checkpoint_id: str, measure: str) -> str:
    """The SHA-256 of the draws behind a result. Raises: NotFoundError."""
    sha256 = None
    if is_id(checkpoint_id) and measure in MEASURES:
        key = (Result.job_id == job_id, Result.checkpoint_id == checkpoint_id, Result.measure == measure)
        sha256 = session.scalar(select(Result.draws).where(*key))
    if sha256 is None:
        raise NotFoundError(
            f"file of draws of {measure[:100]} at checkpoint",
            checkpoint_id[:100],
            "the results say where there is one; draws are kept of finished checkpoints, unless keep_draws is 'none'",
        )
    return sha256


def newest_job_with_results(session: Session, series_id: str) -> Job | None:
    """The newest job of a series of which there is something to show."""
    found = exists().where(Result.job_id == Job.id)
    return session.scalar(select(Job).where(Job.series_id == series_id, found).order_by(Job.id.desc()).limit(1))


def curve(
    session: Session, job_id: str, names: Sequence[str] | None, from_step: int | None, to_step: int | None
) -> list[CurveRow]:
    """The curve of a job by step, of the measures or quantities of these names; None: of all.

    Raises: InputError `unknown_measure` for a name that is neither, in a job that has results.
    """
    rows = session.execute(
        text(
            """
            SELECT c.step, r.checkpoint_id, r.measure, r.verdict, cast(r.quantities AS text)
            FROM results r JOIN checkpoints c ON c.id = r.checkpoint_id
            WHERE r.job_id = :job AND (cast(:names AS text[]) IS NULL OR measure = ANY(:names) OR quantities ?| :names)
              AND step >= coalesce(:from_step, step) AND step <= coalesce(:to_step, step)
            ORDER BY step, array_position(cast(:measures AS text[]), measure), measure
            """
        ),
        {"job": job_id, "names": names, "from_step": from_step, "to_step": to_step, "measures": list(MEASURES)},
    ).all()
    quantities = orjson.loads(f"[{','.join([row[4] for row in rows])}]")  # tens of thousands, in one go
    found = [
        CurveRow(step, checkpoint, measure, verdict, values)
        for (step, checkpoint, measure, verdict, _), values in zip(rows, quantities, strict=True)
    ]
    if names is None:
        return found
    found = [_only(row, names) for row in found]
    known = {*MEASURES, *(row.measure for row in found), *(name for row in found for name in row.quantities)}
    unknown = [name for name in names if name not in known]
    if unknown:
        _refuse_unknown(session, job_id, unknown)
    return found


def _only(row: CurveRow, names: Sequence[str]) -> CurveRow:
    """Of a measure that was asked for, all quantities; of another, those that were."""
    if row.measure in names:
        return row
    return row._replace(quantities={name: row.quantities[name] for name in names if name in row.quantities})


def metrics(session: Session, job: Job) -> Mapping[int, Mapping[str, float]]:
    """What training kept with the checkpoints that a job has results of, by step."""
    has_results = exists().where(Result.job_id == job.id, Result.checkpoint_id == Checkpoint.id)
    query = select(Checkpoint.step, Checkpoint.metrics).where(Checkpoint.series_id == job.series_id, has_results)
    rows = session.execute(query.order_by(Checkpoint.step))
    # PostgreSQL keeps 1e300 as the whole number.
    return {step: {name: float(value) for name, value in found.items()} for step, found in rows}


def stages(session: Session, job_id: str) -> Sequence[Stage]:
    """The plateaus and transitions of a job, in order."""
    return session.scalars(select(Stage).where(Stage.job_id == job_id).order_by(Stage.ordinal)).all()


def events(session: Session, job_id: str, after: int, limit: int) -> Sequence[Event]:
    """At most `limit` events of a job in order, from the one after `after`."""
    query = select(Event).where(Event.job_id == job_id, Event.id > after).order_by(Event.id).limit(limit)
    return session.scalars(query).all()


def _refuse_unknown(session: Session, job_id: str, names: list[str]) -> None:
    """Refuse names that a job has no quantity of, at any step; before its first result nobody can tell."""
    query = text("SELECT DISTINCT quantity FROM llc_curve WHERE job_id = :job ORDER BY quantity")
    quantities = list(session.scalars(query, {"job": job_id}))
    unknown = [name for name in names if name not in quantities]
    if quantities and unknown:
        raise InputError(
            "unknown_measure",
            f"job '{job_id}' has no measure or quantity '{unknown[0]}'",
            f"it has the quantities {', '.join(quantities)}; measures are {', '.join(MEASURES)}",
        )
