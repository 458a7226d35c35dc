"""Every family against torch's own modules with the same weights; in nested vmap; differentiated twice."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from torch import Tensor, nn
from torch.func import vmap
from torch.nn import functional

from llc.data import describe
from llc.ensemble import HessianOperator
from llc.errors import InputError
from llc.models import MLP, MODEL_SPEC, DeepLinear, Embeddings, Model, ToyModelOfSuperposition, Transformer
from llc.objective import Batch, ModelObjective

N = 24
GENERATOR = np.random.default_rng(0)
VECTORS = GENERATOR.standard_normal((N, 3))
LABELS = GENERATOR.integers(0, 4, N)
TOKENS = GENERATOR.integers(0, 11, (N, 5))
FEATURES = GENERATOR.uniform(size=(N, 6))


class Perceptron(nn.Module):
    """Linear layers with an activation in between."""

    def __init__(self, widths: tuple[int, ...], activation: Callable[[Tensor], Tensor], bias: bool = True) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(into, out, bias=bias) for into, out in pairwise(widths))
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        *hidden, last = self.layers
        for layer in hidden:
            x = self.activation(layer(x))
        return last(x)


class EmbeddingPerceptron(Perceptron):
    """A table for each position, summed."""

    def __init__(self, vocabulary: int, positions: int, widths: tuple[int, ...]) -> None:
        super().__init__(widths, functional.gelu)
        self.embeddings = nn.ParameterList(torch.empty(vocabulary, widths[0]) for _ in range(positions))

    def forward(self, x: Tensor) -> Tensor:
        rows = [functional.embedding(x[:, i], table) for i, table in enumerate(self.embeddings)]
        return super().forward(torch.stack(rows).sum(0))


class Superposition(nn.Module):
    """ReLU(Wᵀ W x + b)."""

    def __init__(self, hidden: int, features: int) -> None:
        super().__init__()
        self.W = nn.Parameter(torch.empty(hidden, features))
        self.b = nn.Parameter(torch.empty(features))

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(functional.linear(functional.linear(x, self.W), self.W.T, self.b))


class Attention(nn.Module):
    """A layer without a perceptron."""

    def __init__(self, d: int, heads: int, layer_norm: bool) -> None:
        super().__init__()
        self.self_attn = nn.MultiheadAttention(d, heads, batch_first=True)
        self.norm1 = nn.LayerNorm(d) if layer_norm else nn.Identity()

    def forward(self, h: Tensor, src_mask: Tensor) -> Tensor:
        q = self.norm1(h)
        return h + self.self_attn(q, q, q, attn_mask=src_mask)[0]


class Decoder(nn.Module):
    """Layers made causal by a mask, between embeddings and the unembedding."""

    def __init__(self, vocabulary: int, context: int, layers: list[nn.Module], d: int, layer_norm: bool = True) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(vocabulary, d)
        self.position_embedding = nn.Embedding(context, d)
        self.layers = nn.ModuleList(layers)
        self.norm = nn.LayerNorm(d) if layer_norm else nn.Identity()
        self.unembedding = nn.Linear(d, vocabulary, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        h = self.token_embedding(x) + self.position_embedding.weight
        for layer in self.layers:
            h = layer(h, src_mask=nn.Transformer.generate_square_subsequent_mask(x.shape[1], dtype=h.dtype))
        return self.unembedding(self.norm(h))


def full_layers(d: int, heads: int, d_mlp: int, activation: str, count: int) -> list[nn.Module]:
    """torch's own layers."""
    return [
        nn.TransformerEncoderLayer(d, heads, d_mlp, 0.0, activation, batch_first=True, norm_first=True)
        for _ in range(count)
    ]


def next_token(outputs: Tensor, batch: Batch) -> Tensor:
    x = batch["x"]
    return torch.stack([functional.cross_entropy(o[:-1], tokens[1:]) for o, tokens in zip(outputs, x, strict=True)])


def label(outputs: Tensor, batch: Batch) -> Tensor:
    return functional.cross_entropy(outputs, batch["y"], reduction="none")


def last_label(outputs: Tensor, batch: Batch) -> Tensor:
    return label(outputs[:, -1], batch)


def half_squares(outputs: Tensor, batch: Batch) -> Tensor:
    return 0.5 * ((outputs - batch["y"]) ** 2).sum(1)


def reconstruction(outputs: Tensor, batch: Batch) -> Tensor:
    return 0.5 * ((outputs - batch["x"]) ** 2).sum(1)


class InDouble(ModelObjective):
    """A model's objective in double precision, where a finite difference has digits."""

    def batch(self, indices: Tensor) -> Batch:
        return {name: a.double() if a.is_floating_point() else a for name, a in super().batch(indices).items()}


