"""Whether two readings speak of the same transition: of a curve that has gone on, or of one measured in another way.

They do if the LLC goes the same way in both, and each has the other's middle within its ends, intervals included. The
middle is that of log(step + 1), as stages are drawn. Where the intervals of neighbours overlap, more than one may fit:
each is the same as one other at most, the nearest first.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self


@dataclass(frozen=True)
class Extent:
    """Where a transition is, in steps, and whether the LLC rises in it. low, high: of its ends' 90 % intervals."""

    rises: bool
    low: float
    from_step: float
    to_step: float
    high: float

    @classmethod
    def of(cls, stage: Mapping[str, Any]) -> Self:
        """Of a stage's fields."""
        ends = (stage[name] for name in ("from_step_low", "from_step", "to_step", "to_step_high"))
        return cls(stage["delta_llc"] > 0, *ends)

    @property
    def middle(self) -> float:
        """log(step + 1) there."""
        return (math.log1p(self.from_step) + math.log1p(self.to_step)) / 2

    def is_same(self, other: "Extent") -> bool:
        """Whether the two may be one transition."""
        return self.rises == other.rises and self._has(other) and other._has(self)

    def _has(self, other: "Extent") -> bool:
        return math.log1p(self.low) <= other.middle <= math.log1p(self.high)


def pairs(ones: Sequence[Mapping[str, Any]], others: Sequence[Mapping[str, Any]]) -> dict[int, int]:
    """Of two readings' transitions, given by a stage's fields, those that are the same: {index: the other's}."""
    left, right = [Extent.of(one) for one in ones], [Extent.of(other) for other in others]
    fits = [(i, j) for i, one in enumerate(left) for j, other in enumerate(right) if one.is_same(other)]
    found: dict[int, int] = {}
    for i, j in sorted(fits, key=lambda pair: abs(left[pair[0]].middle - right[pair[1]].middle)):
        if i not in found and j not in found.values():
            found[i] = j
    return found
