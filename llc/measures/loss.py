"""The mean loss over the whole data set, `L_n(w*)`, with the standard error of a mean of n samples."""

from llc.measures.base import CheckpointSeries, Measurement, Quantity
from llc.settings import LossSettings


def measure(series: CheckpointSeries, settings: LossSettings) -> list[Measurement]:
    """Quantity `loss`."""
    found = []
    for (
        losses
    ) in series.sample_losses:  # one by one: a sum's order, and so its last digit, depends on the array's shape
        n = len(losses)
        error = losses.double().std().item() / n**0.5 if n > 1 else float("nan")
        found.append(Measurement({"loss": Quantity(losses.double().mean().item(), error)}))
        series.progress.report(settings.work)
    return found
