"""Curvature of the loss at w*, from one set of Lanczos runs shared by everything here.

Each of P probes z_p (Rademacher) starts a Lanczos run of m steps with full reorthogonalisation,
`H V_p = V_p T_p + β r e_mᵀ`, V_p orthonormal and T_p tridiagonal:

- trace (Hutchinson 1990): `tr H ≈ (1/P) Σ_p z_pᵀ H z_p`, and `z_pᵀ H z_p = d (T_p)_11` costs nothing more;
- largest eigenvalues: Rayleigh-Ritz on the union of the P Krylov spaces, whose products with H are known, so that
  repeated eigenvalues (up to P-fold) are found; the error of each is its residual `‖H v − θ v‖`;
- share of spectral mass near zero, `#{|h_i| ≤ c·max|h|} / d`, by stochastic Lanczos quadrature from its *nodes*: the
  sum of the squared first components of T_p's eigenvectors whose eigenvalue is near zero, averaged over probes. Its
  error is that of probes and that of truncation, the change between half the steps and all of them, in squares.

Probes depend on the seed only, so that neighbouring checkpoints share their noise.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from llc.ensemble import HessianOperator
from llc.health import OK, Verdict
from llc.measures.base import CheckpointSeries, Measurement, Quantity
from llc.randomness import Stream, generator
from llc.settings import HessianSettings

Array = NDArray[np.float64]

INDEPENDENT = 1e-8
"""Directions of the union of the spaces with a smaller share of the largest Gram eigenvalue are left out."""

DIVERGED = Verdict("diverged", "the loss has no finite second derivatives at w*; there the training blew up")

BREAKDOWN = 1e-6
"""A Lanczos run ends where the new direction is this small beside the largest one: its space is then invariant."""


def measure(series: CheckpointSeries, settings: HessianSettings) -> list[Measurement]:
    """Quantities `hessian_trace`, `hessian_max_eigenvalue` (error: its residual) and `hessian_near_zero_share`;
    details: the largest eigenvalues with their residuals, and the share's two errors apart.
    """
    return [
        _measurement(series.progress.once(f"hessian {k}", partial(_spectrum, series, w, settings)), series, settings)
        for k, w in enumerate(series.anchors)
    ]


def _spectrum(series: CheckpointSeries, w: Tensor, settings: HessianSettings) -> dict[str, Array]:
    """Largest eigenvalues and their residuals; trace, share near zero, and that with half the steps, of each probe."""
    d = len(w)
    hessian = HessianOperator(series.objective, w, settings.num_samples, series.plan)
    runs: list[KrylovSpace] = []
    for probe in _probes(settings, d):
        runs.append(lanczos(hessian, probe.to(w), min(settings.num_lanczos_steps, d)))
        series.progress.report(settings.num_lanczos_steps)
        if not np.isfinite(runs[-1].tridiagonal).all():
            return _unknown(settings, d)
    values, residuals = largest_eigenvalues(runs, min(settings.num_eigenvalues, d))
    threshold = settings.near_zero * max(float(np.abs(np.linalg.eigvalsh(run.tridiagonal)).max()) for run in runs)
    return {
        "values": values,
        "residuals": residuals,
        "traces": np.array([d * run.tridiagonal[0, 0] for run in runs]),
        "shares": np.array([run.mass_within(threshold) for run in runs]),
        "halves": np.array([run.mass_within(threshold, (len(run.basis) + 1) // 2) for run in runs]),
    }


def _unknown(settings: HessianSettings, d: int) -> dict[str, Array]:
    """Where the loss has no finite second derivatives."""
    values, probes = (np.full(n, np.nan) for n in (min(settings.num_eigenvalues, d), settings.num_probes))
    return {"values": values, "residuals": values, "traces": probes, "shares": probes, "halves": probes}


def _measurement(spectrum: Mapping[str, Array], series: CheckpointSeries, settings: HessianSettings) -> Measurement:
    values, residuals, shares = spectrum["values"], spectrum["residuals"], spectrum["shares"]
    share, truncation = _mean(shares), float(abs(shares.mean() - spectrum["halves"].mean()))
    return Measurement(
        quantities={
            "hessian_trace": _mean(spectrum["traces"]),
            "hessian_max_eigenvalue": Quantity(float(values[0]), float(residuals[0])),
            "hessian_near_zero_share": Quantity(share.value, math.hypot(share.std_error, truncation)),
        },
        verdict=OK if np.isfinite(values).all() else DIVERGED,
        details={
            "eigenvalues": values.tolist(),
            "residuals": residuals.tolist(),
            "near_zero": settings.near_zero,
            "near_zero_probe_error": share.std_error,
            "near_zero_truncation_error": truncation,
            "num_samples": min(settings.num_samples, series.objective.num_samples),
        },
    )


@dataclass(frozen=True)
class KrylovSpace:
    """span{z, Hz, H²z, ...}: `H basisᵀ = basisᵀ tridiagonal + remainder e_mᵀ`, in double precision."""

    basis: Array
    """(m, d), orthonormal rows; the first is the probe's direction."""
    tridiagonal: Array
    """(m, m)."""
    remainder: Array
    """(d,): β_m times the direction that would come next."""

    def mass_within(self, threshold: float, num_steps: int | None = None) -> float:
        """Share of the spectral mass, seen from the probe, of eigenvalues h with |h| ≤ threshold; num_steps: as the
        first so many steps alone would give it.
        """
        nodes, vectors = np.linalg.eigh(self.tridiagonal[:num_steps, :num_steps])
        return float((vectors[0, np.abs(nodes) <= threshold] ** 2).sum())

    @property
    def products(self) -> Array:
        """(m, d): H times every row of the basis."""
        products = self.tridiagonal @ self.basis
        products[-1] += self.remainder
        return products


