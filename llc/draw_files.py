"""Draws as files: safetensors to read them back without loss, NetCDF for ArviZ.

A file holds the rows of one checkpoint: every array of `Draws` under its name, and in the metadata, as one JSON text,
what made them. The same draws give the same bytes, so that a file is known by its hash: safetensors writes several
texts in any order, hence the one.
"""

import json
import math
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt, StringConstraints, ValidationError
from safetensors.numpy import save_file

from llc.checkpoints import read_metadata, read_tensors
from llc.draws import Draws
from llc.errors import InputError
from llc.settings import Frozen, LLCSettings

METADATA = "lambdahat.draws"

AXES: dict[str, tuple[str, ...]] = {
    "losses": ("row", "chain", "draw"),
    "baselines": ("row", "chain", "draw"),
    "works": ("row", "chain", "draw"),
    "squares": ("row", "chain", "draw"),
    "excesses": ("row", "chain", "excess_draw"),
    "virial_excesses": ("row", "chain", "excess_draw"),
    "probe_losses": ("row", "chain", "probe_draw", "sample"),
    "probe_baselines": ("row", "sample"),
    "diverged_at": ("row", "chain"),
    "epsilon": ("row",),
    "nbeta": ("row",),
    "gamma": ("row",),
    "num_free": ("row",),
    "acceptance": ("row", "chain"),
}
"""The axes of every array of `Draws`; those of one name have one length."""

DTYPES = {"probe_losses": np.dtype("<f4"), "probe_baselines": np.dtype("<f4"), "diverged_at": np.dtype("<i8")}
"""float64 but for these."""


class _About(Frozen):
    """The metadata of a file."""

    format: Literal[2] = 2
    version: Annotated[str, StringConstraints(max_length=100)] = Field(default_factory=lambda: version("lambdahat"))
    settings: LLCSettings
    rows: Annotated[tuple[Annotated[str, StringConstraints(max_length=500)], ...], Field(max_length=100_000)]
    num_samples: PositiveInt
    loss: float | None
    """null if not finite."""


@dataclass(frozen=True)
class KeptDraws:
    """The draws of one checkpoint and what made them: `llc.estimators` and `llc.health` need nothing else."""

    draws: Draws
    settings: LLCSettings
    rows: tuple[str, ...]
    """What each row is."""
    num_samples: int
    """n, of the series' data set."""
    loss: float
    """L_n(w*) there."""

    def as_asked(self) -> "KeptDraws | None":
        """As much of it as the settings want kept."""
        level = self.settings.keep_draws
        if level == "none":
            return None
        return self if level == "samples" else replace(self, draws=self.draws.without_samples())


def write_draws(kept: KeptDraws, path: Path) -> None:
    """Write a safetensors file."""
    arrays = {name: np.ascontiguousarray(getattr(kept.draws, name), _dtype(name)) for name in AXES}
    loss = kept.loss if math.isfinite(kept.loss) else None
    about = _About(settings=kept.settings, rows=kept.rows, num_samples=kept.num_samples, loss=loss)
    save_file(arrays, path, {METADATA: json.dumps(about.model_dump(mode="json"), sort_keys=True)})


def read_draws(path: Path) -> KeptDraws:
    """What `write_draws` wrote, bit for bit; the arrays are read-only, mapped from the file.

    Raises: InputError `bad_safetensors` or `bad_draws` for any other file.
    """
    try:
        about = _About.model_validate_json(read_metadata(path, "the file of draws").get(METADATA, ""))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise _bad(f"its metadata '{METADATA}' are wrong: {where} {first['msg']}"[:500]) from None
    arrays = read_tensors(path, "the file of draws")
    if set(arrays) != set(AXES):
        raise _bad(f"missing or unknown arrays: {', '.join(sorted(set(arrays) ^ set(AXES)))}"[:500])
    lengths = {"row": len(about.rows)}
    for name, axes in AXES.items():
        shape, dtype = arrays[name].shape, arrays[name].dtype
        fits = len(shape) == len(axes) and all(
            lengths.setdefault(axis, size) == size for axis, size in zip(axes, shape, strict=True)
        )
        if not fits or dtype != _dtype(name):
            raise _bad(f"'{name}' is {dtype} of shape {list(shape)}, not {_dtype(name)} over ({', '.join(axes)})")
    fields: dict[str, Any] = arrays
    return KeptDraws(
        Draws(**fields), about.settings, about.rows, about.num_samples, math.nan if about.loss is None else about.loss
    )


