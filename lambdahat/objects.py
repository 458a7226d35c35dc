"""What the server answers, as typed objects. Fields that a newer server adds are kept, not refused."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

JobState = Literal["queued", "running", "succeeded", "failed", "cancelled"]


class Object(BaseModel):
    """Anything the server answers."""

    model_config = ConfigDict(extra="allow", frozen=True)


class Resource(Object):
    """Something with an id."""

    id: str


class Named(Object):
    """An id and a name."""

    id: str
    name: str


class Key(Named):
    """The API key of a request."""

    scopes: list[str]


class Identity(Object):
    """Who a key speaks for."""

    tenant: Named
    key: Key


class Dataset(Resource):
    """Named arrays of `num_samples` samples. `arrays`: {name: {dtype, shape, min, max, finite}}."""

    name: str
    blob: str
    num_samples: int
    arrays: dict[str, dict[str, Any]]
    created_at: datetime


class Parameter(Object):
    """A parameter of a model."""

    name: str
    shape: list[int]


class ModelShape(Object):
    """What a checkpoint of a model holds, in order."""

    num_parameters: int
    layout: list[Parameter]


class Model(Resource, ModelShape):
    """A model described by data."""

    name: str
    spec: dict[str, Any]
    created_at: datetime


class Series(Resource):
    """The checkpoints of one training run. `model`, `dataset`: ids; steps are null while it is empty."""

    name: str
    model: str
    dataset: str
    tags: dict[str, Any]
    num_checkpoints: int
    first_step: int | None
    last_step: int | None
    created_at: datetime


class Checkpoint(Resource):
    """A step of training and the SHA-256 of the file with the parameters there.

    source: of the torch file that was posted, if it was one; `blob` is the safetensors file made of it.
    """

    series: str
    step: int
    blob: str
    source: str | None = None
    metrics: dict[str, float | None]
    created_at: datetime


class Progress(Object):
    """How far a job is. done, total: row-steps; rate: of them, per second; shards: how many are in each state."""

    done: int
    total: int
    fraction: float
    shards: dict[str, int]
    rate: float | None = None
    seconds_left: float | None = None


class Job(Resource):
    """Measures and settings applied to a series. `error`: why it failed, else null; `calibration`: how a pilot chose
    the settings of the LLC, else null; `following`: whether it takes in new checkpoints of its series.
    """

    series: str
    state: JobState
    following: bool = False
    settings: dict[str, Any]
    progress: Progress
    plan: dict[str, Any] | None = None
    calibration: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None

    @property
    def is_finished(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.state not in ("queued", "running")


class Quantity(Object):
    """A number and its standard error; null where there is no finite one."""

    value: float | None
    std_error: float | None = None


class CurveQuantity(Quantity):
    """A quantity at a step, with whether to believe it: 'ok', or what is wrong."""

    verdict: str = "ok"


class ResultQuantity(Quantity):
    """A quantity of a result, and whether to believe it: its own verdict, or else the result's."""

    verdict: str = "ok"
    reason: str = ""


class Result(Object):
    """What one measure found at one checkpoint. `draws`: SHA-256 of the file with the draws, if kept."""

    checkpoint: str
    step: int
    measure: str
    quantities: dict[str, ResultQuantity]
    details: dict[str, Any]
    verdict: str
    reason: str
    draws: str | None = None


class CurvePoint(Object):
    """Every quantity at one step, and what training kept there, as far as it was asked for."""

    step: int
    checkpoint: str
    quantities: dict[str, CurveQuantity] = Field(default_factory=dict)
    metrics: dict[str, float] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _gather(cls, data: Any) -> Any:
        """On the wire each quantity stands beside the step."""
        if not isinstance(data, dict) or "quantities" in data:
            return data
        beside = {name: value for name, value in data.items() if name != "metrics"}
        quantities = {name: value for name, value in beside.items() if isinstance(value, dict) and "value" in value}
        rest = {name: value for name, value in data.items() if name not in quantities}
        return {**rest, "quantities": quantities}