@dataclass(frozen=True)
class Case:
    """A model, its independent twin, the data and the twin's loss."""

    name: str
    model: Model[Any]
    twin: Callable[[], nn.Module]
    arrays: dict[str, NDArray[Any]]
    loss: Callable[[Tensor, Batch], Tensor]

    @property
    def objective(self) -> ModelObjective:
        return InDouble(self.model, self.arrays)

    def point(self, seed: int = 0) -> Tensor:
        """Parameters w (d,), none of them 0 or 1 as layer norms and biases are at first."""
        generator = torch.Generator().manual_seed(seed)
        return 0.7 * torch.randn(self.model.layout().num_parameters, generator=generator, dtype=torch.float64)


TRANSFORMER = {"vocabulary_size": 11, "context_length": 5, "d_model": 8, "num_layers": 2, "num_heads": 2}


def transformer(**fields: Any) -> Transformer:
    return Transformer.model_validate(TRANSFORMER | fields)


CASES = [
    Case(
        "mlp",
        MLP(widths=(3, 6, 5, 4)),
        lambda: Perceptron((3, 6, 5, 4), functional.relu),
        {"x": VECTORS, "y": LABELS},
        label,
    ),
    Case(
        "mlp of tokens",
        MLP(widths=(6, 7, 4), activation="gelu", embeddings=Embeddings(vocabulary_size=11, num_positions=5)),
        lambda: EmbeddingPerceptron(11, 5, (6, 7, 4)),
        {"x": TOKENS, "y": LABELS},
        label,
    ),
    Case(
        "deep linear",
        DeepLinear(widths=(3, 4, 6)),
        lambda: Perceptron((3, 4, 6), lambda h: h, bias=False),
        {"x": VECTORS, "y": FEATURES},
        half_squares,
    ),
    Case("tms", ToyModelOfSuperposition(num_features=6), lambda: Superposition(2, 6), {"x": FEATURES}, reconstruction),
    Case(
        "transformer",
        transformer(d_mlp=16),
        lambda: Decoder(11, 5, full_layers(8, 2, 16, "gelu", 2), 8),
        {"x": TOKENS},
        next_token,
    ),
    Case(
        "classifying transformer",
        transformer(d_mlp=12, activation="relu", loss="cross_entropy"),
        lambda: Decoder(11, 5, full_layers(8, 2, 12, "relu", 2), 8),
        {"x": TOKENS, "y": LABELS},
        last_label,
    ),
    Case(
        "attention-only transformer",
        transformer(d_mlp=0),
        lambda: Decoder(11, 5, [Attention(8, 2, True) for _ in range(2)], 8),
        {"x": TOKENS},
        next_token,
    ),
    Case(
        "transformer without layer norms",
        transformer(d_mlp=0, layer_norm=False),
        lambda: Decoder(11, 5, [Attention(8, 2, False) for _ in range(2)], 8, layer_norm=False),
        {"x": TOKENS},
        next_token,
    ),
]

each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


@each_case
def test_a_model_is_its_twin_in_torch(case: Case) -> None:
    w = case.point().requires_grad_()
    objective = case.objective
    batch = objective.batch(torch.arange(N))
    losses = objective.per_sample_loss(w, batch)
    (gradient,) = torch.autograd.grad(losses.mean(), w)

    twin = case.twin().double()
    parameters = case.model.layout().unflatten(w.detach())
    twin.load_state_dict(parameters)  # strict: the names and shapes are torch's
    outputs = twin(batch["x"])
    expected = case.loss(outputs, batch)
    expected.mean().backward()
    assert losses.shape == (N,)
    torch.testing.assert_close(losses, expected)
    torch.testing.assert_close(
        case.model.layout().unflatten(gradient), {n: twin.get_parameter(n).grad for n in parameters}
    )
    if outputs.ndim == 3 and case.loss is last_label:
        outputs = outputs[:, -1]
    assert outputs.shape[-1] == case.model.num_outputs
    torch.testing.assert_close(case.model.forward(parameters, batch["x"]), outputs)


@each_case
def test_rows_are_independent(case: Case) -> None:
    objective = case.objective
    w = torch.stack([torch.stack([case.point(10 * chain + row) for row in range(3)]) for chain in range(2)])
    batch = objective.batch(torch.arange(14).reshape(2, 7))  # each chain its own minibatch, shared by its rows
    w.requires_grad_()
    losses = vmap(vmap(objective.per_sample_loss, in_dims=(0, None)))(w, batch)
    (gradients,) = torch.autograd.grad(losses.mean(-1).sum(), w)
    for chain in range(2):
        one_batch = {name: array[chain] for name, array in batch.items()}
        for row in range(3):
            one = w[chain, row].detach().requires_grad_()
            expected = objective.per_sample_loss(one, one_batch)
            torch.testing.assert_close(losses[chain, row], expected)
            torch.testing.assert_close(gradients[chain, row], torch.autograd.grad(expected.mean(), one)[0])


