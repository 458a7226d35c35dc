"""Every setting of a computation and its only default: the HTTP body, the database row and the sampler share these.

Frozen; unknown keys are refused; no torch.
"""

import math
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
    model_validator,
)

PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegativeFloat = Annotated[float, Field(ge=0, allow_inf_nan=False)]


def _not_ours(name: str) -> str:
    if name in ("probe", "two_temperatures", "plateau"):
        raise ValueError(f"llc_{name} is a quantity of its own; choose another name")
    return name


RefinedName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,39}$"), AfterValidator(_not_ours)]
Pattern = Annotated[str, StringConstraints(min_length=1, max_length=500)]


class Frozen(BaseModel):
    """A value object: immutable, hashable, no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def __hash__(self) -> int:
        """Pydantic's own knows no hash of a dict."""
        fields = (frozenset(value.items()) if isinstance(value, dict) else value for _, value in self)
        return hash((type(self), *fields))


Epsilon = Annotated[
    PositiveFloat,
    Field(description="Step size ε, the square of the time step: stable while ε (nβ h + γ) < 4, h the curvature."),
]


class SGLDSettings(Frozen):
    """Stochastic gradient Langevin dynamics in the convention of Lau et al. (arXiv 2308.12108):
    `w ← w − (ε/2) [nβ ∇L_m(w) + γ (w − w*)] + N(0, ε)`.
    """

    name: Literal["sgld"] = "sgld"
    epsilon: Epsilon = 1e-4
    noise: Literal["independent", "averaged"] = Field(
        default="averaged",
        description="averaged: the mean of two consecutive draws (Leimkuhler & Matthews), exact on quadratics; "
        "independent: plain SGLD.",
    )


class PSGLDSettings(Frozen):
    """SGLD preconditioned by RMSprop (Li et al., arXiv 1512.07666), as in the benchmark arXiv 2507.21449."""

    name: Literal["psgld"] = "psgld"
    epsilon: Epsilon = 1e-6
    decay: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.99, description="Weight of the past in the second moments of the loss gradient."
    )
    stability: PositiveFloat = Field(default=0.01, description="a in ε / (√v + a).")
    correction: bool = Field(
        default=False,
        description="Add the drift that a preconditioner moving with w calls for; a Hessian product a step.",
    )


class SGNHTSettings(Frozen):
    """Stochastic gradient Nosé-Hoover thermostat (Ding et al. 2014): the friction adapts to the gradient noise."""

    name: Literal["sgnht"] = "sgnht"
    epsilon: Epsilon = 1e-5
    friction: PositiveFloat = Field(
        default=0.1, description="Friction of one time step that the injected noise is for."
    )


class BAOABSettings(Frozen):
    """Underdamped Langevin dynamics in the splitting BAOAB (Leimkuhler & Matthews, arXiv 1203.5428)."""

    name: Literal["baoab"] = "baoab"
    epsilon: Epsilon = 1e-5
    momentum: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.9, description="Share of the momentum that one step keeps; 0 is SGLD with averaged noise."
    )


class MALASettings(Frozen):
    """Metropolis-adjusted Langevin (Roberts & Tweedie 1996), on the full data: no step-size bias; for small models."""

    name: Literal["mala"] = "mala"
    epsilon: Epsilon = 1e-4


def _sgld_if_unnamed(value: Any) -> Any:
    return {"name": "sgld", **value} if isinstance(value, dict) else value


SamplerSettings = Annotated[
    SGLDSettings | PSGLDSettings | SGNHTSettings | BAOABSettings | MALASettings,
    Field(discriminator="name"),
    BeforeValidator(_sgld_if_unnamed),
]
"""A kernel and its settings, told apart by `name`; SGLD without one."""


