"""How often a transition survives: the stages read again from each member of an ensemble of measurements that might as
well have been made (`llc.members`), and from a share of the checkpoints only.

A transition *survives* in a member whose own reading has it (`llc.same`). The share is for a person to read: it is of
settings that were chosen, not of a distribution that is known.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llc.same import pairs
from llc.settings import StageSettings
from llc.stages import Curve, Stage, read_stages


def kept(member: int, num_checkpoints: int, share: float) -> NDArray[np.bool_]:
    """(num_checkpoints,): which of them a member is read from, the first and the last among them."""
    inner = np.random.default_rng([member, num_checkpoints]).permutation(max(0, num_checkpoints - 2))
    wanted = max(1, round(share * num_checkpoints) - 2)
    return np.concatenate([[True], inner < wanted, [True]])[:num_checkpoints]


def read_with_members(
    curve: Curve,
    members: Sequence[Curve],
    settings: StageSettings,
    keep: float = 1.0,
    report: Callable[[], object] = lambda: None,
) -> list[Stage]:
    """The stages of a curve, with how often each transition survives in its members, at the same checkpoints.

    keep: share of the checkpoints that a member's stages are read from; report: called after every reading.
    """
    stages = read_stages(curve, settings)
    report()
    readings = []
    for number, member in enumerate(members):
        readings.append(read_stages(member.where(kept(number, len(member.step), keep)), settings))
        report()
    if not readings:
        return stages
    whole = [stage for stage in stages if stage.kind == "transition"]
    survived = iter(survivals(whole, readings))
    return [replace(stage, **next(survived)) if stage.kind == "transition" else stage for stage in stages]


def survivals(transitions: Sequence[Stage], readings: Sequence[Sequence[Stage]]) -> list[dict[str, Any]]:
    """What becomes of each transition in the readings of the members: fields of its stage."""
    rows = [asdict(transition) for transition in transitions]
    there: list[list[Stage]] = [[] for _ in transitions]
    for reading in readings:
        others = [stage for stage in reading if stage.kind == "transition"]
        for own, other in pairs(rows, [asdict(stage) for stage in others]).items():
            there[own].append(others[other])
    return [_survival(own, found, len(readings)) for own, found in zip(transitions, there, strict=True)]


def _survival(transition: Stage, there: Sequence[Stage], members: int) -> dict[str, Any]:
    details = {
        "members": members,
        "survived": len(there),
        "survived_with_type": sum(other.type == transition.type for other in there),
        "from_steps": sorted(other.from_step for other in there),
        "to_steps": sorted(other.to_step for other in there),
    }
    return {"survival": len(there) / members, "details": transition.details | {"stability": details}}
