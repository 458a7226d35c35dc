"""Watching a job: a live line, then the curve and its transitions as tables."""

from collections.abc import Iterable, Iterator

from rich.measure import Measurement
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
from rich.table import Table
from rich.text import Text

from lambdahat._cli_common import err, fail, out
from lambdahat.client import Client
from lambdahat.errors import LambdahatError
from lambdahat.numbers import MISSING, duration, with_error
from lambdahat.objects import Curve, CurvePoint, Job, Result, Stage

HEADINGS = {
    "llc": "λ̂",
    "loss": "loss",
    "hessian_trace": "Hessian trace",
    "hessian_max_eigenvalue": "largest eigenvalue",
    "hessian_near_zero_share": "near-zero share",
}
WIDEST = 1000
TYPE_STYLES = {"A": "bold dark_orange3", "B": "bold dodger_blue2", None: "dim"}
TYPE_MEANINGS = {
    "A": "the loss falls, the LLC rises",
    "B": "the LLC falls, the loss changes only slightly",
    None: "neither A nor B",
}


def watch_job(client: Client, job: Job) -> None:
    """Follow a job to its end and print what it found. Exits with 1 if it did not succeed."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        TaskProgressColumn(),
        TextColumn("{task.fields[about]}", justify="right"),
    )
    with Progress(*columns, console=err, expand=True) as progress:
        task = progress.add_task(job.state, total=1.0, about="")

        def show(now: Job) -> None:
            progress.update(task, completed=now.progress.fraction, description=now.state, about=describe(now))

        try:
            job = client.wait(job, show)
        except KeyboardInterrupt:
            progress.stop()
            err.print(f"the job goes on; watch it again with: lambdahat watch {job.id}")
            raise
    if job.state == "failed":
        hint = f"what it found is kept: lambdahat curve {job.series} --job {job.id}"
        fail(LambdahatError(f"job {job.id} failed: {why_failed(job)}", hint))
    show_job(client, client.curve(job.series, job=job))
    if job.state == "cancelled":
        fail(f"job {job.id} was cancelled; the tables show what it found before")


def why_failed(job: Job) -> str:
    """The job's error, and that of the first of its shards."""
    error = job.error or {}
    first = error.get("first") or {}
    return "; ".join(str(part["detail"]) for part in (error, first) if part.get("detail")) or "no reason is known"


def describe(job: Job) -> str:
    """`1200/4800 row-steps  310/s  12 s left`."""
    progress = job.progress
    parts = ["follows its series"] if job.following else []
    parts.append(f"{progress.done}/{progress.total} row-steps")
    if progress.rate:
        parts.append(f"{progress.rate:,.0f}/s")
    if not job.is_finished and progress.seconds_left is not None:
        parts.append(f"{duration(progress.seconds_left)} left")
    if job.is_finished and job.started_at and job.finished_at:
        parts.append(f"in {duration((job.finished_at - job.started_at).total_seconds())}")
    return "  ".join(parts)


def show_job(client: Client, curve: Curve) -> None:
    """Everything that a job found: its curve, what is wrong with it, and its transitions."""
    show_curve(curve)
    if curve.job is None:
        return
    if any(found.verdict != "ok" for point in curve.points for found in point.quantities.values()):
        show_reasons(client.results(curve.job), {point.checkpoint for point in curve.points})
    show_transitions(client.transitions(curve.series, curve.job))


def show_curve(curve: Curve) -> None:
    """A row a step: value ± standard error of the quantities that fit, and what is wrong, if anything."""
    if not curve.points:
        out.print("[dim]no results yet[/]")
        return
    shown = [name for name in HEADINGS if name in curve.quantities]
    shown += [name for name in curve.quantities if name not in HEADINGS]
    left_out: list[str] = []
    while (
        Measurement.get(out, out.options.update(width=WIDEST), table := _curve_table(curve, shown)).maximum > out.width
    ):
        if len(shown) == 1:
            break
        left_out.insert(0, shown.pop())
    out.print(table)
    if left_out:
        names = ", ".join(HEADINGS.get(name, name) for name in left_out)
        out.print(f"[dim]no room for: {names}\nlambdahat curve {curve.series} --measure {','.join(left_out)}[/]")


def _curve_table(curve: Curve, quantities: list[str]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for heading in ("step", *(HEADINGS.get(quantity, quantity) for quantity in quantities)):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for point in curve.points:
        verdict = _verdict(point)
        cells = [_cell(point, quantity) for quantity in quantities]
        table.add_row(str(point.step), *cells, Text(verdict), style="" if verdict == "ok" else "yellow")
    return table


def show_reasons(results: Iterable[Result], checkpoints: set[str]) -> None:
    """A line for each measure, or quantity with a verdict of its own, and verdict other than 'ok': at how many steps,
    and why at the first of them.
    """
    wrong: dict[tuple[str, str], list[tuple[int, str]]] = {}
    for result in results:
        for name, verdict, reason in _verdicts(result) if result.checkpoint in checkpoints else ():
            if verdict != "ok":
                wrong.setdefault((name, verdict), []).append((result.step, reason))
    out.print()
    for (name, verdict), found in wrong.items():
        steps = "step" if len(found) == 1 else f"{len(found)} steps, first at"
        step, reason = found[0]
        line = Text(f"{name}: {verdict}", style="yellow").append(f" at {steps} {step}", style="default")
        out.print(line.append(f": {reason}", style="default"))


def show_transitions(transitions: list[Stage]) -> None:
    """A row a transition."""
    if not transitions:
        out.print("\n[dim]no transitions[/]")
        return
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("type")
    for heading in ("from step", "to step", "Δloss", "Δλ̂", "probability"):
        table.add_column(heading, justify="right", no_wrap=True)
    has_ensemble = any(transition.survival is not None for transition in transitions)
    if has_ensemble:
        table.add_column("survives", justify="right", no_wrap=True)
    table.add_column("")
    for transition in transitions:
        table.add_row(
            Text(transition.type or MISSING, style=TYPE_STYLES[transition.type]),
            _end(transition.from_step, transition.from_step_low, transition.from_step_high),
            _end(transition.to_step, transition.to_step_low, transition.to_step_high),
            with_error(transition.delta_loss.value, transition.delta_loss.std_error),
            with_error(transition.delta_llc.value, transition.delta_llc.std_error),
            MISSING if transition.probability is None else f"{transition.probability:.0%}",
            *([MISSING if transition.survival is None else f"{transition.survival:.0%}"] if has_ensemble else []),
            Text(TYPE_MEANINGS[transition.type], style="dim"),
        )
    out.print("\n[bold]transitions[/]")
    out.print(table)


def _end(step: int, low: int | None, high: int | None) -> str:
    """A step and its 90 % interval."""
    return f"{step}" if low is None or high is None or low == high else f"{step} ({low}–{high})"


def _verdicts(result: Result) -> Iterator[tuple[str, str, str]]:
    """(name, verdict, reason) of a measure, and of its quantities that have another."""
    yield result.measure, result.verdict, result.reason
    for name, quantity in result.quantities.items():
        if (quantity.verdict, quantity.reason) != (result.verdict, result.reason):
            yield name, quantity.verdict, quantity.reason


def _cell(point: CurvePoint, quantity: str) -> str:
    found = point.quantities.get(quantity)
    return with_error(found.value, found.std_error) if found else MISSING


def _verdict(point: CurvePoint) -> str:
    """'ok', or each thing that is wrong, once."""
    wrong = {found.verdict: quantity for quantity, found in point.quantities.items() if found.verdict != "ok"}
    return ", ".join(f"{quantity}: {verdict}" for verdict, quantity in wrong.items()) or "ok"
