"""What jobs found: results, curves, stages, events."""

from collections.abc import Container, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple, TypeVar

import orjson
from sqlalchemy import Row, Text, cast, exists, select, text, tuple_
from sqlalchemy.orm import Session

from llc.errors import InputError
from llc.settings import MeasureSettings
from store.errors import NotFoundError
from store.owned import is_id
from store.tables import Checkpoint, Event, Job, Result, Stage

MEASURES = tuple(MeasureSettings.model_fields)
T = TypeVar("T")

VOID = ("diverged", "stuck")
"""Verdicts on chains that never saw the posterior: such a point is no part of the curve."""


class CurveRow(NamedTuple):
    """What a measure found at a checkpoint. quantities: {name: {value, std_error}}, some with their own verdict."""

    step: int
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


# Whatever is None asks for nothing.
_NAMED = "(cast(:names AS text[]) IS NULL OR measure = ANY(:names) OR quantities ?| :names)"
_BETWEEN = "step >= coalesce(:from_step, step) AND step <= coalesce(:to_step, step)"


def curve(
    session: Session, job_id: str, names: Sequence[str] | None, from_step: int | None, to_step: int | None
) -> list[CurveRow]:
    """The curve of a job by step, of the measures or quantities of these names; None: of all."""
    rows = session.execute(
        text(
            f"""
            SELECT c.step, r.measure, r.verdict, cast(r.quantities AS text)
            FROM results r JOIN checkpoints c ON c.id = r.checkpoint_id
            WHERE r.job_id = :job AND {_NAMED} AND {_BETWEEN}
            ORDER BY step, array_position(cast(:measures AS text[]), measure), measure
            """
        ),
        {"job": job_id, "names": names, "from_step": from_step, "to_step": to_step, "measures": list(MEASURES)},
    ).all()
    quantities = orjson.loads(f"[{','.join([row[3] for row in rows])}]")  # tens of thousands, in one go
    found = [
        CurveRow(step, measure, verdict, values)
        for (step, measure, verdict, _), values in zip(rows, quantities, strict=True)
    ]
    if names is None:
        return found
    return [row._replace(quantities=_asked_for(row.measure, row.quantities, names)) for row in found]


class CurvePoint(NamedTuple):
    """A checkpoint of a curve. values: pieces of JSON, ',"llc":{"value":1.5,"std_error":0.5,"verdict":"ok"},…'."""

    step: int
    checkpoint_id: str
    values: str


def curve_points(
    session: Session, job: Job, names: Sequence[str] | None, from_step: int | None, to_step: int | None
) -> tuple[list[str], list[CurvePoint]]:
    """The names of the quantities that the same curve has, and its points, whose values are in any order: to sort
    tens of thousands would take a third of the time.

    Raises: InputError `unknown_measure` for a name of neither measure nor quantity, in a job that has results.
    """
    some_values = "curve_values(quantities, verdict, CASE WHEN measure = ANY(:names) THEN NULL ELSE :names END)"
    values = "curve_values" if names is None else some_values
    some_steps = f"checkpoint_id IN (SELECT id FROM checkpoints WHERE series_id = :series AND {_BETWEEN})"
    within = "true" if from_step is None and to_step is None else some_steps
    rows = session.execute(
        text(
            f"""
            SELECT c.step, c.id, coalesce(found.values, ''), found.names
            FROM (SELECT checkpoint_id, string_agg({values}, '') AS values, string_agg(curve_names, '') AS names
                  FROM results
                  WHERE job_id = :job AND {_NAMED} AND {within}
                  GROUP BY checkpoint_id) found
            JOIN checkpoints c ON c.id = found.checkpoint_id ORDER BY c.step
            """
        ),
        {"job": job.id, "series": job.series_id, "names": names, "from_step": from_step, "to_step": to_step},
    ).all()
    found: dict[str, Mapping[str, None]] = {measure: {} for measure in MEASURES}
    kinds = dict.fromkeys(row[3] for row in rows)  # few: most checkpoints have the same
    for measure, its in chain.from_iterable(orjson.loads(f"[{kind[1:]}]") for kind in kinds):
        found[measure] = {**found.get(measure, {}), **dict.fromkeys(its or ())}
    if names is not None:
        _require_known(session, job.id, names, {*found, *chain.from_iterable(found.values())})
        found = {measure: _asked_for(measure, its, names) for measure, its in found.items()}
    quantities = list(dict.fromkeys(chain.from_iterable(found.values())))
    return quantities, [CurvePoint(step, checkpoint, values) for step, checkpoint, values, _ in rows]


def _asked_for(measure: str, found: Mapping[str, T], names: Sequence[str]) -> Mapping[str, T]:
    """Of a measure that was asked for, all quantities; of another, those that were."""
    return found if measure in names else {name: found[name] for name in names if name in found}


def metrics(session: Session, job: Job) -> Mapping[int, Mapping[str, float]]:
    """What training kept with the checkpoints that a job has results of, by step."""
    has_results = exists().where(Result.job_id == job.id, Result.checkpoint_id == Checkpoint.id)
    query = select(Checkpoint.step, cast(Checkpoint.metrics, Text))
    query = query.where(Checkpoint.series_id == job.series_id, has_results).order_by(Checkpoint.step)
    # PostgreSQL keeps 1e300 as the whole number.
    return {
        step: {name: float(value) for name, value in orjson.loads(found).items()}
        for step, found in session.execute(query)
    }


def stages(session: Session, job_id: str) -> Sequence[Stage]:
    """The plateaus and transitions of a job, in order."""
    return session.scalars(select(Stage).where(Stage.job_id == job_id).order_by(Stage.ordinal)).all()


def events(session: Session, job_id: str, after: int, limit: int) -> Sequence[Event]:
    """At most `limit` events of a job in order, from the one after `after`."""
    query = select(Event).where(Event.job_id == job_id, Event.id > after).order_by(Event.id).limit(limit)
    return session.scalars(query).all()


def _require_known(session: Session, job_id: str, names: Sequence[str], known: Container[str]) -> None:
    """Refuse names that a job has no quantity of, at any step; before its first result nobody can tell. known: some."""
    if all(name in known for name in names):
        return
    query = text("SELECT DISTINCT quantity FROM llc_curve WHERE job_id = :job ORDER BY quantity")
    quantities = list(session.scalars(query, {"job": job_id}))
    unknown = [name for name in names if name not in known and name not in quantities]
    if quantities and unknown:
        raise InputError(
            "unknown_measure",
            f"job '{job_id}' has no measure or quantity '{unknown[0]}'",
            f"it has the quantities {', '.join(quantities)}; measures are {', '.join(MEASURES)}",
        )
