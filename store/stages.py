"""Transitions over all series of a lab: of each series, those of the newest job that has read its stages."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from sqlalchemy import ColumnElement, exists, func, or_, select, tuple_
from sqlalchemy.orm import Session, aliased

from store.tables import Model, Series, Stage

TransitionType = Literal["A", "B", "neither"]
Asked = Sequence[Mapping[str, Any]]
"""A tag that is asked for: {name: value}, or what else may be meant."""

PROBABILITIES: Mapping[TransitionType, ColumnElement[float | None]] = {
    "A": Stage.probability_a.expression,
    "B": Stage.probability_b.expression,
    "neither": Stage.probability_neither.expression,
}


@dataclass(frozen=True)
class Wanted:
    """Which transitions; None asks for nothing.

    type: the type they have, or, with min_probability, the type that is so likely; min_probability alone: of the
    likelier of A and B. from_step, to_step: they reach into these. min_delta_llc: |ΔLLC|. min_survival: in an ensemble.
    tags: their series has one of each of these. family: of the model.
    """

    type: TransitionType | None = None
    min_probability: float | None = None
    from_step: int | None = None
    to_step: int | None = None
    min_delta_llc: float | None = None
    min_survival: float | None = None
    family: str | None = None
    tags: Sequence[Asked] = ()


class Found(NamedTuple):
    """A transition and where it is."""

    stage: Stage
    series_name: str
    family: str


Place = tuple[str, int]
"""Of a transition in the order of all: its job and ordinal, which it keeps when its job's stages are read again."""


def transitions(session: Session, tenant_id: str, wanted: Wanted, after: Place | None, limit: int) -> list[Found]:
    """At most `limit` transitions, newest first, that are older than the place `after`.

    Rare ones are found by an index, others from the newest on: PostgreSQL chooses, and has statistics (migration 0018)
    of the expressions that are asked for.
    """
    later = aliased(Stage)
    is_superseded = exists().where(later.series_id == Stage.series_id, later.job_id > Stage.job_id)
    query = (
        select(Stage, Series.name, Model.spec["family"].astext)
        .join(Series, Series.id == Stage.series_id)
        .join(Model, Model.id == Series.model_id)
        .where(Stage.tenant_id == tenant_id, Stage.kind == "transition", ~is_superseded, *_conditions(wanted))
        .order_by(Stage.job_id.desc(), Stage.ordinal.desc())
        .limit(limit)
    )
    rows = session.execute(query if after is None else query.where(tuple_(Stage.job_id, Stage.ordinal) < after))
    return [Found(*row) for row in rows]


def has_tags(tags: Sequence[Asked]) -> list[ColumnElement[bool]]:
    """That a series has all of these tags."""
    return [or_(*(Series.tags.contains(tag) for tag in asked)) for asked in tags]


def _conditions(wanted: Wanted) -> list[ColumnElement[bool]]:
    found = has_tags(wanted.tags)
    if wanted.family is not None:
        found.append(Model.spec["family"].astext == wanted.family)
    if wanted.min_probability is not None:
        likely = PROBABILITIES[wanted.type] if wanted.type else func.greatest(Stage.probability_a, Stage.probability_b)
        found.append(likely >= wanted.min_probability)
    elif wanted.type is not None:
        found.append(Stage.type.is_(None) if wanted.type == "neither" else Stage.type == wanted.type)
    if wanted.from_step is not None:
        found.append(Stage.to_step >= wanted.from_step)
    if wanted.to_step is not None:
        found.append(Stage.from_step <= wanted.to_step)
    if wanted.min_survival is not None:
        found.append(Stage.survival >= wanted.min_survival)
    if wanted.min_delta_llc is not None:
        found.append(func.abs(Stage.delta_llc) >= wanted.min_delta_llc)
    return found