def lanczos(product: Callable[[Tensor], Tensor], probe: Tensor, num_steps: int) -> KrylovSpace:
    """Lanczos with full reorthogonalisation (twice, since once leaves ghosts). Ends early in an invariant space."""
    basis = np.empty((num_steps, len(probe)))
    alphas, betas = np.zeros(num_steps), np.zeros(num_steps)
    v = probe.double().cpu().numpy()
    v /= np.linalg.norm(v)
    size, r = 0, v
    while size < num_steps:
        m, size = size, size + 1
        basis[m] = v
        r = product(torch.from_numpy(v).to(probe)).double().cpu().numpy()
        alphas[m] = v @ r
        known = basis[:size]
        for _ in range(2):
            r = r - known.T @ (known @ r)
        betas[m] = np.linalg.norm(r)
        if betas[m] <= BREAKDOWN * max(np.abs(alphas).max(), betas.max()):
            break
        v = r / betas[m]
    tridiagonal = np.diag(alphas[:size]) + np.diag(betas[: size - 1], 1) + np.diag(betas[: size - 1], -1)
    return KrylovSpace(basis[:size], tridiagonal, r)


def largest_eigenvalues(runs: Sequence[KrylovSpace], count: int) -> tuple[Array, Array]:
    """Rayleigh-Ritz on the union of Krylov spaces: the `count` largest Ritz values, downwards, and their residuals."""
    vectors = np.concatenate([run.basis for run in runs])
    products = np.concatenate([run.products for run in runs])
    sizes, left = np.linalg.eigh(vectors @ vectors.T)
    kept = sizes > INDEPENDENT * sizes[-1]
    whiten = (left[:, kept] / np.sqrt(sizes[kept])).T
    basis, products = whiten @ vectors, whiten @ products
    projected = basis @ products.T
    values, ritz = np.linalg.eigh((projected + projected.T) / 2)
    top = np.argsort(values)[::-1][:count]
    residuals = np.linalg.norm(ritz[:, top].T @ products - values[top, None] * (ritz[:, top].T @ basis), axis=1)
    return values[top], residuals


def _probes(settings: HessianSettings, d: int) -> Tensor:
    signs = [
        generator(settings.seed, Stream.PROBE, probe, 0).integers(0, 2, d, dtype=np.int8) * 2 - 1
        for probe in range(settings.num_probes)
    ]
    return torch.from_numpy(np.stack(signs)).float()


def _mean(samples: Array) -> Quantity:
    return Quantity(float(samples.mean()), float(samples.std(ddof=1)) / len(samples) ** 0.5)