@each_case
def test_a_hessian_product_is_a_difference_of_gradients(case: Case) -> None:
    objective = case.objective
    batch = objective.batch(torch.arange(N))

    def gradient(w: Tensor) -> Tensor:
        w = w.clone().requires_grad_()
        return torch.autograd.grad(objective.per_sample_loss(w, batch).mean(), w)[0]

    w, v, step = case.point(), case.point(1), 1e-6
    difference = (gradient(w + step * v) - gradient(w - step * v)) / (2 * step)
    assert difference.norm() > 0.1
    torch.testing.assert_close(HessianOperator(objective, w, N)(v), difference, rtol=1e-5, atol=1e-7)


def test_a_transformer_sees_no_later_token() -> None:
    model = transformer(d_mlp=16)
    generator = torch.Generator().manual_seed(0)
    parameters = model.layout().unflatten(torch.randn(model.layout().num_parameters, generator=generator))
    x = torch.from_numpy(TOKENS)
    changed = x.clone()
    changed[:, 3] = (changed[:, 3] + 1) % 11
    before, after = model.forward(parameters, x), model.forward(parameters, changed)
    torch.testing.assert_close(before[:, :3], after[:, :3], rtol=0, atol=0)
    assert (before - after)[:, 3:].abs().amin() > 0


@each_case
def test_a_model_survives_json(case: Case) -> None:
    assert MODEL_SPEC.validate_json(case.model.model_dump_json()) == case.model


@each_case
def test_good_data_are_taken(case: Case) -> None:
    case.model.check_data(describe(case.arrays))


TMS = {"family": "tms", "num_features": 6}
LANGUAGE_MODEL = {"family": "transformer", **TRANSFORMER, "d_mlp": 0}


@pytest.mark.parametrize(
    ("spec", "arrays", "code", "names"),
    [
        (TMS, {"x": VECTORS}, "wrong_inputs", "(n, 6)"),
        (TMS, {"x": TOKENS}, "wrong_inputs", "int64"),
        (TMS, {"x": np.full((2, 6), np.nan)}, "not_finite", "'x'"),
        (TMS, {"y": FEATURES}, "missing_array", "'x'"),
        (LANGUAGE_MODEL, {"x": TOKENS[:, :4]}, "wrong_inputs", "(n, 5)"),
        (LANGUAGE_MODEL, {"x": TOKENS.astype(np.float32)}, "wrong_inputs", "float32"),
        (LANGUAGE_MODEL, {"x": TOKENS + 1}, "tokens_out_of_range", "0 to 10"),
        (LANGUAGE_MODEL, {"y": LABELS}, "missing_array", "'x'"),
        (LANGUAGE_MODEL | {"loss": "cross_entropy"}, {"x": TOKENS}, "missing_array", "'y'"),
        (LANGUAGE_MODEL | {"loss": "cross_entropy"}, {"x": TOKENS, "y": LABELS + 8}, "labels_out_of_range", "11"),
        (LANGUAGE_MODEL | {"loss": "cross_entropy"}, {"x": TOKENS, "y": TOKENS}, "wrong_targets", "(n,)"),
    ],
)
def test_wrong_data_is_named(spec: dict[str, Any], arrays: dict[str, NDArray[Any]], code: str, names: str) -> None:
    with pytest.raises(InputError) as refusal:
        MODEL_SPEC.validate_python(spec).check_data(describe(arrays))
    assert refusal.value.code == code
    assert names in refusal.value.detail


@pytest.mark.parametrize(
    ("spec", "names"),
    [
        (LANGUAGE_MODEL | {"num_heads": 3}, "no multiple of num_heads 3"),
        (LANGUAGE_MODEL | {"context_length": 1}, "context_length"),
        (LANGUAGE_MODEL | {"loss": "mse"}, "next_token_cross_entropy"),
        (TMS | {"loss": "cross_entropy"}, "gaussian_nll"),
        ({"family": "mlp", "widths": [3, 4], "loss": "next_token_cross_entropy"}, "'mse'"),
    ],
)
def test_a_spec_that_makes_no_sense_is_named(spec: dict[str, Any], names: str) -> None:
    with pytest.raises(ValidationError, match=names):
        MODEL_SPEC.validate_python(spec)


def test_describing_models_needs_no_torch() -> None:
    script = "import sys, llc.models; assert llc.models.MODEL_SPEC.json_schema(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
