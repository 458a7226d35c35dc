"""What every family of models is."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Generic, Literal, TypeVar

from pydantic import Field

from llc.data import ArrayInfo
from llc.errors import InputError
from llc.layout import MAX_PARAMETERS, Layout
from llc.losses import LossName
from llc.settings import Frozen

if TYPE_CHECKING:
    from torch import Tensor


Loss = TypeVar("Loss", bound=LossName)


class Model(Frozen, ABC, Generic[Loss]):
    """A model described by data: a function of named parameters and inputs 'x', with one of the losses that its outputs
    can have, against the array `targets`.
    """

    kind: Literal["builtin"] = "builtin"
    loss: Loss = Field(description="Per-sample loss of the outputs against the targets.")

    @abstractmethod
    def layout(self) -> Layout:
        """Names and shapes of the parameters."""

    @abstractmethod
    def forward(self, params: "Mapping[str, Tensor]", x: "Tensor") -> "Tensor":
        """Outputs (batch, num_outputs), or (batch, positions, num_outputs) for the losses of sequences, of inputs
        (batch, ...), in operations that `torch.func.vmap` can batch.
        """

    @property
    @abstractmethod
    def num_outputs(self) -> int:
        """Length of an output."""

    @property
    def targets(self) -> Literal["x", "y"]:
        """The array that the loss holds the outputs against: 'y', or 'x' where a sample is its own target."""
        return "y"

    @abstractmethod
    def check_inputs(self, x: ArrayInfo) -> None:
        """Refuse inputs that the model can't take. Raises: InputError."""

    def check_data(self, arrays: Mapping[str, ArrayInfo]) -> None:
        """Refuse a data set that this model and its loss can't be evaluated on. Raises: InputError."""
        for name in dict.fromkeys(("x", self.targets)):
            if name not in arrays:
                raise InputError(
                    "missing_array",
                    f"the data set has no array '{name}'; it has: {', '.join(arrays)}",
                    "inputs are called 'x', targets 'y'",
                )
            if not arrays[name].finite:
                raise InputError("not_finite", f"the data set's '{name}' has values that are NaN or infinite", "")
        self.check_inputs(arrays["x"])
        if self.targets == "y":
            self._check_targets(arrays["y"])

    def check_size(self) -> None:
        """Refuse a model too large to have a flat vector. Raises: InputError."""
        d = self.layout().num_parameters
        if d > MAX_PARAMETERS:
            raise InputError("model_too_large", f"the model has {d} parameters; {MAX_PARAMETERS} are allowed", "")

    def _check_targets(self, y: ArrayInfo) -> None:
        if self.loss == "cross_entropy":
            if len(y.shape) != 1 or not y.is_integer:
                raise InputError(
                    "wrong_targets",
                    f"cross_entropy takes class indices: integers of shape (n,); 'y' is {y.dtype} {list(y.shape)}",
                    "store labels as int64; for real-valued targets choose loss 'mse' or 'gaussian_nll'",
                )
            check_range("y", y, self.num_outputs, "labels_out_of_range", "the model's outputs")
        elif y.shape[1:] != (self.num_outputs,) or not y.dtype.startswith("float"):
            raise InputError(
                "wrong_targets",
                f"{self.loss} takes targets of shape (n, {self.num_outputs}), floating point; "
                f"'y' is {y.dtype} {list(y.shape)}",
                "",
            )


def check_range(name: str, array: ArrayInfo, size: int, code: str, of: str) -> None:
    """Refuse indices outside 0 … size − 1. Raises: InputError."""
    low, high = array.min or 0.0, array.max or 0.0
    if low < 0 or high >= size:
        raise InputError(
            code,
            f"'{name}' has values from {int(low)} to {int(high)}; {of} allow 0 to {size - 1}",
            "check the data set, or the model's sizes",
        )


def check_real_inputs(x: ArrayInfo, width: int) -> None:
    """Refuse inputs that are not (n, width) of floating point. Raises: InputError."""
    if x.shape[1:] != (width,) or not x.dtype.startswith("float"):
        raise InputError(
            "wrong_inputs",
            f"the model takes inputs of shape (n, {width}), floating point; 'x' is {x.dtype} {list(x.shape)}",
            "check the model's sizes",
        )


def check_tokens(x: ArrayInfo, positions: int, vocabulary_size: int) -> None:
    """Refuse inputs that are not (n, positions) of tokens 0 … vocabulary_size − 1. Raises: InputError."""
    if x.shape[1:] != (positions,) or not x.is_integer:
        raise InputError(
            "wrong_inputs",
            f"the model takes tokens, integers of shape (n, {positions}); 'x' is {x.dtype} {list(x.shape)}",
            "check the model's sizes",
        )
    check_range("x", x, vocabulary_size, "tokens_out_of_range", "the embeddings")
