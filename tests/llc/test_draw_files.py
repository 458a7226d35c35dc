"""Draws come back from a file as they went in, and ArviZ sees the same in them as we do."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import arviz_base
import numpy as np
import pytest
from arviz_stats.sampling_diagnostics import ess, rhat
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from llc import estimators
from llc.draw_files import AXES, METADATA, KeptDraws, read_draws, write_draws, write_netcdf
from llc.draws import Draws
from llc.errors import InputError
from llc.settings import BAOABSettings, LLCSettings

ROWS, CHAINS, DRAWS, SAMPLES = 3, 4, 120, 5
SETTINGS = LLCSettings(sampler=BAOABSettings(), num_draws=DRAWS, seed=7, keep_draws="samples", draws_between_probes=40)


def some_draws() -> Draws:
    """Three rows; the first chain of the last row left the numbers."""
    rng = np.random.default_rng(0)
    shape = (ROWS, CHAINS, DRAWS)
    x = rng.standard_normal(shape).cumsum(-1) / 10  # autocorrelated, so that ESS and R-hat say something
    losses = 3 + (x + 10) / 100
    losses[2, 0, 50:] = np.nan
    diverged_at = np.full((ROWS, CHAINS), -1)
    diverged_at[2, 0] = 350
    return Draws(
        losses=losses,
        baselines=3 + rng.random(shape) / 100,
        works=rng.random(shape),
        squares=rng.random(shape),
        excesses=rng.random((ROWS, CHAINS, 12)),
        virial_excesses=rng.random((ROWS, CHAINS, 12)),
        probe_losses=rng.random((ROWS, CHAINS, 3, SAMPLES), np.float32),
        probe_baselines=rng.random((ROWS, SAMPLES), np.float32),
        diverged_at=diverged_at,
        epsilon=np.full(ROWS, 1e-4),
        nbeta=np.array([100.0, 50.0, 100.0]),
        gamma=np.array([1.0, 1.0, 2.0]),
        num_free=np.array([26.0, 26.0, 8.0]),
        acceptance=np.full((ROWS, CHAINS), np.nan),
    )


LABELS = ("llc", "nβ/2", "layers.0")
KEPT = KeptDraws(some_draws(), SETTINGS, LABELS, num_samples=1000, loss=1 / 3)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A good file."""
    path = tmp_path / "draws.safetensors"
    write_draws(KEPT, path)
    return path


def test_every_array_of_the_draws_has_its_axes() -> None:
    assert {field.name for field in dataclasses.fields(Draws)} == set(AXES)


def test_what_is_read_is_what_was_written(path: Path) -> None:
    found = read_draws(path)
    assert (found.settings, found.rows, found.num_samples, found.loss) == (SETTINGS, LABELS, 1000, 1 / 3)
    for name in AXES:
        written, read = getattr(KEPT.draws, name), getattr(found.draws, name)
        assert (read.dtype, read.shape, read.tobytes()) == (written.dtype, written.shape, written.tobytes()), name
    for row in range(ROWS):
        again, first = estimators.llc(found.draws, row), estimators.llc(KEPT.draws, row)
        assert np.array_equal(again.per_chain, first.per_chain, equal_nan=True)
        assert (again.value, again.std_error, again.ess) == (first.value, first.std_error, first.ess)


