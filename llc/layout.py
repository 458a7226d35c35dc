"""Where each named parameter lies in a flat vector w of d numbers."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llc.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

MAX_PARAMETERS = 2_000_000_000


@dataclass(frozen=True)
class Layout:
    """Names and shapes of a model's parameters, in the order in which they lie in the flat vector."""

    shapes: Mapping[str, tuple[int, ...]]

    @property
    def num_parameters(self) -> int:
        """d, the length of the flat vector."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    def blocks(self) -> Iterator[tuple[str, slice, tuple[int, ...]]]:
        """(name, where in the flat vector, shape) of every parameter."""
        start = 0
        for name, shape in self.shapes.items():
            stop = start + math.prod(shape)
            yield name, slice(start, stop), shape
            start = stop

    def unflatten(self, w: "Tensor") -> "dict[str, Tensor]":
        """(d,) → views by name."""
        # One split: the backward pass of a slice for each parameter would write d numbers as often as there are slices.
        parts = w.split([math.prod(shape) for shape in self.shapes.values()])
        return {name: part.view(shape) for (name, shape), part in zip(self.shapes.items(), parts, strict=True)}

    def check(self, shapes: Mapping[str, tuple[int, ...]], what: str = "the checkpoint") -> None:
        """Refuse parameters that are not exactly this layout's. Raises: InputError, naming the first difference."""
        for name, shape in self.shapes.items():
            if name not in shapes:
                raise InputError(
                    "missing_parameter",
                    f"{what} has no parameter '{name}', of shape {list(shape)}",
                    f"it has: {', '.join(sorted(shapes)[:20]) or 'none'}; rename its tensors to the model's layout",
                )
            if tuple(shapes[name]) != tuple(shape):
                raise InputError(
                    "wrong_shape",
                    f"{what}: '{name}' has shape {list(shapes[name])}; the model's is {list(shape)}",
                    "check the model's sizes, or whether the matrix wants a transpose: weights are (out, in)",
                )
        extra = sorted(set(shapes) - set(self.shapes))
        if extra:
            raise InputError(
                "unexpected_parameter",
                f"{what} has a parameter '{extra[0]}' that the model does not",
                f"the model's parameters: {', '.join(self.shapes)}",
            )
