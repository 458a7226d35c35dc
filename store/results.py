"""What jobs found: results, curves, stages, events."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import Row, exists, select, text, tuple_
from sqlalchemy.orm import Session

from llc.errors import InputError
from llc.settings import MeasureSettings
from store.errors import NotFoundError
from store.owned import is_id
from store.tables import Checkpoint, Event, Job, Result, Stage

MEASURES = tuple(MeasureSettings.model_fields)


@dataclass(frozen=True)
class CurveRow:
    """One quantity at one checkpoint; value and std_error are None where there is no finite number."""

    step: int
    checkpoint_id: str
    measure: str
    quantity: str
    value: float | None
    std_error: float | None
    verdict: str


def results(session: Session, job_id: str, after: tuple[int, str] | None, limit: int) -> Sequence[Row[Result, int]]:
    """At most `limit` results of a job with their steps, by (step, measure), from the one after `after`."""
    key = tuple_(Checkpoint.step, Result.measure)
    query = select(Result, Checkpoint.step).join(Checkpoint, Checkpoint.id == Result.checkpoint_id)
    query = query.where(Result.job_id == job_id).order_by(Checkpoint.step, Result.measure).limit(limit)
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
    session: Session, job_id: str, names: Iterable[str] | None, from_step: int | None, to_step: int | None
) -> list[CurveRow]:
    """The curve of a job by step, of the measures or quantities of these names; None: of all.

    Raises: InputError `unknown_measure` for a name that is neither, in a job that has results.
    """
    wanted = None if names is None else list(names)
    rows = session.execute(
        text(
            """
            SELECT step, checkpoint_id, measure, quantity, value, std_error, verdict FROM llc_curve
            WHERE job_id = :job
              AND (cast(:names AS text[]) IS NULL OR measure = ANY(:names) OR quantity = ANY(:names))
              AND step >= coalesce(:from_step, step) AND step <= coalesce(:to_step, step)
            ORDER BY step, array_position(cast(:measures AS text[]), measure), quantity
            """
        ),
        {"job": job_id, "names": wanted, "from_step": from_step, "to_step": to_step, "measures": list(MEASURES)},
    )
    found = [CurveRow(**row) for row in rows.mappings()]
    known = {*MEASURES, *(row.measure for row in found), *(row.quantity for row in found)}
    unknown = [name for name in wanted or () if name not in known]
    if unknown:
        _refuse_unknown(session, job_id, unknown)
    return found


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