class HealthSettings(Frozen):
    """When an estimate is not to be believed as it stands."""

    max_r_hat: PositiveFloat = Field(default=1.1, description="Chains disagree beyond this split R-hat.")
    min_ess_per_chain: PositiveFloat = Field(default=4.0, description="Fewer effective draws a chain are too few.")
    min_virial: PositiveFloat = Field(default=0.9, description="Below this virial ratio the chains have not spread.")
    max_virial: PositiveFloat = Field(default=1.1, description="Above this virial ratio the step is too large.")
    max_excess: PositiveFloat = Field(
        default=0.25,
        description="Above this share of λ̂ taken off for step size and gradient noise, both are too large.",
    )
    max_drift: PositiveFloat = Field(
        default=0.1, description="A significant change from the first to the second half of the draws, as a share of λ̂."
    )
    min_z: PositiveFloat = Field(default=3.0, description="Negative beyond this many standard errors: no minimum.")


class Refinement(Frozen):
    """What a refined LLC (Wang et al., arXiv 2410.02984) looks at: some of the weights, another data set, or both."""

    weights: Annotated[tuple[Pattern, ...], Field(min_length=1, max_length=100)] | None = Field(
        default=None,
        description="Parameters that are free, all others are held: names with * and ?, with slices if wanted "
        "(layers.0.self_attn.in_proj_weight[0:16, :]); null: all are free.",
    )
    dataset: Annotated[str, StringConstraints(max_length=100)] | None = Field(
        default=None, description="Id of the data set whose loss is used; null: the series'."
    )

    @model_validator(mode="after")
    def _refines(self) -> Self:
        if self.weights is None and self.dataset is None:
            raise ValueError("a refinement names weights, or a data set, or both")
        return self


class Scale(Frozen):
    """Where λ̂ is looked at."""

    nbeta: PositiveFloat
    gamma: PositiveFloat


class Target(Frozen):
    """When λ̂ is known well enough: at whichever of the two is reached first. Only sampling errors count, which more
    draws make smaller.
    """

    std_error: PositiveFloat | None = Field(default=None, description="Standard error of λ̂.")
    relative_error: PositiveFloat | None = Field(default=0.03, description="Standard error of λ̂ as a share of it.")

    @model_validator(mode="after")
    def _targets(self) -> Self:
        if self.std_error is None and self.relative_error is None:
            raise ValueError("a target names std_error or relative_error, or both")
        return self

    def error(self, llc: float) -> float:
        """The standard error at which this λ̂ is known well enough."""
        return max(self.std_error or 0.0, (self.relative_error or 0.0) * abs(llc))


class StabilitySettings(Frozen):
    """An ensemble of further measurements, whose stages say how often a transition survives (`llc.stability`)."""

    num_members: int = Field(default=8, ge=2, le=64, description="Each costs as much as the LLC itself.")
    spread: float = Field(default=1.5, ge=1, le=100, description="nβ and γ differ from the LLC's by up to this factor.")
    keep: float = Field(default=0.8, gt=0, le=1, description="Share of the checkpoints that a member's stages are of.")


