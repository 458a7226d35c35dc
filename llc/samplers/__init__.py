"""Samplers of the tethered, tempered posterior `p(u) ∝ exp(−nβ L_n(w* + s∘u) − (γ/2)‖u‖²)`: one kernel a file.

A new kernel is a file here, its settings in `llc.settings.SamplerSettings`, and a line below.
"""

from collections.abc import Mapping

from llc.samplers.baoab import BAOAB
from llc.samplers.base import Columns, Kernel, Point, State
from llc.samplers.mala import MALA
from llc.samplers.psgld import PSGLD
from llc.samplers.sgld import SGLD
from llc.samplers.sgnht import SGNHT
from llc.settings import SamplerSettings

KERNELS: Mapping[str, type[Kernel]] = {"sgld": SGLD, "psgld": PSGLD, "sgnht": SGNHT, "baoab": BAOAB, "mala": MALA}


def kernel(settings: SamplerSettings) -> Kernel:
    """The kernel of these settings."""
    return KERNELS[settings.name](settings)


__all__ = ["KERNELS", "Columns", "Kernel", "Point", "State", "kernel"]
