"""What a measurement of the LLC samples at a checkpoint: the LLC itself, refined ones, the LLC at other scales. Each is
a row of one run; those on another data set are a run of their own, with the same noise.

Refinements (Wang et al., arXiv 2410.02984) are at the LLC's own nβ and γ, be their data set of another size: so what
differs is the weights or the data, and nothing else.
"""

from dataclasses import dataclass
from itertools import groupby

from llc.chains import sample
from llc.draws import Draws
from llc.ensemble import per_sample_losses
from llc.errors import InputError
from llc.measures.base import CheckpointSeries
from llc.rows import concatenate, free_mask, rows_of
from llc.settings import LLCSettings, Scale


@dataclass(frozen=True)
class Variant:
    """One row at every checkpoint."""

    label: str
    settings: LLCSettings
    weights: tuple[str, ...] | None = None
    dataset: str | None = None
    is_scale: bool = False


def variants(settings: LLCSettings, num_samples: int) -> list[Variant]:
    """All of them, the LLC first, those of a data set side by side. num_samples: n of the series' data set."""
    main = settings.model_copy(update={"nbeta": settings.nbeta_for(num_samples)})
    refined = [
        Variant(f"llc_{name}", main, refinement.weights, refinement.dataset)
        for name, refinement in settings.refined.items()
    ]
    scales = [
        Variant(f"llc at nbeta {scale.nbeta:g}, gamma {scale.gamma:g}", _at(main, scale), is_scale=True)
        for scale in settings.scales
    ]
    return sorted([Variant("llc", main), *scales, *refined], key=lambda variant: variant.dataset or "")


def sample_variants(series: CheckpointSeries, settings: LLCSettings, chosen: list[Variant]) -> Draws:
    """Rows variant by variant, the checkpoints of each in their order.

    Raises: InputError `no_such_dataset`, or for a pattern that chooses no parameter.
    """
    parts = []
    for dataset, mine in groupby(chosen, key=lambda variant: variant.dataset):
        objective, losses = series.objective, series.sample_losses
        if dataset is not None:
            if dataset not in series.others:
                raise InputError(
                    "no_such_dataset", f"there is no data set '{dataset}'", "give it along with the series"
                )
            objective = series.others[dataset]
            losses = per_sample_losses(objective, series.anchors, plan=series.plan)
        layout = objective.layout
        rows = [
            rows_of(
                series.anchors,
                losses,
                variant.settings,
                layout,
                free=None if variant.weights is None else free_mask(layout, variant.weights).to(series.anchors.device),
            )
            for variant in mine
        ]
        parts.append(sample(objective, concatenate(rows), settings, series.plan, series.report))
    return Draws.concatenate(parts)


def _at(main: LLCSettings, scale: Scale) -> LLCSettings:
    """The settings at another scale, with the ε at which no ε (nβ h + γ) is larger than at this one."""
    assert main.nbeta is not None
    share = main.nbeta / scale.nbeta
    if main.gamma > 0:
        share = min(share, main.gamma / scale.gamma)
    sampler = main.sampler.model_copy(update={"epsilon": share * main.sampler.epsilon})
    return main.model_copy(update={"nbeta": scale.nbeta, "gamma": scale.gamma, "sampler": sampler})
