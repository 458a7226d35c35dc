"""The curves behind noisy points, as draws from their joint posterior: Gaussian processes whose scales are local.

With x the axis, f a curve, g its slope, points y_i = f(x_i) + e_i with standard errors s_i:

    dg = √q(x) dW,  df = g dx           an integrated Wiener process: between points a cubic spline in the mean
    q_j = τ² λ_j²,  τ, λ_j ~ C⁺(0, 1)   one scale an interval: a horseshoe (Carvalho et al. 2010)
    q_j = τ² λ_j² ω_j²,  ω_j ~ C⁺(0, 1) of every other curve, with a τ of its own, and the λ_j of the first
    e_i = s_i (√c u_i + √(1 − c) v_i)
    u: autoregressive, sd κ, corr(u_i, u_{i+k}) = φᵏ;  v_i / κ ~ Student t₈, or, where no point near agrees, with
    probability .01 normal of sd 30
    κ² ~ about 1, as if from 20 more points

The horseshoe makes most q_j next to nothing and leaves some free: straight where nothing happens, sharp where something
does, each interval with a length scale of its own. (With one length scale a process either rounds off what is sharp or
wiggles where the curve is flat.) Curves share λ: where the loss bends, the LLC may, and the other way round, whatever
their directions; ω leaves either free not to (λ and ω together are a horseshoe⁺, Bhadra et al. 2017). t₈ is for errors
that are themselves estimates, the normal for points that are wrong; c and φ are what chains with common random numbers
share (`shared_noise`).

All conditional laws are known, so they are sampled by Gibbs: f, g and u together, by a banded Cholesky factor (Rue
2001), O(n) a sweep; scales by their inverse gammas (Makalic & Schmidt 2016). Between two points the process is filled
in by its bridge, so that what is not seen is uncertain.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import lgamma, log, pi
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.linalg import lapack

from llc.summaries import around

Floats = NDArray[np.float64]
LAPACK: Any = lapack  # the stubs don't know all of it

NUM_WARM_SWEEPS = 100  # of the burn-in, in which the curve finds its jumps
NUM_BURNIN_SWEEPS = 300
NUM_DRAWS = 700
DOF = 8.0  # of the errors' Student t
NOISE_DOF = 20.0  # points that the prior of κ² is worth
NOISE_MEAN = 0.85  # of κ² where errors are normal: t₈ is wider than the normal
WILD = 30.0  # standard errors of a point that is wrong ...
WILD_SHARE = 0.01  # ... and how many are
ALONE = 3.0  # standard errors that such a point is away from those around it
FINEST = 1e-9  # least variance of an interval's own change, as a share of s²: below it Cholesky would lose its digits
COARSEST = 30.0  # median errors that a point counts as in that, at most: nothing is known of it, and much around it
NUM_HALVINGS = 2  # of every interval, when the bridge is filled in


@dataclass(frozen=True)
class SharedNoise:
    """What neighbours' errors have in common: a share c of the variance, with correlation φᵏ at k points' distance."""

    share: float = 0.0
    memory: float = 0.0


@dataclass(frozen=True)
class Points:
    """What is known of a curve: values (points,), NaN where there is none, positive standard errors, shared noise."""

    y: Floats
    std_error: Floats
    noise: SharedNoise = SharedNoise()


@dataclass(frozen=True)
class Paths:
    """Draws of a curve: value and slope, (draws, points), at x, (points,); every `stride`-th x is one of the data's."""

    x: Floats
    value: Floats
    slope: Floats
    stride: int = 1

    @property
    def at_points(self) -> Floats:
        """Values at the data's own x."""
        return self.value[:, :: self.stride]

    def between(self, low: float, high: float) -> "Paths":
        """What is at low … high, two of the data's own x."""
        keep = (self.x >= low) & (self.x <= high)
        return Paths(self.x[keep], self.value[:, keep], self.slope[:, keep], self.stride)

    def at(self, x: Floats) -> Floats:
        """Values at x (draws, …), a row for each draw: linear between points."""
        return np.stack([np.interp(where, self.x, path) for where, path in zip(x, self.value, strict=True)])


