"""What the examples share: their command line, a stack of their own, and what is measured on plateaus alone."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import lambdahat
from lambdahat.objects import Series
from llc.exact import quadratic_llc

ZERO = 1e-4
"""Share of the largest curvature below which one counts as none."""


@dataclass(frozen=True)
class Run:
    """One run of an example: where its numbers go, its seed, and the client to post with."""

    out: Path
    seed: int
    client: lambdahat.Client


@dataclass(frozen=True)
class Anchor:
    """A checkpoint on a plateau. exact: λ there, where it is known; curvatures: eigenvalues of the Hessian of the loss
    whose minimum it is, which is that of `quantity`.
    """

    step: int
    state: Mapping[str, NDArray[np.float32]]
    label: str
    exact: float | None
    curvatures: NDArray[np.float64]
    quantity: str = "llc"


@contextmanager
def example(doc: str | None, out: str) -> Iterator[Run]:
    """Read the command line, and have a server to post to, for as long as it takes."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--serve", action="store_true", help="start a stack of our own, in a temporary folder")
    parser.add_argument("--stay", action="store_true", help="with --serve: keep the page open until Ctrl-C")
    parser.add_argument("--out", type=Path, default=Path(out), help="folder of the picture and the tables")
    parser.add_argument("--seed", type=int, default=0, help="seed of data, initialisation and chains")
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    torch.set_num_threads(1)
    arguments.out.mkdir(parents=True, exist_ok=True)
    with ExitStack() as scope:
        if arguments.serve:
            serve(scope)
        yield Run(arguments.out, arguments.seed, scope.enter_context(lambdahat.Client()))
        if arguments.serve and arguments.stay:
            input("The page stays open until you press Enter.")


def serve(scope: ExitStack) -> None:
    """A stack of our own, whose address and key the client and the commands find in the environment."""
    from lambdahat.stack import Stack

    print("starting PostgreSQL, Valkey, the API and the workers", flush=True)
    folder = Path(scope.enter_context(tempfile.TemporaryDirectory(prefix="lambdahat-")))
    folder.chmod(0o755)  # as root, the servers run as another user, who must get through
    stack = scope.enter_context(Stack(folder / "data", port=0))
    os.environ |= {"LAMBDAHAT_URL": stack.url, "LAMBDAHAT_KEY": stack.key}
    print(f"look on at {stack.url}/#key={stack.key}", flush=True)


def command(*arguments: str) -> None:
    """A command of the command line, shown and run."""
    print(f"\n$ lambdahat {' '.join(arguments)}", flush=True)
    subprocess.run([sys.executable, "-m", "lambdahat", *arguments], check=True)


@contextmanager
def recorder(run: Run, series: Series, schedule: Sequence[int]) -> Iterator[lambdahat.Recorder]:
    """A recorder whose spool is gone when all is posted."""
    with (
        tempfile.TemporaryDirectory() as spool,
        lambdahat.Recorder(run.client, series, schedule, folder=spool) as recording,
    ):
        yield recording


def measure(run: Run, series: Series, measures: Mapping[str, Mapping[str, Any]], name: str) -> None:
    """Run a job with the run's seed, look on, and leave its numbers and its picture as `name`.json and `name`.png."""
    job = run.client.run(series, {**measures, "llc": {**measures["llc"], "seed": run.seed}})
    command("watch", job.id)
    command("export", series.id, str(run.out / f"{name}.json"))
    command("plot", series.id, "--output", str(run.out / f"{name}.png"))


def measure_plateaus(run: Run, series: Series, anchors: Sequence[Anchor], llc: Mapping[str, Any], name: str) -> None:
    """λ̂ of checkpoints on plateaus, in a series of their own and at a scale of its own, beside what is known: into
    `name`_plateaus.json.
    """
    apart = run.client.create_series(f"{series.name}, plateaus", series.model, series.dataset, tags=series.tags)
    for anchor in anchors:
        run.client.add_checkpoint(apart, anchor.step, anchor.state)
    job = run.client.run(apart, {"loss": {}, "llc": {**llc, "seed": run.seed}})
    command("watch", job.id)
    points = {point.step: point.quantities for point in run.client.curve(apart, job=job).points}
    main = {point.step: point.quantities["llc"] for point in run.client.curve(series).points}
    rows: list[dict[str, Any]] = []
    for anchor in anchors:
        found, at_run = points[anchor.step][anchor.quantity], main[anchor.step]
        about = {key: value for key, value in asdict(anchor).items() if key not in ("state", "curvatures")}
        rows.append(
            {
                **about,
                "llc": found.model_dump(),
                "expected": quadratic_llc(anchor.curvatures, llc["nbeta"], llc["gamma"]),
                "main_llc": at_run.model_dump(),
                "curvatures": anchor.curvatures.tolist(),
                "nbeta": llc["nbeta"],
                "gamma": llc["gamma"],
            }
        )
    (run.out / f"{name}_plateaus.json").write_text(json.dumps(rows, indent=1) + "\n")


def curvatures(loss: Callable[[Tensor], Tensor], w: Tensor) -> NDArray[np.float64]:
    """Eigenvalues of the Hessian of a loss at w (d,), those that are next to nothing as 0."""
    hessian = torch.autograd.functional.hessian(loss, w.double())
    assert isinstance(hessian, Tensor)
    found = torch.linalg.eigvalsh(hessian).numpy()
    return np.where(found > ZERO * found.max(), found, 0.0)
