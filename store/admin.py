"""`python -m store.admin`: what an operator does to the store itself. Configured by the environment, prints JSON."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Annotated

import typer
from sqlalchemy.orm import Session

from llc.errors import InputError
from store import keys, quotas, schema, tenants
from store.database import connect
from store.settings import StoreSettings

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Look after lambdahat's database.")

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


def _settings() -> StoreSettings:
    return StoreSettings.model_validate({})


@contextmanager
def _session() -> Iterator[Session]:
    engine = connect(_settings().database_url)
    try:
        with Session(engine) as session, session.begin():
            yield session
    except InputError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None
    finally:
        engine.dispose()


if __name__ == "__main__":
    app()