def write_netcdf(kept: KeptDraws, path: Path) -> None:
    """Write NetCDF 4 for `arviz_base.convert_to_datatree`: ArviZ's groups, dimensions (chain, draw, row, ...).

    posterior: `potential` = nβ (L_B(w) − L_B(w*)), whose mean is λ̂ before `excess` is taken off, `loss` = L_B(w) and
    `distance` = ‖u‖; sample_stats: `virial`, `baseline` = L_B(w*), `diverging`, `diverged_at`, `acceptance`; excess:
    what step size and gradient noise add to the potential and to half of u·∇U, at some of the draws; probe: losses of
    each sample of the probe set, if kept, at every so many draws; constant_data: ε, nβ, γ and the number of free
    parameters of each row. The settings, as JSON, n and L_n(w*) are attributes of the whole.
    """
    import h5netcdf
    import h5py

    draws = kept.draws
    groups: dict[str, dict[str, tuple[tuple[str, ...], NDArray[Any]]]] = {
        "posterior": {
            "potential": _chain_first(draws.potentials),
            "loss": _chain_first(draws.losses),
            "distance": _chain_first(draws.distances),
        },
        "sample_stats": {
            "virial": _chain_first(draws.virials),
            "baseline": _chain_first(draws.baselines),
            "diverging": _chain_first(~np.isfinite(draws.losses)),
            "diverged_at": (("chain", "row"), draws.diverged_at.T),
            "acceptance": (("chain", "row"), draws.acceptance.T),
        },
        "constant_data": {name: (("row",), getattr(draws, name)) for name in ("epsilon", "nbeta", "gamma", "num_free")},
    }
    if draws.excesses.shape[-1]:
        groups["excess"] = {
            "excess": _chain_first(draws.excesses),
            "virial_excess": _chain_first(draws.virial_excesses),
        }
    if draws.probe_losses.size:
        groups["probe"] = {
            "loss": _chain_first(draws.probe_losses, "sample"),
            "baseline": (("row", "sample"), draws.probe_baselines),
        }
    with h5netcdf.File(path, "w") as file:
        file.attrs["inference_library"] = "lambdahat"
        file.attrs["inference_library_version"] = version("lambdahat")
        file.attrs["settings"] = kept.settings.model_dump_json()
        file.attrs["num_samples"], file.attrs["loss"] = kept.num_samples, kept.loss
        for name, variables in groups.items():
            group = file.create_group(name)
            sizes = {a: size for axes, data in variables.values() for a, size in zip(axes, data.shape, strict=True)}
            group.dimensions = sizes
            for axis, size in sizes.items():
                every = kept.settings.draws_between_probes if (name, axis) == ("probe", "draw") else 1
                rows = np.array(kept.rows, h5py.string_dtype())
                group.create_variable(axis, (axis,), data=rows if axis == "row" else every * np.arange(size))
            for variable, (axes, data) in variables.items():
                # NetCDF has no booleans; this is how xarray spells them.
                boolean = data.dtype == bool
                written = group.create_variable(variable, axes, data=data.astype("i1") if boolean else data)
                if boolean:
                    written.attrs["dtype"] = "bool"


def _chain_first(array: NDArray[Any], *more: str) -> tuple[tuple[str, ...], NDArray[Any]]:
    """(rows, chains, draws, ...) → (chains, draws, rows, ...), ArviZ's order."""
    return ("chain", "draw", "row", *more), np.moveaxis(array, 0, 2)


def _dtype(name: str) -> np.dtype[Any]:
    return DTYPES.get(name, np.dtype("<f8"))


def _bad(why: str) -> InputError:
    return InputError("bad_draws", f"this is no file of draws: {why}", "take the file as the server gave it")
