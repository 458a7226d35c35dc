"""A tenant of the real service, with things to post, and the part of a worker: results through the job protocol."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session

from lambdahat import Client
from lambdahat.objects import Job, Series
from llc.draw_files import KeptDraws, write_draws
from llc.draws import OVER_DRAWS, Draws
from llc.settings import LLCSettings
from store import keys, leases, tenants
from store.blobs import BlobStore
from store.ids import new_id
from store.tables import Checkpoint, Shard
from tests.lambdahat import curves

SPEC: dict[str, Any] = {"family": "mlp", "widths": [3, 4, 2]}
LEASE_SECONDS = 60.0


def data(n: int = 16) -> dict[str, NDArray[Any]]:
    """n samples for SPEC."""
    return {"x": np.linspace(-1, 1, 3 * n, dtype=np.float32).reshape(n, 3), "y": np.arange(n) % 2}


def state(seed: int = 0) -> dict[str, NDArray[Any]]:
    """Parameters of SPEC."""
    generator = np.random.default_rng(seed)
    shapes = {"layers.0.weight": (4, 3), "layers.0.bias": (4,), "layers.1.weight": (2, 4), "layers.1.bias": (2,)}
    return {name: generator.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def new_key(engine: Engine, name: str) -> str:
    """An API key of a new tenant."""
    with Session(engine) as session, session.begin():
        return keys.create_key(session, tenants.ensure_tenant(session, f"{name} {new_id('ten')}").id, "first key")


def new_series(client: Client, name: str = "grokking", steps: Sequence[int] = (0, 1, 10)) -> Series:
    """A series with checkpoints at these steps."""
    series = client.create_series(name, client.create_model("mlp", SPEC), client.create_dataset("xor", data()))
    for step in steps:
        client.add_checkpoint(series, step, state(step), {"test_loss": 1.0})
    return client.series(series)


def measured_series(client: Client, engine: Engine, name: str = "grokking") -> tuple[Series, Job]:
    """A series whose job has succeeded with the curve of `tests.lambdahat.curves`."""
    series = new_series(client, name, curves.STEPS)
    job = client.run(series, {"hessian": {}}, checkpoints_per_shard=14)
    work(engine, job)
    return series, client.job(job)


def work(engine: Engine, job: Job, shards: int | None = None) -> None:
    """Do what workers do to a job, to at most so many shards: claim, measure (by looking it up), finish."""
    for _ in range(100 if shards is None else shards):
        with Session(engine) as session, session.begin():
            due = select(Shard.id).where(Shard.job_id == job.id, Shard.state == "queued", Shard.run_at <= func.now())
            shard = session.scalar(due.order_by(Shard.ordinal).limit(1))
            if shard is None:
                return
            lease = leases.claim(session, shard, "test", LEASE_SECONDS)
            assert lease is not None
            if lease.kind == "stages":
                leases.finish(session, lease, stages=_stages())
            else:
                leases.finish(session, lease, results=_results(session, lease.checkpoint_ids))


def work_with_draws(engine: Engine, job: Job, blob_dir: Path) -> None:
    """The same to the first shard of a job, with draws: white noise, other at every checkpoint."""
    blobs, files = BlobStore(blob_dir), {}
    with Session(engine) as session, session.begin(), blobs.scratch() as scratch:
        scratch.mkdir(parents=True)
        shard = session.scalars(select(Shard.id).where(Shard.job_id == job.id, Shard.ordinal == 0)).one()
        lease = leases.claim(session, shard, "test", LEASE_SECONDS)
        assert lease is not None
        rows = _results(session, lease.checkpoint_ids)
        for seed, row in enumerate(rows):
            if row["measure"] == "llc":
                write_draws(white_noise(seed), scratch / "draws")
                row["draws"], size = blobs.adopt(scratch / "draws")
                files[row["draws"]] = size
        leases.finish(session, lease, results=rows, blobs=files)


def white_noise(seed: int) -> KeptDraws:
    """One row of 4 chains × 50 draws, without a probe set."""
    rng = np.random.default_rng(seed)
    draws = Draws(
        **{name: rng.random((1, 4, 50)) for name in OVER_DRAWS if name != "probe_losses"},
        **{name: np.array([2.0]) for name in ("epsilon", "nbeta", "gamma", "num_free")},
        probe_losses=np.empty((1, 4, 0, 0), np.float32),
        probe_baselines=np.empty((1, 0), np.float32),
        diverged_at=np.full((1, 4), -1),
        acceptance=np.full((1, 4), np.nan),
    )
    return KeptDraws(draws, LLCSettings(), ("llc",), num_samples=100, loss=0.5)


def half_way(engine: Engine, job: Job) -> leases.Lease:
    """Claim the next shard and do half of it."""
    with Session(engine) as session, session.begin():
        due = select(Shard).where(Shard.job_id == job.id, Shard.state == "queued").order_by(Shard.ordinal).limit(1)
        shard = session.scalars(due).one()
        lease = leases.claim(session, shard.id, "test", LEASE_SECONDS)
        assert lease is not None
        leases.heartbeat(session, lease, shard.work_total // 2, LEASE_SECONDS)
    return lease


def fail(engine: Engine, lease: leases.Lease, detail: str) -> None:
    """End a shard, and its job with it once the others have ended, as failed."""
    with Session(engine) as session, session.begin():
        leases.fail(session, lease, {"code": "out_of_memory", "detail": detail}, permanent=True)


def _results(session: Session, checkpoint_ids: Sequence[str]) -> list[dict[str, Any]]:
    rows = []
    for checkpoint in session.scalars(select(Checkpoint).where(Checkpoint.id.in_(checkpoint_ids))):
        found = curves.quantities(checkpoint.step)
        for measure in ("loss", "llc", "hessian"):
            verdict, reason = curves.verdict(checkpoint.step) if measure == "llc" else ("ok", "")
            row = {"checkpoint_id": checkpoint.id, "measure": measure, "verdict": verdict, "reason": reason}
            quantities = {name: q for name, q in found.items() if name.split("_")[0] == measure}
            rows.append({**row, "quantities": quantities, "details": {}, "draws": None})
    return rows


def _stages() -> list[dict[str, Any]]:
    rows = []
    for ordinal, stage in enumerate(curves.TRANSITIONS):
        row = {"id": new_id("stg"), "ordinal": ordinal, "kind": "transition", "details": {}}
        row |= {name: value for name, value in stage.items() if not name.startswith("delta_")}
        for delta in ("delta_loss", "delta_llc"):
            row |= {delta: stage[delta]["value"], f"{delta}_std_error": stage[delta]["std_error"]}
        rows.append(row)
    return rows
