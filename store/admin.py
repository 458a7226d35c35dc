"""`python -m store.admin`: what an operator does to the store itself. Configured by the environment, prints JSON."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from llc.errors import InputError
from store import backup as backups
from store import keys, quotas, schema, tenants
from store.blobs import BlobStore
from store.database import connect
from store.settings import StoreSettings

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Look after lambdahat's database.")

TELL_SECONDS = 0.25

Target = Annotated[Path, typer.Argument(help="A new file.")]
Source = Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="What `backup` wrote.")]
WithBlobs = Annotated[bool, typer.Option(help="The blobs too, and not the tables alone.")]
TenantName = Annotated[str, typer.Option("--name", help="The tenant's name.")]


@app.command()
def migrate() -> None:
    """Bring the database up to date with this version."""
    engine = connect(_settings().database_url)
    try:
        schema.upgrade(engine)
    finally:
        engine.dispose()


@app.command()
def ensure_tenant(name: TenantName = "default") -> None:
    """Make a tenant and its first key, if there is none; the key is shown this once."""
    with _session() as session:
        tenant = tenants.ensure_tenant(session, name)
        key = None if keys.has_key(session, tenant.id) else keys.create_key(session, tenant.id, "first key")
        answer = {"tenant": tenant.id, "key": key}
    typer.echo(json.dumps(answer))


@app.command()
def create_key(
    tenant: TenantName = "default",
    label: Annotated[str, typer.Option(help="What the key is for.")] = "key",
) -> None:
    """Make another key of a tenant, with all scopes; it is shown this once."""
    with _session() as session:
        owner = tenants.find_tenant(session, tenant)
        answer = {"tenant": owner.id, "key": keys.create_key(session, owner.id, label)}
    typer.echo(json.dumps(answer))


@app.command()
def revoke_key(key_id: Annotated[str, typer.Argument(help="key_…, as GET /v1/whoami shows it.")]) -> None:
    """End a key."""
    with _session() as session:
        keys.revoke_key(session, key_id)


@app.command()
def set_quota(
    tenant: TenantName = "default",
    bytes: Annotated[int | None, typer.Option(min=-1, help="Of its files.")] = None,
    checkpoints: Annotated[int | None, typer.Option(min=-1)] = None,
    queued_shards: Annotated[int | None, typer.Option(min=-1, help="Parts of its jobs that wait or run.")] = None,
) -> None:
    """Give a tenant limits of its own; -1: those of all tenants again. What is not named stays. Prints what is used."""
    given = {"bytes": bytes, "checkpoints": checkpoints, "queued_shards": queued_shards}
    with _session() as session:
        owner = tenants.find_tenant(session, tenant)
        quotas.set_limits(owner, {what: limit for what, limit in given.items() if limit is not None})
        used = quotas.usage(session, _settings(), owner.id)
    typer.echo(json.dumps({what: asdict(use) for what, use in used.items()}))


@app.command()
def backup(target: Target, blobs: WithBlobs = True) -> None:
    """Write all tables, as they are at one moment, and the blobs that they name, into one new file."""
    settings = _settings()
    with _engine(settings) as engine:
        end = backups.write(engine, BlobStore(settings.blob_dir) if blobs else None, target.absolute(), _tell())
    typer.echo(json.dumps({"file": str(target), "missing": end.missing}))


@app.command()
def restore(source: Source, blobs: WithBlobs = True) -> None:
    """Restore a backup into an empty database and the folder of blobs, all or nothing, and migrate it."""
    settings = _settings()
    with _engine(settings) as engine:
        end = backups.read(engine, BlobStore(settings.blob_dir) if blobs else None, source, _tell())
    typer.echo(json.dumps({"file": str(source), "missing": end.missing}))


def _tell() -> backups.Tell:
    """Lines of JSON about how far it is, four a second."""
    told = 0.0

    def tell(done: int, total: int) -> None:
        nonlocal told
        if time.monotonic() > told + TELL_SECONDS:
            told = time.monotonic()
            typer.echo(json.dumps({"done": done, "total": total}))

    return tell


def _settings() -> StoreSettings:
    return StoreSettings.model_validate({})


@contextmanager
def _engine(settings: StoreSettings) -> Iterator[Engine]:
    """And errors as a line."""
    engine = connect(settings.database_url)
    try:
        yield engine
    except (InputError, OSError, OperationalError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None
    finally:
        engine.dispose()


@contextmanager
def _session() -> Iterator[Session]:
    with _engine(_settings()) as engine, Session(engine) as session, session.begin():
        yield session


if __name__ == "__main__":
    app()
