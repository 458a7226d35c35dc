"""The mean loss over the whole data set, `L_n(w*)`, with the standard error of a mean of n samples."""

from llc.measures.base import CheckpointSeries, Measurement, Quantity
from llc.settings import LossSettings


def measure(series: CheckpointSeries, settings: LossSettings) -> list[Measurement]:
    """Quantity `loss`."""
    losses = series.sample_losses.double()
    n = losses.shape[1]
    errors = losses.std(dim=1) / n**0.5 if n > 1 else losses.new_full((len(losses),), float("nan"))
    series.report(len(losses) * settings.work)
    return [
        Measurement({"loss": Quantity(mean, error)})
        for mean, error in zip(losses.mean(1).tolist(), errors.tolist(), strict=True)
    ]