def shared_noise(per_chain: Floats) -> SharedNoise:
    """What common random numbers give neighbours' errors in common, from the chains' own values (points, chains).

    A chain's deviation from the mean of all is that chain's error; least squares of c φᵏ on the deviations'
    correlations at k = 1 … 6. Nothing where there are fewer than ten points or two chains, or the first correlation is
    within twice its error.
    """
    deviation = per_chain - per_chain.mean(axis=1, keepdims=True)
    deviation = deviation[np.isfinite(deviation).all(axis=1) & (np.ptp(deviation, axis=1) > 0)]
    if deviation.ndim < 2 or len(deviation) < 10 or deviation.shape[1] < 2:
        return SharedNoise()
    deviation /= np.sqrt((deviation**2).mean(axis=1, keepdims=True))
    lags = np.arange(1, 7)
    found = np.array([(deviation[:-lag] * deviation[lag:]).mean() for lag in lags])
    if found[0] < 2 / np.sqrt((len(deviation) - 1) * (deviation.shape[1] - 1)):
        return SharedNoise()
    memories = np.linspace(0.1, 0.98, 45)
    powers = memories[:, None] ** lags
    shares = np.clip((powers * found).sum(axis=1) / (powers**2).sum(axis=1), 0, 0.95)
    best = int(np.argmin(((found - shares[:, None] * powers) ** 2).sum(axis=1)))
    return SharedNoise(float(shares[best]), float(memories[best]))


def smooth(x: Floats, curves: Sequence[Points], generator: Generator) -> list[Paths]:
    """Draws from the joint posterior of the curves behind points at x, which increases. Of the first, all are known."""
    chains = [_Chain(x, points, generator, is_first=number == 0) for number, points in enumerate(curves)]
    shared = _HalfCauchy(len(x) - 1)
    for sweep in range(NUM_BURNIN_SWEEPS + NUM_DRAWS):
        for chain in chains:
            chain.draw_curve(shared.square)
        shared.draw(np.sum([chain.squares / chain.own for chain in chains], axis=0), 2 * len(chains), generator)
        for chain in chains:
            chain.draw_scales(shared.square)
            chain.draw_noise(is_warm=sweep >= NUM_WARM_SWEEPS)
            if sweep >= NUM_BURNIN_SWEEPS:
                chain.keep()
    return [chain.paths() for chain in chains]


class _HalfCauchy:
    """Scales σ ~ C⁺(0, 1) of normal numbers, by way of an auxiliary ν for each: inverse gammas, given those numbers."""

    def __init__(self, *shape: int) -> None:
        self.square, self._nu = np.ones(shape), np.ones(shape)

    def draw(self, squares: Floats, count: int, generator: Generator) -> None:
        """squares: for each scale the sum of the squares of `count` numbers."""
        shape = np.shape(squares)
        self.square = (1 / self._nu + squares / 2) / generator.standard_gamma((count + 1) / 2, shape)
        self.square = np.clip(self.square, 1e-14, 1e14)
        self._nu = (1 + 1 / self.square) / generator.standard_gamma(1.0, shape)


