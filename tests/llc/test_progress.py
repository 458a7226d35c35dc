"""A computation that is killed and goes on elsewhere gives what it would have given, bit for bit, and does not begin
anew.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from llc.ensemble import Plan
from llc.evaluate import calibrated, evaluate
from llc.measures import Measurement
from llc.models import MLP
from llc.objective import ModelObjective
from llc.progress import Arrays, Progress, SavedProgress
from llc.settings import (
    AutoLLCSettings,
    BAOABSettings,
    HessianSettings,
    LLCSettings,
    LossSettings,
    MALASettings,
    MeasureSettings,
    PSGLDSettings,
    Refinement,
    Scale,
    SGLDSettings,
    SGNHTSettings,
    Target,
)

CHECKPOINTS = 3
PLAN = Plan(rows_per_call=4)
"""Every piece is a checkpoint's chains or fewer, so that some stop while others go on."""


class KilledError(Exception):
    """In place of kill -9."""


class Mortal(SavedProgress):
    """Saves whenever it may, and dies after so many saves."""

    def __init__(self, path: Path, saves: int, made_of: Any = "this") -> None:
        super().__init__(path, made_of, seconds=0)
        self._saves = saves

    def keep(self, part: str, arrays: Callable[[], Arrays], *, over: bool = False) -> None:
        self._due = 0.0
        super().keep(part, arrays, over=over)
        self._saves -= 1
        if self._saves == 0:
            raise KilledError


@pytest.fixture(scope="module")
def objective() -> ModelObjective:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((60, 3)).astype(np.float32)
    model = MLP(widths=(3, 4, 2), activation="tanh")
    return ModelObjective(model, {"x": x, "y": (x.sum(1) > 0).astype(np.int64)}, "cpu")


@pytest.fixture(scope="module")
def anchors(objective: ModelObjective) -> torch.Tensor:
    return torch.randn(CHECKPOINTS, objective.layout.num_parameters, generator=torch.Generator().manual_seed(0))


def numbers(found: list[dict[str, Measurement]]) -> list[Any]:
    """All of it, to be compared exactly; NaN is NaN."""
    return [
        (
            name,
            repr(measurement.quantities),
            repr(measurement.details),
            measurement.verdict,
            None if measurement.draws is None else {k: v.tobytes() for k, v in vars(measurement.draws.draws).items()},
        )
        for measurements in found
        for name, measurement in measurements.items()
    ]


@dataclass
class Run:
    objective: ModelObjective
    anchors: torch.Tensor
    measures: MeasureSettings

    def __call__(self, progress: Progress) -> list[Any]:
        others = {"others": self.objective}
        return numbers(evaluate(self.objective, self.anchors, self.measures, progress, others, PLAN))


SHORT = {"batch_size": 16, "num_burnin_steps": 7, "num_draws": 70, "keep_draws": "samples", "num_probe_samples": 8}

KERNELS = [
    SGLDSettings(),
    SGLDSettings(noise="independent"),
    PSGLDSettings(correction=True),
    SGNHTSettings(),
    BAOABSettings(),
    MALASettings(),
]


def settings_of(**changes: Any) -> MeasureSettings:
    return MeasureSettings(loss=LossSettings(), llc=LLCSettings(**{**SHORT, **changes}))


