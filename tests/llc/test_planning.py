"""Plans: what they cost in memory, that they change nothing but rounding, and that they are chosen by measurement."""

import json
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._inductor.utils import fresh_cache
from torch.profiler import ProfilerActivity, profile

from llc.chains import sample
from llc.draws import OVER_DRAWS, Draws
from llc.ensemble import (
    PIECE_NUMBERS,
    HessianOperator,
    Plan,
    mean_gradients,
    minibatch_gradients,
    per_sample_losses,
)
from llc.models import MLP, ToyModelOfSuperposition, Transformer
from llc.objective import Batch, ModelObjective
from llc.planning import choose_plan, read_plan, row_bytes
from llc.rows import concatenate, rows_of
from llc.settings import AutoLLCSettings, LLCSettings, MALASettings, PSGLDSettings, SamplerSettings, SGLDSettings

N = 200
GENERATOR = np.random.default_rng(0)


def mlp(*widths: int) -> ModelObjective:
    x = GENERATOR.standard_normal((N, widths[0])).astype(np.float32)
    return ModelObjective(MLP(widths=widths), {"x": x, "y": GENERATOR.integers(0, widths[-1], N)})


def transformer(d_model: int) -> ModelObjective:
    model = Transformer(
        vocabulary_size=20, context_length=8, d_model=d_model, num_layers=2, num_heads=2, d_mlp=2 * d_model
    )
    return ModelObjective(model, {"x": GENERATOR.integers(0, 20, (N, 8))})


def tms() -> ModelObjective:
    return ModelObjective(ToyModelOfSuperposition(num_features=4), {"x": GENERATOR.random((N, 4)).astype(np.float32)})


def near_one(objective: ModelObjective, count: int) -> Tensor:
    """Checkpoints (count, d)."""
    generator = torch.Generator().manual_seed(1)
    d = objective.layout.num_parameters
    return 0.3 * torch.randn(d, generator=generator) + 0.01 * torch.randn(count, d, generator=generator)


# Plans change nothing but rounding ------------------------------------------------------------------------------------


def chains(objective: ModelObjective, plan: Plan, sampler: SamplerSettings, gradient: str) -> Draws:
    """Checkpoints with rows of different batch sizes, some with parameters held."""
    settings = LLCSettings.model_validate(
        {
            "sampler": sampler,
            "gradient": gradient,
            "nbeta": 30.0,
            "batch_size": 12,
            "num_chains": 3,
            "num_burnin_steps": 3,
            "num_draws": 12,
            "num_probe_samples": 7,
            "draws_between_probes": 4,
        }
    )
    anchors = near_one(objective, 3)
    losses = per_sample_losses(objective, anchors, plan=plan)
    free = torch.arange(anchors.shape[1]) % 3 > 0
    smaller = settings.model_copy(update={"batch_size": 5, "nbeta": 10.0})
    rows = concatenate(
        [
            rows_of(anchors, losses, settings, objective.layout),
            rows_of(anchors[:2], losses[:2], smaller, objective.layout, free=free),
        ]
    )
    return sample(objective, rows, settings, plan)


def assert_same(one: Draws, other: Draws) -> None:
    for name in (*OVER_DRAWS, "probe_baselines"):
        mine, theirs = getattr(one, name), getattr(other, name)
        assert np.isfinite(mine).all()
        scale = np.abs(mine).max(initial=0)
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-5 * scale, err_msg=name)


OBJECTIVES = {"mlp": lambda: mlp(3, 8, 4), "transformer": lambda: transformer(4)}
CASES = [
    (SGLDSettings(epsilon=1e-5), "minibatch"),
    (SGLDSettings(epsilon=1e-5, noise="independent"), "control_variate"),
    (PSGLDSettings(epsilon=1e-6, correction=True), "minibatch"),
    (MALASettings(epsilon=1e-5), "minibatch"),
]


@pytest.mark.parametrize("model", OBJECTIVES)
@pytest.mark.parametrize(("sampler", "gradient"), CASES)
def test_row_by_row_and_vectorised_give_the_same_draws(model: str, sampler: SamplerSettings, gradient: str) -> None:
    objective = OBJECTIVES[model]()
    one = chains(objective, Plan(vectorised=False, rows_per_call=1, samples_per_call=30), sampler, gradient)
    assert np.ptp(one.losses, axis=2).min() > 0
    for rows_per_call in (2, 7, 64):
        other = chains(objective, Plan(rows_per_call=rows_per_call), sampler, gradient)
        assert_same(one, other)


QUIET = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # the compiler's own, when it is imported


@QUIET
@pytest.mark.parametrize(("sampler", "gradient", "vectorised"), [(*CASES[1], True), (*CASES[2], False)])
def test_compiled_gives_the_same_draws(sampler: SamplerSettings, gradient: str, vectorised: bool) -> None:
    objective, plan = tms(), Plan(vectorised=vectorised, rows_per_call=64)
    plain = chains(objective, plan, sampler, gradient)
    assert_same(plain, chains(objective, replace(plan, compiled=True), sampler, gradient))


def test_a_plan_done_again_gives_the_same_bits() -> None:
    objective = mlp(3, 8, 4)
    for plan in (Plan(vectorised=False, rows_per_call=1), Plan(rows_per_call=7)):
        one, other = (chains(objective, plan, *CASES[0]) for _ in range(2))
        assert np.array_equal(one.losses, other.losses)
        assert np.array_equal(one.works, other.works)