class _Chain:
    """A Gibbs sampler of one curve, given what it shares, on axes from 0 to 1.

    The state of point i stands at k i … k i + k − 1 of the unknowns: f, g and, if any, u. squares: of each interval's
    change, q z² for two standard normal z; own: what of q is not shared.
    """

    def __init__(self, x: Floats, points: Points, generator: Generator, is_first: bool) -> None:
        self.x, self.noise, self._generator = x, points.noise, generator
        self.known = known = np.isfinite(points.y)
        y, s = points.y[known], points.std_error[known]
        self.scale = max(float(np.subtract(*np.percentile(y, [90, 10]))), 2 * float(np.median(s)))
        self.middle, self.span = float(np.median(y)), float(x[-1] - x[0])
        self.y, self.s = np.zeros(len(x)), np.full(len(x), np.median(s) / self.scale)
        self.y[known], self.s[known] = (y - self.middle) / self.scale, s / self.scale
        self.h = h = np.diff((x - x[0]) / self.span)
        self._n, self._k = len(x), 3 if self.noise.share else 2
        self._at = self._k * np.arange(self._n)
        # C⁻¹ of an interval's change, [[h³/3, h²/2], [h²/2, h]] q: entries of its three places.
        self._values, self._mixed, self._slopes = 12 / h**3, 6 / h**2, 4 / h
        usual = np.minimum(self.s, COARSEST * np.median(self.s[known]))
        floor = np.maximum(usual[1:], usual[:-1]) ** 2
        self._least_q = np.maximum(3e-6 * floor, 12 * FINEST * floor / h**3)
        self._tau, self._omega = _HalfCauchy(), None if is_first else _HalfCauchy(self._n - 1)
        self.own, self.kappa2 = np.ones(()), 1.0
        self.weights, self._may_be_wild = known * 1.0, known.copy()
        self.weights[known] = _first_weights(self.y[known], self.s[known])
        self._may_be_wild[known] = _is_alone(self.y[known], self.s[known])
        self.u = np.zeros(self._n)
        self._kept: list[tuple[Floats, Floats, Floats]] = []

    def keep(self) -> None:
        """This state, as one of the draws."""
        self._kept.append((self.f, self.g, self.q))

    def paths(self) -> Paths:
        """All that was kept, filled in between points."""
        f, g, q = (np.array(kept) for kept in zip(*self._kept, strict=True))
        paths = Paths(self.x, self.middle + self.scale * f, self.scale / self.span * g)
        q *= self.scale**2 / self.span**3
        for _ in range(NUM_HALVINGS):
            paths, q = _halve(paths, q, self._generator)
        return paths

    def draw_curve(self, lambda2: Floats) -> None:
        """f, g and u given scales: normal, with banded precision P = L Lᵀ and mean P⁻¹ b."""
        self.q = np.maximum(self.own * lambda2, self._least_q)
        precision, b = self._prior(), np.zeros(self._k * self._n)
        at, noise = self._at, self.noise
        weight = self.weights / (self.kappa2 * (1 - noise.share) * self.s**2)
        precision[0, at] += weight
        b[at] = weight * self.y
        if noise.share:
            shared = np.sqrt(noise.share) * self.s
            precision[2, at] += weight * shared
            precision[0, at + 2] += weight * shared**2
            b[at + 2] = weight * shared * self.y
        factor = LAPACK.dpbtrf(precision, lower=1, overwrite_ab=1)[0]
        half = LAPACK.dtbtrs(factor, b[:, None], uplo="L")[0]
        half[:, 0] += self._generator.standard_normal(len(b))
        state = LAPACK.dtbtrs(factor, half, uplo="L", trans="T")[0]
        self.f, self.g = state[at, 0], state[at + 1, 0]
        if noise.share:
            self.u = state[at + 2, 0]
        value = self.f[1:] - self.f[:-1] - self.h * self.g[:-1]
        slope = self.g[1:] - self.g[:-1]
        self.squares = self._values * value**2 - 2 * self._mixed * value * slope + self._slopes * slope**2

    def _prior(self) -> Floats:
        """The precision of the process alone, as the bands on and below the diagonal."""
        k, near, far = self._k, self._at[:-1], self._at[1:]
        values, mixed, slopes = self._values / self.q, self._mixed / self.q, self._slopes / self.q
        bands = np.zeros((2 * k, k * self._n))
        for at in (near, far):
            bands[0, at] += values
            bands[0, at + 1] += slopes
        bands[1, near] += mixed
        bands[1, far] -= mixed
        bands[k, near] = -values  # of f there with f here
        bands[k + 1, near] = mixed  # of g there with f here
        bands[k - 1, near + 1] = -mixed  # of f there with g here
        bands[k, near + 1] = slopes / 2  # of g there with g here
        bands[0, :2] += 1e-4  # where the curve begins, and how steep, is all but unknown
        if k == 3:
            memory = self.noise.memory
            inner = np.full(self._n, 1 + memory**2)
            inner[[0, -1]] = 1
            bands[0, self._at + 2] += inner / (1 - memory**2) / self.kappa2
            bands[k, near + 2] -= memory / (1 - memory**2) / self.kappa2
        return bands

    def draw_scales(self, lambda2: Floats) -> None:
        """τ and, if it has them, ω, given the curve and λ."""
        squares, omega2 = self.squares / lambda2, np.ones(())
        if self._omega is not None:
            self._omega.draw(squares / self._tau.square, 2, self._generator)
            omega2 = self._omega.square
        self._tau.draw((squares / omega2).sum(), 2 * len(squares), self._generator)
        self.own = self._tau.square * omega2

    def draw_noise(self, is_warm: bool) -> None:
        """κ and each point's weight given the curve: t₈ as a mixture of normals, or a point that is wrong. Until the
        chain is warm, points that one near agrees with keep their weight: while the curve is far from its jumps, those
        beside them would lose it, and not get it back.
        """
        gamma, n, share, memory = self._generator.standard_gamma, self._n, self.noise.share, self.noise.memory
        errors = (self.y - self.f - np.sqrt(share) * self.s * self.u) ** 2 / ((1 - share) * self.s**2)
        squares = errors / self.kappa2
        is_wild = self._may_be_wild & (self._generator.random(n) < _wild_share(squares))
        weights = np.where(is_wild, WILD**-2, gamma((DOF + 1) / 2, n) / ((DOF + squares) / 2))
        self.weights = self.known * np.where(is_warm | self._may_be_wild, weights, 1.0)
        total, count = (self.weights * errors).sum(), int(self.known.sum())
        if share:
            total += self.u[0] ** 2 + ((self.u[1:] - memory * self.u[:-1]) ** 2).sum() / (1 - memory**2)
            count += n
        self.kappa2 = float((NOISE_DOF * NOISE_MEAN + total) / 2 / gamma((NOISE_DOF + count) / 2))