CASES = {
    **{f"{i} {kernel.name}": settings_of(sampler=kernel) for i, kernel in enumerate(KERNELS)},
    "control variates": settings_of(gradient="control_variate", steps_between_draws=3),
    "until a target": settings_of(num_draws=40, max_draws=160, target=Target(relative_error=0.3)),
    "many rows": settings_of(
        refined={"head": Refinement(weights=("layers.1.*",)), "elsewhere": Refinement(dataset="others")},
        scales=(Scale(nbeta=3.0, gamma=1.0),),
    ),
    "hessian": MeasureSettings(
        loss=None, llc=None, hessian=HessianSettings(num_probes=2, num_lanczos_steps=5, num_eigenvalues=2)
    ),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("saves", [5, 75])
def test_a_killed_run_goes_on_bit_for_bit(
    objective: ModelObjective, anchors: torch.Tensor, tmp_path: Path, case: str, saves: int
) -> None:
    run = Run(objective, anchors, CASES[case])
    whole = Counting()
    undisturbed = run(whole)
    with pytest.raises(KilledError):
        run(Mortal(tmp_path / "saved", min(saves, whole.chances)))
    rest = Counting(SavedProgress(tmp_path / "saved", "this", seconds=1e9))
    assert run(rest) == undisturbed
    done_before = whole.row_steps - rest.row_steps  # and not again
    assert done_before >= min(saves, whole.chances)  # a row-step a save, or more


class Counting(Progress):
    """Counts what is done, and how often it could have been saved."""

    def __init__(self, kept: Progress | None = None) -> None:
        self._kept = kept or Progress()
        self.row_steps, self.chances = 0, 0

    def report(self, row_steps: int) -> None:
        self.row_steps += row_steps

    def recall(self, part: str) -> Arrays | None:
        return self._kept.recall(part)

    def keep(self, part: str, arrays: Callable[[], Arrays], *, over: bool = False) -> None:
        self._kept.keep(part, arrays, over=over)
        self.chances += 1


def test_killed_again_and_again_it_still_gets_there(
    objective: ModelObjective, anchors: torch.Tensor, tmp_path: Path
) -> None:
    run = Run(objective, anchors, CASES["until a target"])
    deaths = 0
    while True:
        try:
            found = run(Mortal(tmp_path / "saved", 13))
            break
        except KilledError:
            deaths += 1
    assert deaths > 5
    assert found == run(Progress())


def test_a_pilot_goes_on(objective: ModelObjective, anchors: torch.Tensor, tmp_path: Path) -> None:
    measures = MeasureSettings(loss=None, llc=AutoLLCSettings(batch_size=16, budget=400))

    def run(progress: Progress) -> Any:
        return calibrated(objective, anchors, measures, progress, PLAN)

    whole = Counting()
    undisturbed = run(whole)
    with pytest.raises(KilledError):
        run(Mortal(tmp_path / "saved", whole.chances // 2))
    rest = Counting(SavedProgress(tmp_path / "saved", "this", seconds=1e9))
    assert run(rest) == undisturbed
    assert rest.row_steps < 0.7 * whole.row_steps


@pytest.fixture
def saved(objective: ModelObjective, anchors: torch.Tensor, tmp_path: Path) -> Path:
    """Of a run that was killed."""
    with pytest.raises(KilledError):
        Run(objective, anchors, CASES["0 sgld"])(Mortal(tmp_path / "saved", 30))
    return tmp_path / "saved"


PART = "llc on its data set"


def test_what_was_saved_of_another_computation_is_not_taken(saved: Path) -> None:
    assert SavedProgress(saved, "this", 1).recall(PART) is not None
    assert SavedProgress(saved, "that", 1).recall(PART) is None


@pytest.mark.parametrize("where", [100, -1, -4000])
def test_what_is_damaged_is_not_taken(saved: Path, where: int) -> None:
    data = bytearray(saved.read_bytes())
    data[where] ^= 1
    saved.write_bytes(data)
    assert SavedProgress(saved, "this", 1).recall(PART) is None


def test_what_is_cut_off_is_not_taken(saved: Path) -> None:
    saved.write_bytes(saved.read_bytes()[:-1])
    assert SavedProgress(saved, "this", 1).recall(PART) is None


def test_a_full_disk_stops_the_saving_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    progress = SavedProgress(tmp_path / "file" / "no folder", "this", seconds=0)
    progress.keep("part", lambda: {"x": np.ones(3)}, over=True)
    found = progress.recall("part")
    assert found is not None
    assert found["x"].tolist() == [1, 1, 1]


def test_saving_takes_a_small_share_of_the_time(tmp_path: Path) -> None:
    written: list[Mapping[str, Arrays]] = []

    class Slow(SavedProgress):
        def _write(self, parts: Mapping[str, Arrays]) -> None:
            written.append(parts)
            time.sleep(0.05)

    progress = Slow(tmp_path / "saved", "this", seconds=0)
    end = time.monotonic() + 1
    while time.monotonic() < end:
        progress.keep("part", lambda: {})
    assert len(written) == 1
