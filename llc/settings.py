"""Every setting of a computation and its only default: the HTTP body, the database row and the sampler share these.

Frozen; unknown keys are refused; no torch.
"""

import math
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegativeFloat = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Frozen(BaseModel):
    """A value object: immutable, hashable, no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class SGLDSettings(Frozen):
    """Stochastic gradient Langevin dynamics in the convention of Lau et al. (arXiv 2308.12108):
    `w ← w − (ε/2) [nβ ∇L_m(w) + γ (w − w*)] + N(0, ε)`.
    """

    name: Literal["sgld"] = "sgld"
    epsilon: PositiveFloat = Field(default=1e-4, description="Step size ε.")


class HealthSettings(Frozen):
    """When an estimate is not to be believed as it stands."""

    max_r_hat: PositiveFloat = Field(default=1.1, description="Chains disagree beyond this split R-hat.")
    min_ess_per_chain: PositiveFloat = Field(default=4.0, description="Fewer effective draws a chain are too few.")
    min_virial: PositiveFloat = Field(default=0.9, description="Below this virial ratio the chains have not spread.")
    max_virial: PositiveFloat = Field(default=1.1, description="Above this virial ratio the step is too large.")
    min_z: PositiveFloat = Field(default=3.0, description="Negative beyond this many standard errors: no minimum.")


class LLCSettings(Frozen):
    """How λ̂ is estimated. A number without its (nβ, γ) means nothing: both are kept with every result."""

    sampler: SGLDSettings = SGLDSettings()
    nbeta: PositiveFloat | None = Field(
        default=None,
        description="Inverse temperature nβ; null means n / log n, n the number of samples of the data set.",
    )
    gamma: NonNegativeFloat = Field(default=100.0, description="Strength γ of the tether (γ/2)‖w − w*‖².")
    batch_size: int = Field(default=256, ge=1, description="Samples of a minibatch, drawn with replacement.")
    num_chains: int = Field(default=4, ge=2, le=64, description="Independent chains; an error bar needs two.")
    num_burnin_steps: int = Field(
        default=300, ge=0, le=1_000_000, description="Steps thrown away at the start of a chain."
    )
    num_draws: int = Field(default=300, ge=8, le=1_000_000, description="Draws kept of every chain.")
    steps_between_draws: int = Field(default=1, ge=1, le=1_000, description="Steps from one draw to the next.")
    seed: int = Field(
        default=0, ge=0, lt=2**63, description="Noise and minibatches are a function of (seed, chain, step)."
    )
    health: HealthSettings = HealthSettings()

    @property
    def num_steps(self) -> int:
        """Steps of one chain."""
        return self.num_burnin_steps + self.num_draws * self.steps_between_draws

    @property
    def work(self) -> int:
        """Row-steps for one checkpoint, the unit of progress: a gradient of one row."""
        return self.num_chains * self.num_steps

    def nbeta_for(self, num_samples: int) -> float:
        """nβ of this estimate: as given, or n / log n."""
        return self.nbeta if self.nbeta is not None else num_samples / math.log(max(num_samples, 3))


class LossSettings(Frozen):
    """The mean loss over the whole data set, with the standard error of that mean over samples."""

    @property
    def work(self) -> int:
        """One pass over the data."""
        return 1


class HessianSettings(Frozen):
    """Curvature of the loss at w*: trace, largest eigenvalues and the spectral mass near zero."""

    num_probes: int = Field(default=4, ge=2, le=256, description="Random vectors; each starts a Lanczos run.")
    num_lanczos_steps: int = Field(default=20, ge=2, le=512, description="Steps of each Lanczos run.")
    num_eigenvalues: int = Field(default=5, ge=1, le=64, description="Largest eigenvalues to report.")
    near_zero: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=1e-2, description="An eigenvalue is near zero below this share of the largest one."
    )
    num_samples: int = Field(
        default=1024, ge=1, description="Samples of the data set used, evenly spaced; all of them if there are fewer."
    )
    seed: int = Field(default=0, ge=0, lt=2**63, description="Probes are the same at every checkpoint of a series.")

    @property
    def work(self) -> int:
        """Hessian products for one checkpoint."""
        return self.num_probes * self.num_lanczos_steps


class MeasureSettings(Frozen):
    """What is measured at every checkpoint; null leaves a measure out."""

    loss: LossSettings | None = LossSettings()
    llc: LLCSettings | None = LLCSettings()
    hessian: HessianSettings | None = None

    def chosen(self) -> dict[str, LossSettings | LLCSettings | HessianSettings]:
        """The measures asked for, by name, in the order they run."""
        return {name: settings for name in type(self).model_fields if (settings := getattr(self, name)) is not None}

    @property
    def work(self) -> int:
        """What one checkpoint costs, in row-steps."""
        return sum(settings.work for settings in self.chosen().values())


class StageSettings(Frozen):
    """How a curve is read into plateaus and transitions."""

    min_z: PositiveFloat = Field(
        default=3.0, description="A change of the LLC counts beyond this many standard errors ..."
    )
    min_share: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.02, description="... and beyond this share of the whole curve's range."
    )
    plateau_share: Annotated[float, Field(gt=0, lt=0.5)] = Field(
        default=0.05,
        description="A transition starts and ends where this share of its own change is done, and is left.",
    )
    slight_loss_share: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.2,
        description="The loss changes 'only slightly' below this share of its range over the whole run.",
    )


MAX_SHARD_NUMBERS = 250_000_000
"""Parameters in all rows of a shard: about 5 GB with gradients and noise. A shard of one checkpoint may exceed it."""


class JobSettings(Frozen):
    """What a job computes and how it is cut into shards."""

    measures: MeasureSettings = MeasureSettings()
    stages: StageSettings = StageSettings()
    checkpoints_per_shard: int = Field(
        default=10, ge=1, le=1024, description="Checkpoints that one process computes together; they share their noise."
    )
    device: Literal["auto", "cpu", "gpu"] = Field(
        default="auto", description="Queue; auto takes a GPU worker if there is one."
    )

    def shard_size(self, num_parameters: int) -> int:
        """Checkpoints of one shard: as asked for, fewer where the rows of a large model would not fit in memory."""
        chains = self.measures.llc.num_chains if self.measures.llc else 1
        return max(1, min(self.checkpoints_per_shard, MAX_SHARD_NUMBERS // (chains * num_parameters)))
