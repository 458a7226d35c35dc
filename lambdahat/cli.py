"""The command line: `lambdahat COMMAND`."""

import csv
import json
from enum import StrEnum
from io import StringIO
from pathlib import Path
from typing import Annotated, Any

import typer

from lambdahat import _cli_stack
from lambdahat._cli_align import align
from lambdahat._cli_common import (
    Commands,
    JobArgument,
    JobOption,
    Key,
    SeriesArgument,
    Url,
    connect,
    find_checkpoint,
    find_job,
    find_series,
    out,
    write_out,
)
from lambdahat._cli_evidence import evidence
from lambdahat._cli_push import push_checkpoints, series_for
from lambdahat._cli_watch import show_job, watch_job
from lambdahat._cli_webhooks import app as webhooks
from lambdahat._requests import DEFAULT_URL
from lambdahat.errors import LambdahatError
from lambdahat.objects import Stage
from lambdahat.stack import DEFAULT_HOST, DEFAULT_PORT

app = typer.Typer(
    name="lambdahat",
    cls=Commands,
    help="Local learning coefficients, with honest error bars, for every checkpoint of a training run.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(webhooks, name="webhooks")


class Format(StrEnum):
    """How a curve is printed."""

    table = "table"
    csv = "csv"
    json = "json"


class DrawsFormat(StrEnum):
    """How draws are kept in a file."""

    safetensors = "safetensors"
    netcdf = "netcdf"


@app.command()
def serve(
    data: Annotated[Path | None, typer.Option(help="Folder of everything that is kept.", show_default=False)] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = DEFAULT_HOST,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = DEFAULT_PORT,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Computing processes; by default one a core.", show_default=False)
    ] = None,
    apis: Annotated[
        int | None,
        typer.Option(min=1, help="Answering processes; by default one a core, at most 4.", show_default=False),
    ] = None,
) -> None:
    """Run the whole stack here: PostgreSQL, Valkey, API, workers."""
    from lambdahat.stack import serve as serve_stack

    raise typer.Exit(serve_stack(data, host, port, workers, apis))


for _command in (_cli_stack.doctor, _cli_stack.backup, _cli_stack.restore, _cli_stack.upgrade, align, evidence):
    app.command()(_command)


@app.command()
def whoami(url: Url = DEFAULT_URL, key: Key = None) -> None:
    """Show which tenant and key the server sees."""
    with connect(url, key) as client:
        identity = client.whoami()
    out.print(f"tenant  {identity.tenant.name}  [dim]{identity.tenant.id}[/]")
    out.print(f"key     {identity.key.name}  [dim]{identity.key.id}[/]")
    out.print(f"scopes  {', '.join(identity.key.scopes)}")


@app.command()
def push(
    folder: Annotated[
        Path,
        typer.Argument(
            exists=True, file_okay=False, help="Checkpoints, *.safetensors or *.pt; the name's last number is the step."
        ),
    ],
    series: Annotated[str | None, typer.Option(help="Id of a series to add to.", show_default=False)] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of a new series; by default the folder's.", show_default=False)
    ] = None,
    model: Annotated[
        Path | None, typer.Option(help="The model, as JSON; by default FOLDER/model.json.", show_default=False)
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="x and y, .safetensors or .npz; by default FOLDER/data.*.", exists=True, show_default=False),
    ] = None,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Post a folder of checkpoints as a series, or what is left in a recorder's spool. What is there is skipped."""
    with connect(url, key) as client:
        target = series_for(client, folder, series, name, model, data)
        posted, there = push_checkpoints(client, target, folder, exclude=data)
    out.print(f"{target.id}  {target.name}: posted {posted}, skipped {there} that were there")


