"""What series have in common, as the server answers: GET /v1/alignment."""

from typing import Literal

from lambdahat.objects import Object, Quantity


class Spread(Object):
    """Of a number over runs: its median, and low … high, which hold 90 %."""

    median: float
    low: float
    high: float


class CommonTransition(Object):
    """A transition that at least half of the runs have. `support`: how many; `type`: of more than half of them.

    spread: robust standard deviation of its middle, of log(step + 1) and tempo apart, or of the loss where that is the
    axis. Errors of the changes are of their means, from how runs differ.
    """

    support: int
    direction: Literal["rise", "fall"]
    type: Literal["A", "B"] | None
    types: dict[str, int]
    from_step: Spread
    to_step: Spread
    from_loss: Spread | None = None
    to_loss: Spread | None = None
    spread: float | None
    delta_llc: Quantity
    delta_loss: Quantity | None


class AlignedTransition(Object):
    """A transition of an aligned run. Losses: at its ends, where they are the axis."""

    id: str
    type: Literal["A", "B"] | None
    from_step: int
    to_step: int
    from_loss: float | None = None
    to_loss: float | None = None
    delta_llc: Quantity
    delta_loss: Quantity


class Far(Object):
    """A match that is not where, or not as large as, in other runs: by a factor; in a loss, by a difference."""

    transition: int
    common: int
    what: Literal["early", "late", "small", "large"]
    by: float
    z: float


class Reversed(Object):
    """A transition that goes the other way where others have a common one."""

    transition: int
    common: int


class AlignedRun(Object):
    """A series beside what all have in common. Numbers are of `transitions`, or of the common ones, from 0.

    matched: for each common transition the run's own, None where it is missing; tempo: it takes so many times as long
    as the usual run; differences: how many; reasons: each in words.
    """

    series: str
    series_name: str
    job: str
    transitions: list[AlignedTransition]
    matched: list[int | None]
    missing: list[int]
    extra: list[int]
    reversed: list[Reversed]
    far: list[Far]
    tempo: float | None
    differences: float
    verdict: Literal["ok", "outlier"]
    reasons: list[str]


class Alignment(Object):
    """What series have in common, and how each differs. No runs are series whose stages no job has read
    (`without_stages`) and, where the axis is the loss, those of which it isn't known (`without_loss`).
    """

    axis: Literal["step", "loss"]
    common: list[CommonTransition]
    runs: list[AlignedRun]
    without_stages: list[str]
    without_loss: list[str]

    @property
    def outliers(self) -> list[AlignedRun]:
        """The runs that differ in more than chance would have it."""
        return [run for run in self.runs if run.verdict == "outlier"]
