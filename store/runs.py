"""Series side by side: the transitions of each, as the newest job that has read its stages found them."""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from sqlalchemy import and_, or_, select, text
from sqlalchemy.orm import Session

from llc.errors import InputError
from store.errors import NotFoundError
from store.owned import is_id
from store.stages import Asked, has_tags
from store.tables import Series


class Transition(NamedTuple):
    """Of a run: of a stage what an alignment takes, since whole ones take twice as long to read."""

    id: str
    type: Literal["A", "B"] | None
    from_step: int
    to_step: int
    delta_loss: float | None
    delta_loss_std_error: float | None
    delta_llc: float | None
    delta_llc_std_error: float | None


@dataclass(frozen=True)
class Run:
    """A series and its transitions in the order of training. job_id: None while no job has read its stages."""

    series_id: str
    name: str
    job_id: str | None
    transitions: Sequence[Transition]


_NEWEST = text(
    f"""
    SELECT newest.series_id, newest.job_id, {", ".join(f"t.{name}" for name in Transition._fields)}
    FROM unnest(cast(:series AS text[])) wanted (id)
    CROSS JOIN LATERAL (SELECT s.series_id, s.job_id FROM stages s WHERE s.series_id = wanted.id
                        ORDER BY s.job_id DESC LIMIT 1) newest
    LEFT JOIN stages t ON t.job_id = newest.job_id AND t.kind = 'transition'
    ORDER BY newest.series_id, t.ordinal
    """
)


def runs(session: Session, tenant_id: str, series_ids: Sequence[str], tags: Sequence[Asked], most: int) -> list[Run]:
    """The series of these ids, and those that have all of these tags, if any; oldest first.

    Raises: NotFoundError; InputError `too_many_series` for more than `most`.
    """
    for series_id in series_ids:
        if not is_id(series_id):
            raise NotFoundError("series", series_id[:100])
    wanted = [Series.id.in_(series_ids), *([and_(*has_tags(tags))] if tags else [])]
    chosen = select(Series.id, Series.name).where(Series.tenant_id == tenant_id, or_(*wanted))
    chosen = chosen.order_by(Series.id).limit(max(most, len(series_ids)) + 1)
    names: dict[str, str] = dict(session.execute(chosen).all())
    if len(names) > most:  # of more not all were read
        raise InputError(
            "too_many_series", f"these are more than {most} series", "name fewer, or one more tag that they have"
        )
    for series_id in series_ids:
        if series_id not in names:
            raise NotFoundError("series", series_id)
    jobs: dict[str, str] = {}
    transitions: defaultdict[str, list[Transition]] = defaultdict(list)
    for series_id, job_id, *transition in session.execute(_NEWEST, {"series": list(names)}):
        jobs[series_id] = job_id
        if transition[0] is not None:  # of a run that has any
            transitions[series_id].append(Transition(*transition))
    return [Run(one, name, jobs.get(one), transitions[one]) for one, name in names.items()]


Losses = tuple[float | None, float | None]

_LOSSES = text(
    """
    WITH measured AS (
        SELECT r.job_id, c.step, cast(r.quantities -> 'loss' ->> 'value' AS float8) AS loss
        FROM results r JOIN checkpoints c ON c.id = r.checkpoint_id
        WHERE r.job_id = ANY(:jobs) AND r.measure = 'loss' AND r.quantities -> 'loss' ->> 'value' IS NOT NULL
    ), curve AS (
        SELECT job_id, step, loss, lead(step) OVER by_step AS next_step, lead(loss) OVER by_step AS next_loss
        FROM measured WINDOW by_step AS (PARTITION BY job_id ORDER BY step)
    )
    SELECT s.id, ends.which, ends.step, curve.step, curve.loss, curve.next_step, curve.next_loss
    FROM stages s CROSS JOIN LATERAL (VALUES (0, s.from_step), (1, s.to_step)) ends (which, step)
    JOIN curve ON curve.job_id = s.job_id AND (ends.step = curve.step
                                               OR ends.step > curve.step AND ends.step < curve.next_step)
    WHERE s.job_id = ANY(:jobs) AND s.kind = 'transition'
    """
)


def losses(session: Session, of: Sequence[Run]) -> dict[str, Losses]:
    """The loss where each transition starts and where it ends, by its id: as the same job measured it at the
    checkpoints before and after, between them on a straight line over log(step + 1). None where it lacks one of them.
    """
    ends: defaultdict[str, list[float | None]] = defaultdict(lambda: [None, None])
    for stage_id, which, *where in session.execute(_LOSSES, {"jobs": [run.job_id for run in of if run.job_id]}):
        ends[stage_id][which] = _between(*where)
    return {stage_id: (start, stop) for stage_id, (start, stop) in ends.items()}


def _between(at: int, step: int, loss: float, next_step: int | None, next_loss: float | None) -> float:
    if next_step is None or next_loss is None or at == step:
        return loss
    share = math.log((at + 1) / (step + 1)) / math.log((next_step + 1) / (step + 1))
    return loss + share * (next_loss - loss)