class ChainSettings(Frozen):
    """What is for a person to say, whoever chooses the rest."""

    nbeta: PositiveFloat | None = Field(
        default=None,
        description="Inverse temperature nβ; null means n / log n, n the number of samples of the data set.",
    )
    tether: Literal["parameters", "tensors"] = Field(
        default="parameters",
        description="Unit of w − w* in the tether and the steps; tensors: the root mean square of each tensor of w*, "
        "which makes λ̂ invariant when layers are rescaled.",
    )
    batch_size: int = Field(
        default=256, ge=1, description="Samples of a minibatch, drawn with replacement; from n on, the whole data set."
    )
    num_chains: int = Field(default=4, ge=2, le=64, description="Independent chains; an error bar needs two.")
    num_probe_samples: int = Field(
        default=0,
        ge=0,
        le=1_000_000,
        description="Samples of a fixed probe set, evenly spaced in the data set, whose losses are recorded at draws.",
    )
    draws_between_probes: int = Field(
        default=10, ge=1, le=1_000, description="Draws from one evaluation of the probe set to the next."
    )
    keep_draws: Literal["none", "chains", "samples"] = Field(
        default="chains",
        description="What stays of the draws, in a file for each checkpoint. chains: losses, virials and distances of "
        "every chain, about 40 bytes a draw; samples: the losses of the probe set's samples as well.",
    )
    seed: int = Field(
        default=0, ge=0, lt=2**63, description="Noise and minibatches are a function of (seed, chain, step)."
    )
    refined: Annotated[dict[RefinedName, Refinement], Field(max_length=64)] = Field(
        default={},
        description="Refined LLCs by name, at the same nβ and γ: a refinement 'attn' gives the quantity llc_attn.",
    )
    scales: Annotated[tuple[Scale, ...], Field(max_length=64)] = Field(
        default=(),
        description="λ̂ at these nβ and γ as well. ε goes with them, so that no row is less stable than "
        "the main one. One at another nβ and the same γ: λ without the loss at w*; two: the plateau of λ̂ as well.",
    )
    stability: StabilitySettings | None = Field(
        default=None, description="How often do transitions survive other chains at other scales? null: nobody asks."
    )
    call_megabytes: int = Field(
        default=1024,
        ge=1,
        le=1_000_000,
        description="Memory, in 2²⁰ bytes, for the rows that go through the model together; on a GPU half of what is "
        "free, if that is more.",
    )
    compile: bool = Field(
        default=False,
        description="Try torch.compile, and use it if it is faster, as for tiny models: up to a minute before the "
        "first step, and numbers that agree with those of other machines within rounding only.",
    )
    health: HealthSettings = HealthSettings()

    @property
    def datasets(self) -> list[str]:
        """Ids of the data sets that refinements name."""
        return sorted({refinement.dataset for refinement in self.refined.values() if refinement.dataset is not None})

    @property
    def num_rows(self) -> int:
        """Rows of one checkpoint: the LLC, the refined ones, those at other scales, and an ensemble's."""
        members = self.stability.num_members if self.stability else 0
        return 1 + len(self.refined) + len(self.scales) + members

    def nbeta_for(self, num_samples: int) -> float:
        """nβ of this estimate: as given, or n / log n."""
        return self.nbeta if self.nbeta is not None else num_samples / math.log(max(num_samples, 3))


class LLCSettings(ChainSettings):
    """How λ̂ is estimated. A number without its (nβ, γ) means nothing: both are kept with every result."""

    sampler: SamplerSettings = SGLDSettings()
    gradient: Literal["minibatch", "control_variate"] = Field(
        default="minibatch",
        description="control_variate: ∇L_B(w) − ∇L_B(w*) + ∇L_n(w*) (arXiv 1706.05439); two gradients a step.",
    )
    gamma: NonNegativeFloat = Field(default=100.0, description="Strength γ of the tether (γ/2)‖w − w*‖².")
    num_burnin_steps: int = Field(
        default=300, ge=0, le=1_000_000, description="Steps thrown away at the start of a chain."
    )
    num_draws: int = Field(default=300, ge=8, le=1_000_000, description="Draws kept of every chain.")
    target: Target | None = Field(
        default=None, description="Go on, num_draws at a time, until λ̂ is known so well; null: num_draws will do."
    )
    max_draws: int = Field(
        default=10_000, ge=8, le=10_000_000, description="Draws of a chain beyond which it stops short of its target."
    )
    steps_between_draws: int = Field(default=1, ge=1, le=1_000, description="Steps from one draw to the next.")
    step_error: NonNegativeFloat = Field(
        default=0.0, description="Standard error from the step size, as a share of λ̂; a calibration measures it."
    )

    @property
    def num_steps(self) -> int:
        """Steps of one chain; more if that misses its target."""
        return self.num_burnin_steps + self.num_draws * self.steps_between_draws

    @property
    def work(self) -> int:
        """Row-steps for one checkpoint, the unit of progress: a gradient of one row."""
        return self.num_chains * self.num_rows * self.num_steps


