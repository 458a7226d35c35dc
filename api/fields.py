"""Types that requests and responses share."""

import math
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    StringConstraints,
    TypeAdapter,
)

MAX_STEP = 2**62


def _no_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("the character NUL can't be stored")
    return text


def scalar(value: Any) -> str | int | float | bool | None:
    """A tag's value. One message for what is none, where a union of types gives one for each. Raises: ValueError."""
    match value:
        case str():
            return _TEXT.validate_python(value)
        case bool() | None:
            return value
        case int() if -(2**63) <= value < 2**63:
            return value
        case float() if math.isfinite(value):
            return value
    raise ValueError("expected a string, a finite number, true, false or null")


def _as_given(tags: dict[str, Any]) -> dict[str, Any]:
    """PostgreSQL keeps 1e30 as the whole number, which is larger than a tag's whole numbers may be: a float it was."""
    return {
        name: float(value) if type(value) is int and not -(2**63) <= value < 2**63 else value
        for name, value in tags.items()
    }


def _utc(time: datetime) -> datetime:
    return time.astimezone(UTC)


Name = Annotated[str, StringConstraints(min_length=1, max_length=200), AfterValidator(_no_nul)]
Text = Annotated[str, StringConstraints(max_length=2000), AfterValidator(_no_nul)]
_TEXT: TypeAdapter[str] = TypeAdapter(Text)
Id = Annotated[str, StringConstraints(max_length=100)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Step = Annotated[int, Field(ge=0, lt=MAX_STEP, strict=True)]
Number = Annotated[float, Field(allow_inf_nan=False, strict=True)]
Scalar = Annotated[Any, PlainValidator(scalar, json_schema_input_type=str | float | bool | None)]
Tags = Annotated[dict[Name, Scalar], Field(max_length=64)]
KeptTags = Annotated[Tags, BeforeValidator(_as_given)]
"""As they come from the database."""
Metrics = Annotated[dict[Name, Number], Field(max_length=256)]
Timestamp = Annotated[AwareDatetime, AfterValidator(_utc)]


class Body(BaseModel):
    """A request's body: unknown keys are refused."""

    model_config = ConfigDict(extra="forbid")


class Estimate(BaseModel):
    """A number and its standard error; null where there is no finite one."""

    value: float | None
    std_error: float | None
