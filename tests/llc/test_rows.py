"""Which parameters patterns leave free, and rows of different settings in one run."""

import pytest
import torch

from llc.errors import InputError
from llc.layout import Layout
from llc.models import Transformer
from llc.patterns import matching
from llc.rows import concatenate, free_mask, rows_of, tensor_scales
from llc.settings import LLCSettings, SGLDSettings

LAYOUT = Layout({"layers.0.weight": (4, 3), "layers.0.bias": (4,), "layers.1.weight": (2, 4), "scale": ()})


def free(*patterns: str) -> dict[str, list]:
    """The mask by name, as nested lists of 0 and 1."""
    return {name: part.int().tolist() for name, part in LAYOUT.unflatten(free_mask(LAYOUT, patterns)).items()}


NOTHING = free_mask(LAYOUT, ["scale"]) & False
NONE = {name: part.int().tolist() for name, part in LAYOUT.unflatten(NOTHING).items()}


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["layers.0.bias"], {"layers.0.bias": [1, 1, 1, 1]}),
        (["scale"], {"scale": 1}),
        (["layers.0.*"], {"layers.0.weight": [[1, 1, 1]] * 4, "layers.0.bias": [1, 1, 1, 1]}),
        (
            ["layers.?.weight[0]"],
            {"layers.0.weight": [[1, 1, 1], *[[0] * 3] * 3], "layers.1.weight": [[1] * 4, [0] * 4]},
        ),
        (["layers.0.weight[1:3, :]"], {"layers.0.weight": [[0] * 3, [1] * 3, [1] * 3, [0] * 3]}),
        (["layers.0.weight[:, -1]"], {"layers.0.weight": [[0, 0, 1]] * 4}),
        (["layers.1.weight[1, 2:]"], {"layers.1.weight": [[0] * 4, [0, 0, 1, 1]]}),
        ([" layers.0.bias [ :1 ] ", "layers.0.bias[3]"], {"layers.0.bias": [1, 0, 0, 1]}),
        (["layers.0.bias[2:100]"], {"layers.0.bias": [0, 0, 1, 1]}),
    ],
)
def test_patterns_choose_parameters(patterns: list[str], expected: dict[str, list]) -> None:
    assert free(*patterns) == NONE | expected


def test_a_head_of_a_transformer_can_be_chosen() -> None:
    model = Transformer(vocabulary_size=5, context_length=4, d_model=8, num_layers=2, num_heads=2, d_mlp=0)
    head = [f"layers.*.self_attn.in_proj_weight[{start}:{start + 4}]" for start in (4, 12, 20)]
    mask = model.layout().unflatten(free_mask(model.layout(), [*head, "layers.*.self_attn.out_proj.weight[:, 4:8]"]))
    assert {name: int(part.sum()) for name, part in mask.items() if part.any()} == {
        f"layers.{i}.self_attn.{name}": size
        for i in (0, 1)
        for name, size in (("in_proj_weight", 96), ("out_proj.weight", 32))
    }
    rows = mask["layers.1.self_attn.in_proj_weight"].all(-1).view(3, 2, 4)  # (q, k, v), head, dimension
    assert rows[:, 1].all()
    assert not rows[:, 0].any()


@pytest.mark.parametrize(
    ("pattern", "code"),
    [
        ("layers.2.*", "no_such_parameter"),
        ("LAYERS.0.bias", "no_such_parameter"),
        (" ", "bad_pattern"),
        ("layers.0.bias[1:2, 3]", "bad_pattern"),
        ("scale[0]", "bad_pattern"),
        ("layers.0.bias[a]", "bad_pattern"),
        ("layers.0.bias[]", "bad_pattern"),
        ("layers.0.bias[0", "bad_pattern"),
        ("layers.0.bias[::2]", "bad_pattern"),
        ("layers.0.bias[1,]", "bad_pattern"),
        ("layers.0.bias[4]", "bad_pattern"),
        ("layers.0.bias[3:2]", "bad_pattern"),
        ("*[0, 0]", "bad_pattern"),
    ],
)
def test_patterns_that_choose_nothing_are_refused(pattern: str, code: str) -> None:
    with pytest.raises(InputError) as refused:
        list(matching(LAYOUT, [pattern]))
    assert refused.value.code == code
    assert refused.value.detail


def test_rows_of_different_settings_make_one_run() -> None:
    anchors, baselines = torch.rand(2, LAYOUT.num_parameters), torch.rand(2, 10)
    usual = LLCSettings(gamma=2.0, batch_size=3)
    other = LLCSettings(nbeta=7.0, sampler=SGLDSettings(epsilon=0.5))
    mask = free_mask(LAYOUT, ["layers.1.weight"])
    plain = rows_of(anchors, baselines, usual, LAYOUT)
    together = concatenate([plain, rows_of(anchors, baselines, other, LAYOUT, free=mask)])
    assert plain.scales is None
    assert together.scales is not None
    assert together.gamma.tolist() == [2, 2, 100, 100]
    assert together.nbeta.tolist() == pytest.approx([10 / 2.302585, 10 / 2.302585, 7, 7])
    assert together.epsilon.tolist() == pytest.approx([1e-4, 1e-4, 0.5, 0.5])
    assert together.batch_size.tolist() == [3, 3, 256, 256]
    assert together.num_free().tolist() == [25, 25, 8, 8]
    assert together.scales[:2].eq(1).all()
    assert (together.scales[2:] != 0).eq(mask).all()
    assert concatenate([plain, plain]).scales is None


def test_the_unit_of_a_tensor_is_its_size() -> None:
    anchors = torch.arange(2 * 25, dtype=torch.float32).view(2, 25)
    anchors[:, 12:16] = 0
    units = LAYOUT.unflatten(tensor_scales(anchors, LAYOUT)[1])
    assert units["layers.1.weight"].unique().tolist() == pytest.approx(
        [anchors[1, 16:24].square().mean().sqrt().item()]
    )
    assert units["layers.0.bias"].unique().tolist() == pytest.approx([anchors[1].square().mean().sqrt().item()])
    scaled = LLCSettings(tether="tensors")
    rows = rows_of(anchors, torch.rand(2, 10), scaled, LAYOUT, free=free_mask(LAYOUT, ["layers.1.weight"]))
    assert rows.scales is not None
    assert rows.scales[1, 16:24].tolist() == units["layers.1.weight"].flatten().tolist()
    assert rows.scales[:, :16].eq(0).all()
