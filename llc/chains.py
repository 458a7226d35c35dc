"""The only sampling loop: rows of (chain, row) walk about their anchors w*, all with the same draws.

`w = w* + s∘u` (`llc.rows`); the energy of a row is `U = nβ L + (γ/2)‖u‖²`. At every kept step it records the minibatch
loss `L_B(w)` beside the **paired baseline** `L_B(w*)` of the same minibatch B, whose noise cancels in the difference,
and the two parts of the virial `u·∇U`, whose expectation at equilibrium is the number of free parameters (integration
by parts). The gradient is the minibatch's, or with control variates `∇L_B(w) − ∇L_B(w*) + ∇L_n(w*)` (arXiv 1706.05439),
whose noise vanishes at the anchor.

**Excess.** What a finite step and gradient noise add to λ̂ is measured as the chains go. With g = nβ ∇L, F = g + γ u, a
kernel's first-order stretch s_i and heat a_i of a coordinate (`llc.samplers.base`), C the noise's covariance:

- stretch: a direction of curvature h is wider by `1 + s (nβ h + γ)`, so that λ̂ grows by `½ E Σ s_i g_i F_i`: exactly so
  on quadratics, however large the step, since the wider chain itself is averaged over;
- heat: it counts `½ nβ h / (nβ h + γ)` for λ̂, hotter by a C as much more: λ̂ grows by `½ ρ Σ a_i C_i`, ρ the loss'
  share of the stiffness in the directions of the noise: a small one where the tether holds these, as it may those of
  control variates' noise. On quadratics `E u_i g_j` over `E u_i F_j` is that share, so `ρ = E tr(a C u gᵀ) / E tr(a C u
  Fᵀ)`.

Now and then a second minibatch at the same place, g' and F', tells them apart: `E g_i F'_i` has no noise in it, and
`δ = g − g'` is nothing but noise, `E δ_i δ_j = 2 C_ij`: `tr(a C u gᵀ)` is the mean of `(aδ·u) (δ·(g + g')/2) / 2`.
Half the virial is larger by `½ E Σ s_i F_i F'_i` and `½ Σ a_i C_i`.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.linalg import vecdot

from llc.compiled import MinibatchGradients
from llc.draws import Array, Draws
from llc.ensemble import PLAN, Gradients, Plan, Terms, mean_gradients, per_sample_losses
from llc.minibatches import MINIBATCHES_AT_ONCE, Minibatch, Minibatches
from llc.objective import Objective
from llc.progress import NO_PROGRESS, Arrays, Progress
from llc.rows import Rows
from llc.samplers import Columns, Kernel, Point, kernel
from llc.settings import LLCSettings

T = TypeVar("T")

DRAWS_BETWEEN_EXCESSES = 10
"""Draws from one second minibatch to the next: a tenth more gradients."""


def sample(
    objective: Objective,
    rows: Rows,
    settings: LLCSettings,
    plan: Plan = PLAN,
    progress: Progress = NO_PROGRESS,
) -> Draws:
    """Run the chains of all rows for num_draws draws, whatever the target. settings: what is not a column of `rows`."""
    chains = Chains(objective, rows, settings, plan, progress)
    chains.burn_in(settings.num_burnin_steps)
    return chains.draw(settings.num_draws)


class Chains:
    """Chains that can go on: `burn_in`, then `draw` as often as wanted."""

    def __init__(
        self,
        objective: Objective,
        rows: Rows,
        settings: LLCSettings,
        plan: Plan = PLAN,
        progress: Progress = NO_PROGRESS,
        part: str | None = None,
    ) -> None:
        """part: their name in what is kept, from where they go on; None: nothing is kept of them."""
        self._objective, self._rows, self._settings = objective, rows, settings
        self._progress, self._part = progress, part
        self._kernel = kernel(settings.sampler)
        self._chains, self._num_rows = settings.num_chains, len(rows)
        self._step, self._until, self._num_drawn = 0, 0, 0
        self._rounds: list[Draws] = []
        self._num_rounds = 0
        self._record: _Record | None = None
        self._stopped: set[int] = set()
        self._minibatches = Minibatches(objective, rows, settings, full=self._kernel.full_data)
        self._common = self._minibatches.common
        self._diverged_at = np.full((self._chains, self._num_rows), -1)
        start = self._to_device(self._common.start())
        mean = mean_gradients(objective, rows.anchors, plan) if settings.gradient == "control_variate" else None
        gradients_at = MinibatchGradients(objective, plan)
        self._pieces = [
            _Piece(objective, self._kernel, rows, chains, part, plan, gradients_at, mean, start)
            for chains, part in plan.pieces(self._chains, self._num_rows, objective.layout.num_parameters)
        ]
        num_probe_samples = min(settings.num_probe_samples, objective.num_samples)
        self._probe = torch.arange(num_probe_samples, device=objective.device)
        self._probe = self._probe * objective.num_samples // max(1, num_probe_samples)
        self._probe_baselines = per_sample_losses(objective, rows.anchors, self._probe, plan).cpu().numpy()
        kept = None if part is None else progress.recall(part)
        if kept is not None:
            self._go_on_from(kept)

    def burn_in(self, num_steps: int) -> None:
        """Steps that leave no draw."""
        self._until += num_steps
        while self._step < self._until:
            for _ in self._advance(self._minibatches.at(self._step)):
                pass
            self._keep()

    @property
    def positions(self) -> Tensor:
        """(chains, rows, d): w of every row."""
        positions = self._rows.anchors.new_empty(self._chains, *self._rows.anchors.shape)
        for piece in self._pieces:
            positions[piece.chains, piece.rows] = piece.position
        return positions

    def stop(self, rows: Collection[int]) -> None:
        """These rows need not go on; what is drawn of them from now on may be NaN."""
        self._stopped.update(rows)
        self._pieces = [piece for piece in self._pieces if not self._stopped.issuperset(piece.row_numbers)]

    def draw(self, num_draws: int) -> Draws:
        """Go on, and record. Every so many draws of all that were recorded, not of these, an excess or a probe is."""
        settings, number = self._settings, self._num_rounds
        due = range(self._num_drawn, self._num_drawn + num_draws)
        self._num_rounds, self._num_drawn = number + 1, due.stop
        if number < len(self._rounds):  # drawn by a process before this one
            self._until += num_draws * settings.steps_between_draws
            return self._rounds[number]
        excess_at = _multiples(due, DRAWS_BETWEEN_EXCESSES)
        probe_at = _multiples(due, settings.draws_between_probes) if len(self._probe) else range(0)
        record = self._record = self._record or self._empty_record(num_draws, len(excess_at), len(probe_at))
        self._until += record.num_draws * settings.steps_between_draws
        for draw in range(record.num_draws, num_draws):
            self.burn_in(settings.steps_between_draws - 1)
            wants_excess, wants_probe = due[draw] in excess_at, due[draw] in probe_at
            second = self._minibatches.second(self._step) if wants_excess and not self._minibatches.full else None
            minibatch = self._minibatches.at(self._step)
            record.seen.append(minibatch.indices)
            if len(record.seen) == MINIBATCHES_AT_ONCE or draw == num_draws - 1:
                seen = slice(draw + 1 - len(record.seen), draw + 1)
                record.scalars[1, seen] = self._minibatches.baselines(record.seen)
                record.seen.clear()
            self._until += 1
            for piece, point in self._advance(minibatch):
                where = piece.chains, piece.rows
                record.scalars[0, draw, *where] = point.losses
                record.scalars[2, draw, *where] = vecdot(point.u, point.gradients)
                record.scalars[3, draw, *where] = vecdot(point.u, point.u)
                if wants_excess:
                    record.excesses[:, excess_at.index(due[draw]), *where] = _numpy(piece.excess(point, second))
                if wants_probe:
                    probed = piece.probe_losses(point, self._probe)
                    record.probes[probe_at.index(due[draw]), *where] = _numpy(probed)
            record.num_draws += 1
            self._keep()
        self._rounds.append(self._draws(record))
        self._record = None
        return self._rounds[-1]

    def end(self) -> None:
        """No more will be drawn: of what is kept for another process, the draws are enough."""
        self._pieces, self._record = [], None
        self._keep(over=True)

    def _empty_record(self, num_draws: int, num_excesses: int, num_probes: int) -> "_Record":
        shape = (self._chains, self._num_rows)
        return _Record(
            # They stay where they are computed until all is done.
            scalars=self._rows.anchors.new_full((4, num_draws, *shape), torch.nan),
            excesses=np.full((5, num_excesses, *shape), np.nan),
            probes=np.full((num_probes, *shape, len(self._probe)), np.nan, np.float32),
        )

    def _draws(self, record: "_Record") -> Draws:
        losses, baselines, works, squares = (_rows_first(_numpy(scalar)) for scalar in record.scalars)
        stretch, virial_stretch, heat, *parts = map(_rows_first, record.excesses)
        return Draws(
            losses=losses,
            baselines=baselines,
            works=works,
            squares=squares,
            excesses=stretch + _share_of_loss(*parts)[:, None, None] * heat,
            virial_excesses=virial_stretch + heat,
            probe_losses=_rows_first(record.probes),
            probe_baselines=self._probe_baselines,
            diverged_at=self._diverged_at.T.copy(),
            epsilon=_numpy(self._rows.epsilon),
            nbeta=_numpy(self._rows.nbeta),
            gamma=_numpy(self._rows.gamma),
            num_free=_numpy(self._rows.num_free()),
            acceptance=self._acceptance(),
        )

    # Keeping and going on ---------------------------------------------------------------------------------------------

    def _keep(self, *, over: bool = False) -> None:
        if self._part is not None:
            self._progress.keep(self._part, self._state, over=over)

    def _state(self) -> Arrays:
        """All that the next step depends on, and all that was drawn."""
        state: dict[str, NDArray[Any]] = {"step": np.array(self._step), "diverged_at": self._diverged_at}
        for piece in self._pieces:
            state |= {f"{piece.name} {name}": tensor.cpu().numpy() for name, tensor in piece.tensors().items()}
        for number, draws in enumerate(self._rounds):
            state |= {f"round {number} {name}": array for name, array in vars(draws).items()}
        if self._record is not None:
            state |= {f"record {name}": array for name, array in self._record.arrays().items()}
        return state

    def _go_on_from(self, state: Arrays) -> None:
        """Be as the chains were whose `_state` this is, and give again what they gave when asked for it again."""
        self._step, self._diverged_at = int(state["step"]), state["diverged_at"].copy()
        for piece in self._pieces:
            piece.take(_under(state, f"{piece.name} "))
        while rounds := _under(state, f"round {len(self._rounds)} "):
            self._rounds.append(Draws(**rounds))
        record = _under(state, "record ")
        self._record = _Record.of_arrays(record, self._rows.anchors.device) if record else None

    def _acceptance(self) -> Array:
        acceptance = np.full((self._num_rows, self._chains), np.nan)
        for piece in self._pieces:
            if "accepted" in piece.state and self._step > 1:
                acceptance[piece.rows, piece.chains] = _numpy(piece.state["accepted"]).T / (self._step - 1)
        return acceptance

    def _advance(self, minibatch: Minibatch) -> "Iterator[tuple[_Piece, Point]]":
        """One step of every row; each piece with its point is yielded before it moves on."""
        noise = self._to_device(self._common.noise(self._step))
        uniforms = self._to_device(self._common.uniforms(self._step))[:, 0] if self._kernel.full_data else None
        signs = self._to_device(self._common.signs(self._step)) if self._kernel.needs_curvatures else None
        for piece in self._pieces:
            point = piece.settle(piece.evaluate(minibatch, signs), uniforms)
            lost = ~point.losses.isfinite().cpu().numpy()
            if lost.any():
                diverged_at = self._diverged_at[piece.chains, piece.rows]
                diverged_at[lost & (diverged_at < 0)] = self._step
            yield piece, point
            piece.move(point, noise)
        self._step += 1
        self._progress.report(sum(piece.num_rows for piece in self._pieces))

    def _to_device(self, numbers: NDArray[np.float32]) -> Tensor:
        return torch.from_numpy(numbers).to(self._rows.anchors.device).unsqueeze(1)


@dataclass
class _Record:
    """What a round of draws has left so far."""

    scalars: Tensor
    """(4, draws, chains, rows): losses, baselines, works and squares."""
    excesses: Array
    """(5, some of the draws, chains, rows)."""
    probes: NDArray[np.float32]
    """(some of the draws, chains, rows, samples)."""
    seen: list[Tensor | None] = field(default_factory=list)
    """Minibatches whose baselines are still to be looked up."""
    num_draws: int = 0

    def arrays(self) -> Arrays:
        seen = {f"seen {i}": np.empty(0) if each is None else each.cpu().numpy() for i, each in enumerate(self.seen)}
        scalars = self.scalars.cpu().numpy()
        others = {"excesses": self.excesses, "probes": self.probes, "num_draws": np.array(self.num_draws)}
        return {"scalars": scalars, **others, **seen}

    @classmethod
    def of_arrays(cls, arrays: Arrays, device: torch.device) -> "_Record":
        seen = [arrays[f"seen {i}"] for i in range(sum(name.startswith("seen ") for name in arrays))]
        return cls(
            scalars=torch.from_numpy(arrays["scalars"].copy()).to(device),
            excesses=arrays["excesses"].copy(),
            probes=arrays["probes"].copy(),
            seen=[torch.from_numpy(each.copy()).to(device) if each.size else None for each in seen],
            num_draws=int(arrays["num_draws"]),
        )


class _Piece:
    """The part of the matrix that steps together: some chains of some rows."""

    def __init__(
        self,
        objective: Objective,
        kernel: Kernel,
        rows: Rows,
        chains: slice,
        part: slice,
        plan: Plan,
        gradients_at: MinibatchGradients,
        mean_gradients: Tensor | None,
        start: Tensor,
    ) -> None:
        self._objective, self._kernel, self._plan, self._gradients_at = objective, kernel, plan, gradients_at
        self.chains, self.rows = chains, part
        self.row_numbers = range(len(rows))[part]
        self.name = f"piece {chains.start} {part.start}"
        self.num_rows = len(start[chains]) * len(self.row_numbers)
        self._anchors = rows.anchors[part]
        self._scales = None if rows.scales is None else rows.scales[part]
        free = None if self._scales is None else self._scales != 0
        self._held = None if free is None or bool(free.all()) else free
        self._nbeta = rows.nbeta[part]
        self._mean_gradients = None if mean_gradients is None else self._nbeta[:, None] * mean_gradients[part]
        self.columns = Columns(
            *(column[part, None] for column in (rows.epsilon, rows.nbeta, rows.gamma, rows.num_free()))
        )
        self._u = self._anchors.new_zeros(len(start[chains]), *self._anchors.shape)
        self.state = kernel.start(self._u, self._of_free(start), self.columns)

    @property
    def position(self) -> Tensor:
        """(chains, rows, d): w."""
        return self._w(self._u)

    def tensors(self) -> Mapping[str, Tensor]:
        """What changes with the steps."""
        return {"u": self._u} | {f"state {name}": tensor for name, tensor in self.state.items()}

    def take(self, tensors: Arrays) -> None:
        """Be where these say; nothing, if there are none."""
        taken = {name: torch.from_numpy(array.copy()).to(self._u.device) for name, array in tensors.items()}
        if taken:
            self._u, self.state = taken["u"], _under(taken, "state ")

    def evaluate(self, minibatch: Minibatch, signs: Tensor | None) -> Point:
        """Losses and forces where the rows are."""
        found = self._gradients(self._u, minibatch, signs)
        gradients = self._in_u(found.gradients)
        forces = torch.addcmul(gradients, self._u, self.columns.gamma)
        curvatures = found.curvatures
        if curvatures is not None:
            curvatures = curvatures / self.columns.nbeta
            if self._scales is not None:
                curvatures = self._scales.square() * curvatures
        return Point(self._u, found.losses, gradients, forces, curvatures)

    def settle(self, point: Point, uniforms: Tensor | None) -> Point:
        """The point that counts as a draw. uniforms: (chains, 1), for a kernel that may refuse."""
        return (
            point if uniforms is None else self._kernel.settle(point, self.state, uniforms[self.chains], self.columns)
        )

    def move(self, point: Point, noise: Tensor) -> None:
        """On to the next place."""
        self._u = self._kernel.step(point, self.state, self._of_free(noise), self.columns)

    def excess(self, point: Point, second: Minibatch | None) -> Tensor:
        """½ Σ s_i g_i F'_i, ½ Σ s_i F_i F'_i, ½ Σ a_i C_i, and of tr(a C u Fᵀ) the loss' part and the tether's:
        (5, chains, rows). second: None without noise.
        """
        still = torch.zeros_like(point.losses)
        other = point.gradients if second is None else self._in_u(self._gradients(point.u, second, None).gradients)
        force = torch.addcmul(other, point.u, self.columns.gamma)
        stretching = self._kernel.stretching(self.state, self.columns)
        heating = self._kernel.heating(self.state, self.columns)
        heat = of_loss = of_tether = still
        if heating is not None and second is not None:
            noise, slope = point.gradients - other, (point.gradients + other) / 2
            hot = heating * noise
            heat = vecdot(hot, noise) / 4
            of_loss = vecdot(hot, point.u) * vecdot(noise, slope)
            of_tether = vecdot(hot, point.u) * vecdot(noise, self.columns.gamma * point.u)
        return torch.stack(
            [
                still if stretching is None else vecdot(stretching * point.gradients, force) / 2,
                still if stretching is None else vecdot(stretching * point.forces, force) / 2,
                heat,
                of_loss,
                of_tether,
            ]
        )

    def probe_losses(self, point: Point, samples: Tensor) -> Tensor:
        """(chains, rows, samples)."""
        w = self._w(point.u)
        found = per_sample_losses(self._objective, w.flatten(0, 1), samples, self._plan)
        return found.view(*w.shape[:2], -1)

    def _gradients(self, u: Tensor, minibatch: Minibatch, signs: Tensor | None) -> Gradients:
        """Of nβ times the loss, with respect to w."""
        batch = {name: array[self.chains] for name, array in minibatch.batch.items()}
        weights = None if minibatch.weights is None else minibatch.weights[self.rows]
        probe = None if signs is None else signs[self.chains]
        found = self._gradients_at(self._w(u), batch, Terms(weights, self._nbeta, probe))
        if self._mean_gradients is None:
            return found
        anchors = self._anchors.expand_as(u)
        at_anchor = self._gradients_at(anchors, batch, Terms(weights, self._nbeta))
        return replace(found, gradients=(found.gradients - at_anchor.gradients).add_(self._mean_gradients))

    def _w(self, u: Tensor) -> Tensor:
        return self._anchors + u if self._scales is None else torch.addcmul(self._anchors, self._scales, u)

    def _in_u(self, gradients: Tensor) -> Tensor:
        """With respect to u."""
        return gradients if self._scales is None else gradients * self._scales

    def _of_free(self, noise: Tensor) -> Tensor:
        mine = noise[self.chains]
        return mine if self._held is None else mine * self._held


def _multiples(numbers: range, of: int) -> range:
    """Those among consecutive numbers."""
    return range(-(-numbers.start // of) * of, numbers.stop, of)


def _under(named: Mapping[str, T], prefix: str) -> dict[str, T]:
    """Those whose names begin so, by what follows."""
    return {name.removeprefix(prefix): each for name, each in named.items() if name.startswith(prefix)}


def _numpy(tensor: Tensor) -> Array:
    return tensor.double().cpu().numpy()


def _rows_first(array: NDArray) -> NDArray:
    """(draws, chains, rows, ...) → (rows, chains, draws, ...)."""
    return np.ascontiguousarray(array.swapaxes(0, 2))


def _share_of_loss(of_loss: Array, of_tether: Array) -> Array:
    """(rows, chains, some of the draws) → (rows,): ρ, from each row's finite draws; 1 where there is no noise."""
    finite = np.isfinite(of_loss) & np.isfinite(of_tether)
    loss, tether = (np.where(finite, part, 0).sum((1, 2)).clip(0) for part in (of_loss, of_tether))
    return np.divide(loss, loss + tether, out=np.ones_like(loss), where=loss + tether > 0)
