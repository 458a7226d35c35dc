"""What may be a model. Each family is one file: a spec (data, never code), its layout, its forward pass and the data
that fit it.

Torch-free: the forward passes use tensor methods only.
"""

from typing import Annotated

from pydantic import Field, TypeAdapter

from llc.models.base import Model
from llc.models.deep_linear import DeepLinear
from llc.models.mlp import MLP, Embeddings
from llc.models.tms import ToyModelOfSuperposition
from llc.models.transformer import Transformer

ModelSpec = Annotated[MLP | DeepLinear | Transformer | ToyModelOfSuperposition, Field(discriminator="family")]
"""Any model, told apart by its `family`."""

MODEL_SPEC: TypeAdapter[MLP | DeepLinear | Transformer | ToyModelOfSuperposition] = TypeAdapter(ModelSpec)
"""Reads a model from JSON."""

__all__ = [
    "MLP",
    "MODEL_SPEC",
    "DeepLinear",
    "Embeddings",
    "Model",
    "ModelSpec",
    "ToyModelOfSuperposition",
    "Transformer",
]
