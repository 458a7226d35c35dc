"""Which transitions of a job are certain, told once each.

A transition is certain when it has a type, which its job's settings ask a probability for, and lies behind: training
has gone on past the 90 % interval of its end, to another stage. It is withdrawn if a later reading, of a curve that has
gone on, has no such transition any more.

Every function runs inside the caller's transaction, with the job's row locked.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from llc.same import pairs
from store.jobs import event
from store.results import stages
from store.tables import Event, Stage

CERTAIN, WITHDRAWN = "transition.certain", "transition.withdrawn"

_TOLD = (
    *("type", "from_step", "from_step_low", "from_step_high", "to_step", "to_step_low", "to_step_high"),
    *("probability_a", "probability_b", "probability_neither"),
    *("delta_llc", "delta_llc_std_error", "delta_loss", "delta_loss_std_error"),
)

Transition = Mapping[str, Any]


def tell(session: Session, job_id: str) -> None:
    """Compare what was told of a job with its newest reading, and say what has changed."""
    told = told_so_far(
        session.execute(
            select(Event.kind, Event.data)
            .where(Event.job_id == job_id, Event.kind.in_((CERTAIN, WITHDRAWN)))
            .order_by(Event.id)
        ).all()
    )
    now = certain(stages(session, job_id))
    same = pairs(told, now)
    for number, transition in enumerate(told):
        if number not in same:
            event(session, job_id, WITHDRAWN, dict(transition))
    for number, transition in enumerate(now):
        if number not in same.values():
            event(session, job_id, CERTAIN, dict(transition))


def told_so_far(events: Iterable[Sequence[Any]]) -> list[Transition]:
    """What stands of these events, (kind, transition) each. What is withdrawn is named as it was told."""
    told: list[Transition] = []
    for kind, transition in events:
        if kind == CERTAIN:
            told.append(transition)
        elif transition in told:
            told.remove(transition)
    return told


def certain(found: Sequence[Stage]) -> list[Transition]:
    """Of a job's stages, in order, the transitions that are certain."""
    return [
        {name: getattr(stage, name) for name in _TOLD}
        for stage in found
        if stage.type is not None
        and stage.delta_llc is not None
        and stage.to_step_high is not None
        and stage.to_step_high < found[-1].to_step
    ]