def test_the_same_draws_are_the_same_bytes(path: Path, tmp_path: Path) -> None:
    write_draws(read_draws(path), tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == path.read_bytes()


@pytest.mark.parametrize(("level", "samples"), [("chains", 0), ("samples", SAMPLES)])
def test_as_much_is_kept_as_is_asked_for(tmp_path: Path, level: Any, samples: int) -> None:
    kept = dataclasses.replace(KEPT, settings=SETTINGS.model_copy(update={"keep_draws": level})).as_asked()
    assert kept is not None
    write_draws(kept, tmp_path / "draws")
    found = read_draws(tmp_path / "draws").draws
    assert np.array_equal(found.losses, KEPT.draws.losses, equal_nan=True)
    assert found.probe_losses.shape[-1] == found.probe_baselines.shape[-1] == samples


def test_nothing_is_kept_if_nothing_is_wanted() -> None:
    none = SETTINGS.model_copy(update={"keep_draws": "none"})
    assert dataclasses.replace(KEPT, settings=none).as_asked() is None


def test_a_loss_that_is_no_number_is_kept_as_such(tmp_path: Path) -> None:
    write_draws(dataclasses.replace(KEPT, loss=np.inf), tmp_path / "draws")
    assert np.isnan(read_draws(tmp_path / "draws").loss)


def read_by_arviz(path: Path) -> Any:
    """The groups of a file, by ArviZ's own reader."""
    with arviz_base.convert_to_datatree(str(path)) as tree:
        return tree.load()


def test_arviz_reads_the_same_numbers(tmp_path: Path) -> None:
    write_netcdf(KEPT, tmp_path / "draws.nc")
    tree = read_by_arviz(tmp_path / "draws.nc")
    assert tree.posterior.potential.dims == ("chain", "draw", "row")
    assert tuple(tree.posterior.row.values) == LABELS
    assert LLCSettings.model_validate_json(tree.attrs["settings"]) == SETTINGS
    for row in (0, 1):  # the healthy ones
        ours, theirs = estimators.mean(KEPT.draws.potentials[row]), tree.isel(row=row)
        r_hat: Any = rhat(theirs, var_names="potential", method="split")
        size: Any = ess(theirs, var_names="potential", method="mean")
        assert theirs.posterior.potential.mean().item() == pytest.approx(ours.value, rel=1e-12)
        assert r_hat.potential.item() == pytest.approx(ours.r_hat, rel=1e-9)
        assert size.potential.item() == pytest.approx(ours.ess, rel=1e-9)
    stats = tree.sample_stats
    assert np.array_equal(stats.virial.values, np.moveaxis(KEPT.draws.virials, 0, 2), equal_nan=True)
    assert stats.diverging.dtype == bool
    assert stats.diverging.sum(("chain", "draw")).values.tolist() == [0, 0, DRAWS - 50]
    assert stats.diverged_at.sel(row="layers.0").values.tolist() == [350, -1, -1, -1]
    assert tree.constant_data.nbeta.values.tolist() == [100.0, 50.0, 100.0]
    assert tree.probe.draw.values.tolist() == [0, 40, 80]
    assert np.array_equal(tree.probe.loss.values, np.moveaxis(KEPT.draws.probe_losses, 0, 2))
    assert tree.excess.excess.shape == (CHAINS, 12, ROWS)


def test_arviz_misses_only_what_was_not_kept(tmp_path: Path) -> None:
    bare = dataclasses.replace(KEPT.draws.without_samples(), excesses=np.empty((ROWS, CHAINS, 0)))
    write_netcdf(dataclasses.replace(KEPT, draws=bare), tmp_path / "draws.nc")
    assert set(read_by_arviz(tmp_path / "draws.nc").children) == {"posterior", "sample_stats", "constant_data"}


ABOUT = {
    "format": 2,
    "settings": SETTINGS.model_dump(mode="json"),
    "rows": list(LABELS),
    "num_samples": 1000,
    "loss": 0.5,
}


@pytest.mark.parametrize(
    ("change", "about", "says"),
    [
        ({}, "", "metadata"),
        ({}, "{", "metadata"),
        ({}, "[" * 100_000, "metadata"),
        ({}, json.dumps({**ABOUT, "format": 1}), "format"),
        ({}, json.dumps({**ABOUT, "settings": {"num_draws": -1}}), "settings.num_draws"),
        ({}, json.dumps({**ABOUT, "rows": ["llc"]}), "'losses' is float64 of shape [3, 4, 120]"),
        ({"losses": None}, None, "unknown arrays: losses"),
        ({"more": np.zeros(1)}, None, "unknown arrays: more"),
        ({"works": np.zeros((ROWS, CHAINS, 7))}, None, "'works' is float64 of shape [3, 4, 7]"),
        ({"works": np.zeros((ROWS, CHAINS))}, None, "'works' is float64 of shape [3, 4]"),
        ({"gamma": np.zeros(ROWS, np.float32)}, None, "'gamma' is float32"),
        ({"diverged_at": np.zeros((ROWS, CHAINS))}, None, "'diverged_at' is float64"),
    ],
)
def test_another_file_is_refused_in_words(
    path: Path, change: dict[str, NDArray[Any] | None], about: str | None, says: str
) -> None:
    arrays = {name: array for name, array in {**load_file(path), **change}.items() if array is not None}
    save_file(arrays, path, {METADATA: json.dumps(ABOUT) if about is None else about})
    with pytest.raises(InputError) as refused:
        read_draws(path)
    assert refused.value.code == "bad_draws"
    assert says in refused.value.detail
    assert len(refused.value.detail) < 1000


def test_a_file_cut_short_is_refused(path: Path) -> None:
    whole = path.read_bytes()
    for size in (0, 7, 100, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(InputError) as refused:
            read_draws(path)
        assert refused.value.code == "bad_safetensors"
