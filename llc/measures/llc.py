"""The local learning coefficient λ̂ (Lau et al., arXiv 2308.12108) and its relatives: chains, estimates and verdicts.

| quantity | what | when |
|---|---|---|
| `llc` | λ̂ | always |
| `wbic` | n E[L] (`llc.estimators.wbic`) | nβ = n / log n |
| `llc_<name>` | refined LLC | for each of `refined` |
| `singular_fluctuation`, `llc_probe` | from the losses of a fixed probe set (`llc.probes`) | num_probe_samples > 0 |
| `llc_two_temperatures` | λ without L(w*) (`llc.scales`) | `scales` has another nβ at the same γ |
| `llc_plateau`, `multiplicity` | the limit of large nβ (`llc.scales`) | two such, where the data allow |

The measurement's verdict is that of `llc`, which `wbic` shares; every other quantity has its own.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from llc import estimators, health, probes, scales
from llc.draw_files import KeptDraws
from llc.draws import Draws
from llc.estimators import Estimate
from llc.health import Verdict
from llc.measures.base import CheckpointSeries, Measurement, Quantity
from llc.measures.variants import Variant, sample_variants, variants
from llc.settings import LLCSettings


def measure(series: CheckpointSeries, settings: LLCSettings) -> list[Measurement]:
    """Details: λ̂ of every chain, split R-hat, effective sample size, virial ratio, nβ, γ; the same of `refined` by name
    and of `scales`, the first of which is the LLC itself; in `plateau` why there is none, if there is none; and of
    the `members` of an ensemble.
    """
    chosen = variants(settings, series.objective.num_samples)
    losses = series.sample_losses.double().mean(-1).tolist()
    return [
        _Checkpoint(draws, chosen, settings, series.objective.num_samples, loss).measurement()
        for draws, loss in zip(sample_variants(series, settings, chosen), losses, strict=True)
    ]


@dataclass(frozen=True)
class _Checkpoint:
    """The rows of one checkpoint: row 0 is the LLC."""

    draws: Draws
    variants: list[Variant]
    settings: LLCSettings
    num_samples: int
    loss: float

    def measurement(self) -> Measurement:
        """Everything asked for."""
        estimates = [estimators.llc(self.draws, row, self.settings.step_error) for row in range(len(self.variants))]
        verdicts = [self._judge(estimate, row) for row, estimate in enumerate(estimates)]
        details = [self._details(*found) for found in zip(range(len(estimates)), estimates, verdicts, strict=True)]
        others = [row for row, variant in enumerate(self.variants) if variant.is_scale]
        members = [row for row, variant in enumerate(self.variants) if variant.is_member]
        refined = [row for row in range(1, len(self.variants)) if row not in (*others, *members)]
        quantities = {"llc": Quantity(estimates[0].value, estimates[0].std_error)}
        about = dict(details[0])
        for name in ("llc", "std_error", "verdict", "reason"):
            del about[name]
        if self.settings.nbeta is None:
            nbeta = float(self.draws.nbeta[0])
            wbic = estimators.wbic(estimates[0], nbeta, self.loss, self.num_samples)
            quantities["wbic"] = Quantity(wbic.value, wbic.std_error)
        for row in refined:
            quantities[self.variants[row].label] = self._quantity(estimates[row], row)
        if refined:
            about["refined"] = {self.variants[row].label.removeprefix("llc_"): details[row] for row in refined}
        if self.settings.num_probe_samples:
            fluctuation = probes.singular_fluctuation(self.draws, 0, self.num_samples)
            quantities["singular_fluctuation"] = self._quantity(fluctuation, 0)
            probed = probes.llc(self.draws, 0, estimates[0], self.num_samples)
            quantities["llc_probe"] = self._quantity(probed, 0)
        if others:
            about["scales"] = [details[row] for row in (0, *others)]
            found, about["plateau"] = self._over_scales(others)
            quantities |= found
        if members:
            about["members"] = [details[row] for row in members]
        labels = tuple(variant.label for variant in self.variants)
        kept = KeptDraws(self.draws, self.settings, labels, self.num_samples, self.loss)
        return Measurement(quantities, verdicts[0], about, kept.as_asked())

    def _over_scales(self, others: list[int]) -> tuple[dict[str, Quantity], str]:
        """Quantities, and why there is no plateau."""
        rows = scales.temperatures(self.draws, 0, others)
        found: dict[str, Quantity] = {}
        slope = scales.from_temperatures(self.draws, rows, self.settings.step_error)
        if slope is not None:
            found["llc_two_temperatures"] = self._quantity(slope, *rows)
        plateau = scales.plateau(self.draws, rows, self.settings.step_error)
        if plateau.llc is not None and plateau.multiplicity is not None:
            found["llc_plateau"] = self._quantity(plateau.llc, *rows)
            found["multiplicity"] = self._quantity(plateau.multiplicity, *rows)
        return found, plateau.why_not

    def _quantity(self, estimate: Estimate, *rows: int) -> Quantity:
        """With the verdict of the rows that it is made of."""
        return Quantity(estimate.value, estimate.std_error, self._judge(estimate, *rows))

    def _judge(self, estimate: Estimate, *rows: int) -> Verdict:
        return health.worst(health.judge(self.draws, row, estimate, self.settings.health) for row in rows)

    def _details(self, row: int, estimate: Estimate, verdict: Verdict) -> dict[str, Any]:
        draws = self.draws
        return {
            "llc": estimate.value,
            "std_error": estimate.std_error,
            "verdict": verdict.name,
            "reason": verdict.reason,
            "per_chain": estimate.per_chain.tolist(),
            "sampling_error": estimate.sampling_error,
            "excess": estimate.excess,
            "shift": estimate.shift,
            "r_hat": estimate.r_hat,
            "ess": estimate.ess,
            "num_draws": draws.num_draws,
            "virial": float(np.mean(draws.virials[row])),
            "distance": float(np.mean(draws.distances[row])),
            "epsilon": float(draws.epsilon[row]),
            "nbeta": float(draws.nbeta[row]),
            "gamma": float(draws.gamma[row]),
        }