@app.command()
def run(
    series: SeriesArgument,
    auto: Annotated[bool, typer.Option("--auto", help="Let a pilot choose what is not said here.")] = False,
    nbeta: Annotated[float | None, typer.Option(help="Inverse temperature nβ; by default n / log n.")] = None,
    gamma: Annotated[float | None, typer.Option(help="Strength γ of the tether.")] = None,
    epsilon: Annotated[float | None, typer.Option(help="Step size ε of the sampler.")] = None,
    chains: Annotated[int | None, typer.Option(help="Independent chains a checkpoint.")] = None,
    draws: Annotated[int | None, typer.Option(help="Draws kept of every chain.")] = None,
    burnin: Annotated[int | None, typer.Option(help="Steps thrown away at the start of a chain.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Samples of a minibatch.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of noise and minibatches.")] = None,
    hessian: Annotated[bool | None, typer.Option(help="Measure the Hessian as well.")] = None,
    settings: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="A job's settings as JSON; options win over it.")
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Measure what is posted later, too, as it comes, until lambdahat finish.")
    ] = False,
    watch: Annotated[bool, typer.Option(help="Watch the job to its end.")] = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Start a job on a series. Whatever is not said has the server's default."""
    body = _read_settings(settings)
    llc = {
        "nbeta": nbeta,
        "gamma": gamma,
        "num_chains": chains,
        "num_draws": draws,
        "num_burnin_steps": burnin,
        "batch_size": batch_size,
        "seed": seed,
    }
    llc = {name: value for name, value in llc.items() if value is not None} | ({"settings": "auto"} if auto else {})
    body = with_options(body, llc, epsilon, hessian)
    with connect(url, key) as client:
        job = client.run(find_series(client, series), follow=follow, **body)
        out.print(f"{job.id}  {job.state}")
        if watch:
            watch_job(client, job)


