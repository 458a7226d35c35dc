"""Whether two readings speak of the same transition: of a curve that has gone on, or of one measured in another way.

They do if the LLC goes the same way in both, and each has the other's middle within its ends, intervals included. The
middle is that of log(step + 1), as stages are drawn.
"""

import math
from collections.abc import Mapping
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

    def is_same(self, other: "Extent") -> bool:
        """Whether the two are one transition."""
        return self.rises == other.rises and self._has(other) and other._has(self)

    def _has(self, other: "Extent") -> bool:
        middle = math.sqrt((other.from_step + 1) * (other.to_step + 1)) - 1
        return self.low <= middle <= self.high