class Curve(Object):
    """Quantities over the steps of a series, by step ascending. `job` is null while nothing has been measured."""

    series: str
    job: str | None
    quantities: list[str]
    points: list[CurvePoint]

    def column(self, quantity: str) -> list[tuple[int, CurveQuantity]]:
        """(step, value) wherever this quantity was measured, also where no finite number came of it; metrics.m: of the
        metric m.
        """
        source, _, metric = quantity.partition(".")
        if source == "metrics":
            there = [(point.step, point.metrics[metric]) for point in self.points if metric in point.metrics]
            return [(step, CurveQuantity(value=value)) for step, value in there]
        return [(point.step, point.quantities[quantity]) for point in self.points if quantity in point.quantities]


class Stage(Object):
    """A stretch of training: a plateau of the LLC, or a transition between two.

    type: 'A' (the loss falls, the LLC rises), 'B' (the LLC falls, the loss changes only slightly) or null (neither, or
    not sure). …_low, …_high: 90 % intervals of both ends; probabilities: of a transition's types; survival: the share
    of an ensemble's members that have the transition, too.
    """

    id: str
    type: Literal["A", "B"] | None
    from_step: int
    from_step_low: int | None = None
    from_step_high: int | None = None
    to_step: int
    to_step_low: int | None = None
    to_step_high: int | None = None
    probability_a: float | None = None
    probability_b: float | None = None
    probability_neither: float | None = None
    delta_loss: Quantity
    delta_llc: Quantity
    survival: float | None = None
    details: dict[str, Any]
    kind: Literal["transition", "plateau"] = "transition"

    @property
    def probability(self) -> float | None:
        """Of its type; of neither A nor B, where it has none."""
        return {"A": self.probability_a, "B": self.probability_b, None: self.probability_neither}[self.type]


class Change(Object):
    """Of one curve over a transition. share: of its range over the run; z: in standard errors; changes: more than
    noise, and a share that counts. None where it is not known on both sides.
    """

    name: str
    source: Literal["measure", "metric"]
    change: Quantity
    share: float | None
    z: float | None
    changes: bool | None


class Evidence(Object):
    """A transition, and what each curve of the run does there."""

    transition: Stage
    curves: list[Change]


class Transition(Stage):
    """A transition among those of all series, and where it is."""

    series: str
    series_name: str
    family: str
    job: str


class Phase(Object):
    """What was measured at a checkpoint that is compared, whose step stands twice, or over a plateau."""

    stage: str | None
    from_step: int
    to_step: int
    loss: CurveQuantity
    llc: CurveQuantity


class Comparison(Object):
    """n ΔL against Δλ log n, from a first checkpoint to a second: which of the two a posterior on n samples prefers.

    critical_n: from here on `preferred_beyond`, the phase of the lower loss; None where it is the same at every n.
    critical_n_low … critical_n_high hold 90 %: from 1, at every n; high None: without bound.
    """

    series: str
    job: str
    first: Phase
    second: Phase
    n: int
    loss_term: float
    loss_term_std_error: float
    complexity_term: float
    complexity_term_std_error: float
    delta_free_energy: float
    delta_free_energy_std_error: float
    preferred: Literal["first", "second"]
    probability_second: float
    driven_by: Literal["loss", "complexity", "both"]
    predicted_type: Literal["A", "B"] | None
    critical_n: float | None
    critical_n_low: float | None
    critical_n_high: float | None
    preferred_beyond: Literal["first", "second"] | None
    probability_critical: float
    relative_llc: float | None
    caveat: str


class Event(Object):
    """What happened to a job."""

    id: int
    kind: str
    data: dict[str, Any]
    created_at: datetime


class Use(Object):
    """How much there is of something. limit: None where there is none."""

    used: int
    limit: int | None


class Webhook(Resource):
    """An address that is told of events. `disabled_reason`: 'asked', 'gone' or 'failing'; null while it is enabled."""

    url: str
    events: list[str]
    description: str
    disabled_at: datetime | None = None
    disabled_reason: str | None = None
    last_delivered_at: datetime | None = None
    paused_until: datetime | None = None
    previous_secret_until: datetime | None = None
    created_at: datetime


class MadeWebhook(Webhook):
    """A webhook with its secret, which is shown when it is made and not again."""

    secret: str = Field(repr=False)


class Delivery(Resource):
    """Something that a webhook is told; `id` is the header `webhook-id`. Times are null until they come, or after."""

    event: str
    state: Literal["pending", "delivered", "failed"]
    attempts: int
    last_status: int | None = None
    last_error: str | None = None
    last_attempt_at: datetime | None = None
    next_attempt_at: datetime | None = None
    created_at: datetime
    ended_at: datetime | None = None