def test_passes_over_the_data_are_the_same_in_parts() -> None:
    objective = transformer(8)
    anchors, parts = near_one(objective, 2), Plan(samples_per_call=17)
    torch.testing.assert_close(per_sample_losses(objective, anchors, plan=parts), per_sample_losses(objective, anchors))
    torch.testing.assert_close(mean_gradients(objective, anchors, parts), mean_gradients(objective, anchors))
    v = torch.ones_like(anchors[0])
    in_parts, whole = (HessianOperator(objective, anchors[0], 100, plan)(v) for plan in (parts, Plan()))
    torch.testing.assert_close(in_parts, whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("plan", [Plan(rows_per_call=size) for size in (1, 2, 3, 4, 9, 100)] + [Plan(vectorised=False)])
@pytest.mark.parametrize("num_parameters", [PIECE_NUMBERS // 7, PIECE_NUMBERS // 2, PIECE_NUMBERS + 1])
def test_pieces_cover_every_cell_once(plan: Plan, num_parameters: int) -> None:
    most = plan.rows_per_call if plan.vectorised else max(1, PIECE_NUMBERS // num_parameters)
    for num_chains, num_rows in product((1, 2, 4, 5), (1, 3, 16)):
        cells = np.zeros((num_chains, num_rows), int)
        for where in plan.pieces(num_chains, num_rows, num_parameters):
            cells[where] += 1
            assert cells[where].size <= most
        assert (cells == 1).all()


def test_row_by_row_a_run_is_the_same_however_many_step_together(monkeypatch: pytest.MonkeyPatch) -> None:
    objective = mlp(3, 8, 4)
    runs = []
    for numbers in (1, 3 * objective.layout.num_parameters, PIECE_NUMBERS):
        monkeypatch.setattr("llc.ensemble.PIECE_NUMBERS", numbers)
        runs.append(chains(objective, Plan(vectorised=False, rows_per_call=1), *CASES[2]))
    for other in runs[1:]:
        assert np.array_equal(runs[0].losses, other.losses)
        assert np.array_equal(runs[0].works, other.works)


# Memory ---------------------------------------------------------------------------------------------------------------


def peak_bytes(objective: ModelObjective, w: Tensor, batch: Batch, *, vectorised: bool) -> int:
    """What the allocator had given out at most, as it tells the profiler."""
    minibatch_gradients(objective, w, batch, vectorised=vectorised)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as profiler:
        minibatch_gradients(objective, w, batch, vectorised=vectorised)
    assert profiler.profiler is not None
    assert profiler.profiler.kineto_results is not None
    found: list[Any] = profiler.profiler.kineto_results.events()  # whose stubs know no nbytes
    events = sorted((event for event in found if event.name() == "[memory]"), key=lambda event: event.start_ns())
    return int(np.cumsum([event.nbytes() for event in events]).max())


@pytest.mark.parametrize("vectorised", [False, True])
@pytest.mark.parametrize("objective", [mlp(20, 300, 300, 4), transformer(64)], ids=["mlp", "transformer"])
def test_the_bytes_of_a_row_are_what_it_takes(objective: ModelObjective, vectorised: bool) -> None:
    rows, batch_size = (6 if vectorised else 1), 100
    w = near_one(objective, rows)[None]
    batch = objective.batch(torch.arange(batch_size)[None])
    peak = peak_bytes(objective, w, batch, vectorised=vectorised) + 3 * w.nbytes  # w, and both places of a step
    estimate = rows * row_bytes(objective, w[0, 0], batch_size, vectorised=vectorised)[0]
    assert peak / 1.5 < estimate < 1.5 * peak


# The choice -----------------------------------------------------------------------------------------------------------


def test_the_plan_fits_the_budget() -> None:
    objective = mlp(20, 100, 100, 4)
    anchors = near_one(objective, 16)
    settings = LLCSettings(batch_size=100, call_megabytes=2)
    tight = choose_plan(objective, anchors, settings)
    assert tight.budget_bytes == 2 * 2**20
    assert tight.plan.rows_per_call * tight.row_bytes <= tight.budget_bytes
    assert "64 rows" not in tight.row_steps_per_second
    wide = choose_plan(objective, anchors, settings.model_copy(update={"call_megabytes": 1024}))
    assert {"row by row", "8 rows"} < set(wide.row_steps_per_second)
    assert tight.plan.samples_per_call < wide.plan.samples_per_call


def test_a_row_larger_than_the_budget_goes_alone() -> None:
    objective = mlp(20, 400, 400, 4)
    found = choose_plan(objective, near_one(objective, 2), LLCSettings(batch_size=200, call_megabytes=1))
    assert found.row_bytes > found.budget_bytes
    assert found.plan == Plan(vectorised=False, rows_per_call=1, samples_per_call=found.plan.samples_per_call)
    assert found.row_steps_per_second.keys() == {"row by row"}


def test_the_fastest_is_chosen_and_tiny_rows_go_together() -> None:
    objective = tms()
    found = choose_plan(objective, near_one(objective, 8), LLCSettings(batch_size=8))
    assert found.row_steps_per_second.keys() == {"row by row", "8 rows", "32 rows"}
    assert found.plan.vectorised
    assert found.row_steps_per_second[f"{found.plan.rows_per_call} rows"] == max(found.row_steps_per_second.values())


def test_the_report_is_json_and_gives_the_plan_back() -> None:
    objective = tms()
    found = choose_plan(objective, near_one(objective, 2), AutoLLCSettings())
    assert read_plan(json.loads(json.dumps(found.report()))) == found.plan
    assert choose_plan(objective, near_one(objective, 2), None).plan.samples_per_call == found.plan.samples_per_call


@QUIET
def test_without_a_compiler_it_goes_as_it_is_and_the_reason_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", ("no-such-compiler",))
    objective = tms()
    with fresh_cache():
        found = choose_plan(objective, near_one(objective, 2), LLCSettings(batch_size=8, compile=True))
    assert not found.plan.compiled
    assert found.reason.startswith("it could not be compiled: ")
    assert found.plan.vectorised