@app.command()
def watch(
    job: JobArgument,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Watch a job: progress, rate and time left, then what it found."""
    with connect(url, key) as client:
        watch_job(client, find_job(client, job))


@app.command()
def cancel(job: JobArgument, url: Url = DEFAULT_URL, key: Key = None) -> None:
    """Ask a job to stop. What it has found stays."""
    with connect(url, key) as client:
        asked = client.cancel(find_job(client, job))
        out.print(f"{asked.id}  {asked.state}")


@app.command()
def finish(job: JobArgument, url: Url = DEFAULT_URL, key: Key = None) -> None:
    """Let a job follow its series no longer. It ends when all that is posted now is measured."""
    with connect(url, key) as client:
        ending = client.finish(find_job(client, job))
        out.print(f"{ending.id}  {ending.state}")


@app.command()
def retry(
    job: JobArgument,
    watch: Annotated[bool, typer.Option(help="Watch the job to its end.")] = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Run again what failed of a job, or was cancelled. What it has found stays."""
    with connect(url, key) as client:
        again = client.retry(find_job(client, job))
        out.print(f"{again.id}  {again.state}")
        if watch:
            watch_job(client, again)


@app.command()
def curve(
    series: SeriesArgument,
    measure: Annotated[str | None, typer.Option(help="Measures or quantities, by commas; by default all.")] = None,
    job: JobOption = None,
    format: Annotated[Format, typer.Option("--format", "-f", help="How to print it.")] = Format.table,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Print the curve of a series."""
    with connect(url, key) as client:
        target = find_series(client, series)
        if format is Format.csv:
            return write_out(client.curve_csv(target, measure, job))
        found = client.curve(target, measure, job)
        if format is Format.json:
            return write_out(found.model_dump_json(indent=2))
        show_job(client, found)
    return None


@app.command()
def plot(
    series: SeriesArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="The picture: .png, .svg or .pdf.")] = Path(
        "curve.png"
    ),
    job: JobOption = None,
    title: Annotated[str | None, typer.Option(help="By default the series' name.", show_default=False)] = None,
    metric: Annotated[
        list[str] | None, typer.Option(help="Of what was posted with the checkpoints; may be repeated; '*': all.")
    ] = None,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Draw the curve with its transitions."""
    from lambdahat.plot import draw

    with connect(url, key) as client:
        target = find_series(client, series)
        found = client.curve(target, job=job, metrics=metric or ())
        transitions = client.transitions(target, found.job) if found.job else []
    out.print(f"{draw(found, transitions, output, title if title is not None else target.name)}", soft_wrap=True)


@app.command()
def export(
    series: SeriesArgument,
    output: Annotated[Path, typer.Argument(help="A .json file for all of it; or .csv, with two files beside it.")],
    job: JobOption = None,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Write the curve with the posted metrics, its transitions and the settings behind them to files."""
    if output.suffix not in (".json", ".csv"):
        raise LambdahatError(f"can't export to '{output.name}'", "give it a name that ends in .json or .csv")
    with connect(url, key) as client:
        target = find_series(client, series)
        found = client.curve(target, job=job, metrics=["*"])
        if found.job is None:
            raise LambdahatError(f"series '{target.name}' has no results yet", f"lambdahat run {target.id} --watch")
        transitions = client.transitions(target, found.job)
        about = {"series": target.model_dump(mode="json"), "job": client.job(found.job).model_dump(mode="json")}
        table = client.curve_csv(target, job=found.job, metrics=["*"]) if output.suffix == ".csv" else ""
    if output.suffix == ".json":
        both = {"curve": found.model_dump(mode="json"), "transitions": [t.model_dump(mode="json") for t in transitions]}
        files = {output: _pretty({**about, **both})}
    else:
        files = {
            output: table,
            output.with_suffix(".transitions.csv"): _transitions_csv(transitions),
            output.with_suffix(".settings.json"): _pretty(about),
        }
    for path, content in files.items():
        path.write_text(content)
        out.print(f"{path}", soft_wrap=True)


@app.command()
def calibration(
    job: Annotated[str, typer.Argument(help="Id of a job; or a series, for its newest.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Draw the trials: .png, .svg or .pdf.", show_default=False)
    ] = None,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """How a pilot chose a job's settings: its reasons, and a picture of its trials."""
    from lambdahat.plot_calibration import draw_calibration

    with connect(url, key) as client:
        found = find_job(client, job)
    if found.calibration is None:
        raise LambdahatError(
            f"job '{found.id}' has no calibration", "its settings were given, or its pilot has not ended: run --auto"
        )
    for reason in found.calibration["reasons"]:
        out.print(f"- {reason}", soft_wrap=True)
    if output is not None:
        out.print(f"{draw_calibration(found.calibration, output)}", soft_wrap=True)


@app.command()
def draws(
    job: Annotated[str, typer.Argument(help="Id of a job; or a series, for its newest.")],
    checkpoint: Annotated[str, typer.Argument(help="Step of a checkpoint, or its id.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file; by default draws_STEP.*.", show_default=False)
    ] = None,
    format: Annotated[
        DrawsFormat, typer.Option("--format", "-f", help="safetensors for llc, netcdf for ArviZ.")
    ] = DrawsFormat.safetensors,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Fetch the draws behind an estimate, to analyse them again without a GPU."""
    suffix = {DrawsFormat.safetensors: "safetensors", DrawsFormat.netcdf: "nc"}[format]
    with connect(url, key) as client:
        target = find_job(client, job)
        path = output or Path(f"draws_{checkpoint}.{suffix}")
        saved = client.save_draws(target, find_checkpoint(client, target, checkpoint), path, format=format.value)
    out.print(f"{saved}", soft_wrap=True)


def with_options(
    body: dict[str, Any], llc: dict[str, Any], epsilon: float | None, hessian: bool | None
) -> dict[str, Any]:
    """A job's settings with the options of the command line put in."""
    measures = dict(body.get("measures") or {})
    if llc or epsilon is not None:
        measures["llc"] = {**(measures.get("llc") or {}), **llc}
    if epsilon is not None:
        measures["llc"]["sampler"] = {**measures["llc"].get("sampler", {}), "epsilon": epsilon}
    if hessian is not None:
        measures["hessian"] = (measures.get("hessian") or {}) if hessian else None
    return {**body, "measures": measures} if measures else body


def _read_settings(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        body = json.loads(path.read_text())
    except ValueError as error:
        raise LambdahatError(f"{path} is not JSON: {error}") from None
    if not isinstance(body, dict):
        raise LambdahatError(f"{path} holds no JSON object", 'for example {"measures": {"llc": {"gamma": 10}}}')
    return body


def _transitions_csv(transitions: list[Stage]) -> str:
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    deltas = ("delta_loss", "delta_llc")
    plain = [name for name in Stage.model_fields if name not in ("id", "kind", "details", *deltas)]
    writer.writerow([*plain, *(name for delta in deltas for name in (delta, f"{delta}_std_error"))])
    for t in transitions:
        numbers = (t.delta_loss.value, t.delta_loss.std_error, t.delta_llc.value, t.delta_llc.std_error)
        writer.writerow([*(getattr(t, name) for name in plain), *numbers])
    return text.getvalue()


def _pretty(content: Any) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"