class AutoLLCSettings(ChainSettings):
    """Settings to be chosen by a pilot on a few checkpoints of the series, once for all of it (`llc.calibration`),
    which may choose larger minibatches than batch_size.
    """

    settings: Literal["auto"] = "auto"
    gamma: PositiveFloat | None = Field(
        default=None, description="Strength γ of the tether; null: the weakest at which chains spread in the budget."
    )
    target: Target = Target()
    budget: int = Field(
        default=8000,
        ge=400,
        le=100_000_000,
        description="Minibatch gradients that one checkpoint is meant to cost, all chains together: the more, the "
        "longer the burn-in and the weaker the tether.",
    )
    extension: float = Field(
        default=16,
        ge=1,
        le=1000,
        description="Budgets that a checkpoint may cost where its target is not reached within one.",
    )
    num_pilot_checkpoints: int = Field(default=3, ge=1, le=16, description="Checkpoints of the pilot.")

    @property
    def work(self) -> int:
        """Row-steps for one checkpoint, if that reaches its target."""
        return self.budget * self.num_rows

    def as_given(self, **changes: Any) -> LLCSettings:
        """What of these a pilot has no choice about, the rest at its defaults but for these changes."""
        kept = {name: getattr(self, name) for name in ChainSettings.model_fields}
        return LLCSettings().model_copy(update=kept | changes)

    def pilot(self, num_checkpoints: int) -> list[int]:
        """Which checkpoints of a series the pilot takes: evenly spaced, the first and the last among them."""
        count = min(self.num_pilot_checkpoints, num_checkpoints)
        return sorted({round(i * (num_checkpoints - 1) / max(1, count - 1)) for i in range(count)})


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


def _spell_out(value: Any) -> Any:
    return {"settings": "auto"} if value == "auto" else value


def _given_or_auto(value: Any) -> str:
    settings = value.get("settings") if isinstance(value, dict) else getattr(value, "settings", None)
    return "auto" if settings == "auto" else "given"


GivenOrAuto = Annotated[
    Annotated[LLCSettings, Tag("given")] | Annotated[AutoLLCSettings, Tag("auto")],
    Discriminator(_given_or_auto),
    BeforeValidator(_spell_out, json_schema_input_type=LLCSettings | AutoLLCSettings | Literal["auto"]),
]
"""How the LLC is estimated: with these settings, or with what a pilot chooses."""


class MeasureSettings(Frozen):
    """What is measured at every checkpoint; null leaves a measure out."""

    loss: LossSettings | None = LossSettings()
    llc: GivenOrAuto | None = Field(default=LLCSettings(), description='Settings, or "auto": let a pilot choose them.')
    hessian: HessianSettings | None = None

    def chosen(self) -> dict[str, LossSettings | LLCSettings | AutoLLCSettings | HessianSettings]:
        """The measures asked for, by name, in the order they run."""
        return {name: settings for name in type(self).model_fields if (settings := getattr(self, name)) is not None}

    @property
    def work(self) -> int:
        """What one checkpoint costs, in row-steps."""
        return sum(settings.work for settings in self.chosen().values())


class StageSettings(Frozen):
    """How a curve is read into plateaus and transitions."""

    step_offset: PositiveFloat = Field(default=1.0, description="c in log(step + c), the axis of curves.")
    min_z: PositiveFloat = Field(
        default=4.0, description="The LLC has turned once it has come back by this many standard deviations ..."
    )
    min_share: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.01, description="... beyond this share of the whole curve's range."
    )
    plateau_share: Annotated[float, Field(gt=0, lt=0.5)] = Field(
        default=0.05,
        description="A transition starts where this share of its change is done, and ends where all but it is.",
    )
    slight_loss_share: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.2,
        description="The loss changes 'only slightly' below this share of its largest change in another transition in "
        "which the LLC rises; if there is none, of its range over the run.",
    )
    min_probability: Annotated[float, Field(gt=0.5, le=1)] = Field(
        default=0.9, description="A transition has a type that is at least so likely."
    )
    seed: int = Field(default=0, ge=0, lt=2**63, description="Of the paths drawn from the curve's posterior.")


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
        llc = self.measures.llc
        rows = 1 if llc is None else llc.num_chains * llc.num_rows
        return max(1, min(self.checkpoints_per_shard, MAX_SHARD_NUMBERS // (rows * num_parameters)))