def _first_weights(y: Floats, s: Floats) -> Floats:
    """Points far from the median of those around are taken as wrong, to begin with: a chain that had followed one would
    not easily leave it.
    """
    near = around(y, 7)
    middle = np.nanmedian(near, axis=1)
    spread = np.nanmedian(np.abs(near - middle[:, None]), axis=1)
    return np.where(np.abs(y - middle) > 5 * s + 3 * spread, WILD**-2, 1.0)


def _is_alone(y: Floats, s: Floats) -> NDArray[np.bool_]:
    """Points that none of the two before and the two after agrees with. Others are not wrong: two would have to be, in
    the same way. A chain that may take the last point before a jump for a wrong one does so now and then, and stays
    with that.
    """
    alone = np.ones(len(y), dtype=np.bool_)
    for lag in (1, 2):
        differs = np.abs(y[lag:] - y[:-lag]) > ALONE * np.hypot(s[lag:], s[:-lag])
        alone[lag:] &= differs
        alone[:-lag] &= differs
    return alone


def _wild_share(squares: Floats) -> Floats:
    """How likely a point is wrong, given its squared error in standard errors."""
    student = lgamma((DOF + 1) / 2) - lgamma(DOF / 2) - log(DOF * pi) / 2 - (DOF + 1) / 2 * np.log1p(squares / DOF)
    normal = -log(2 * pi) / 2 - log(WILD) - squares / (2 * WILD**2)
    return 1 / (1 + (1 - WILD_SHARE) / WILD_SHARE * np.exp(np.clip(student - normal, -700, 700)))


def _halve(paths: Paths, q: Floats, generator: Generator) -> tuple[Paths, Floats]:
    """The process in the middle of every interval, given both its ends: for halves of length d, f there is normal with
    variance q d³/24 and g with q d/8, independently.
    """
    d = np.diff(paths.x) / 2
    f, g = paths.value, paths.slope
    value = (f[:, :-1] + f[:, 1:]) / 2 + d / 4 * (g[:, :-1] - g[:, 1:])
    slope = 3 / (4 * d) * (f[:, 1:] - f[:, :-1]) - (g[:, :-1] + g[:, 1:]) / 4
    value += np.sqrt(q * d**3 / 24) * generator.standard_normal(q.shape)
    slope += np.sqrt(q * d / 8) * generator.standard_normal(q.shape)
    woven = (_weave(*both) for both in ((paths.x, paths.x[:-1] + d), (f, value), (g, slope)))
    return Paths(*woven, stride=2 * paths.stride), np.repeat(q, 2, axis=1)


def _weave(points: Floats, middles: Floats) -> Floats:
    """Along the last axis: point, middle, point, …, point."""
    woven = np.empty((*points.shape[:-1], 2 * points.shape[-1] - 1))
    woven[..., ::2], woven[..., 1::2] = points, middles
    return woven
