"""What a measurement of the LLC samples at a checkpoint: the LLC itself, refined ones, the LLC at other scales, and the
members of an ensemble. Each is a row of one run; those on another data set are a run of their own, with the same noise;
each member is one with noise of its own.

Refinements (Wang et al., arXiv 2410.02984) are at the LLC's own nβ and γ, be their data set of another size: so what
differs is the weights or the data, and nothing else.
"""

from dataclasses import dataclass
from itertools import groupby

from llc.chains import Chains
from llc.draws import Draws
from llc.ensemble import per_sample_losses
from llc.errors import InputError
from llc.measures.base import CheckpointSeries
from llc.members import at_scale, settings_of
from llc.rounds import run_in_rounds
from llc.rows import concatenate, free_mask, rows_of
from llc.settings import LLCSettings


@dataclass(frozen=True)
class Variant:
    """One row at every checkpoint."""

    label: str
    settings: LLCSettings
    weights: tuple[str, ...] | None = None
    dataset: str | None = None
    is_scale: bool = False
    is_member: bool = False

    @property
    def run(self) -> tuple[str, int]:
        """Those with the same are rows of one run: the data set, and the noise."""
        return self.dataset or "", self.settings.seed


def variants(settings: LLCSettings, num_samples: int) -> list[Variant]:
    """All of them, the LLC first, those of a run side by side. num_samples: n of the series' data set."""
    main = settings.model_copy(update={"nbeta": settings.nbeta_for(num_samples)})
    refined = [
        Variant(f"llc_{name}", main, refinement.weights, refinement.dataset)
        for name, refinement in settings.refined.items()
    ]
    scales = [
        Variant(
            f"llc at nbeta {scale.nbeta:g}, gamma {scale.gamma:g}",
            at_scale(main, scale.nbeta, scale.gamma),
            is_scale=True,
        )
        for scale in settings.scales
    ]
    members: list[Variant] = []
    if settings.stability is not None:
        members = [
            Variant(f"llc of member {member}", settings_of(member, main, settings.stability.spread), is_member=True)
            for member in range(settings.stability.num_members)
        ]
    return [*sorted([Variant("llc", main), *scales, *refined], key=lambda variant: variant.run), *members]


def sample_variants(series: CheckpointSeries, settings: LLCSettings, chosen: list[Variant]) -> list[Draws]:
    """Of every checkpoint, a row for each variant. How long a checkpoint goes on is settled by the LLC itself.

    Raises: InputError `no_such_dataset`, or for a pattern that chooses no parameter.
    """
    count = len(series.anchors)
    parts: list[list[Draws]] = []
    rounds: list[int] | None = None
    for _, variants_of_it in groupby(chosen, key=lambda variant: variant.run):
        mine = list(variants_of_it)
        groups = [range(checkpoint, count * len(mine), count) for checkpoint in range(count)]
        found = run_in_rounds(_chains(series, mine), groups, settings, rounds)
        rounds = rounds or [draws.num_draws // settings.num_draws for draws in found]
        parts.append(found)
    return [Draws.concatenate(of_checkpoint) for of_checkpoint in zip(*parts, strict=True)]


def _chains(series: CheckpointSeries, mine: list[Variant]) -> Chains:
    """Of one run: rows variant by variant, the checkpoints of each in their order."""
    objective, losses = series.objective, series.sample_losses
    first = mine[0]
    dataset = first.dataset
    if dataset is not None:
        if dataset not in series.others:
            raise InputError("no_such_dataset", f"there is no data set '{dataset}'", "give it along with the series")
        objective = series.others[dataset]
        losses = per_sample_losses(objective, series.anchors, plan=series.plan)
    layout, device = objective.layout, series.anchors.device
    masks = [None if v.weights is None else free_mask(layout, v.weights).to(device) for v in mine]
    rows = [
        rows_of(series.anchors, losses, variant.settings, layout, free=free)
        for variant, free in zip(mine, masks, strict=True)
    ]
    part = first.label if first.is_member else f"llc on {dataset or 'its data set'}"
    return Chains(objective, concatenate(rows), first.settings, series.plan, series.progress, part)
