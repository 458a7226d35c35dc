"""/v1/whoami: whose key this is. /v1/api-keys: the tenant's keys."""

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from api.dependencies import Admin, Reader, Shared
from api.fields import Body, Name, Timestamp
from api.paging import ID, After, Limit, Page, page, position
from api.problems import RESPONSES
from api.reads import ReadRoute
from store import keys
from store.errors import ConflictError
from store.keys import Scope
from store.owned import find, newest
from store.tables import ApiKey, Tenant

router = APIRouter(prefix="/v1", tags=["keys"], responses=RESPONSES, route_class=ReadRoute)


class TenantOut(BaseModel):
    """A lab."""

    id: str
    name: str


class KeyOut(BaseModel):
    """An API key, without its secret."""

    id: str
    name: str
    scopes: list[Scope]


class WhoAmI(BaseModel):
    """Who is asking."""

    tenant: TenantOut
    key: KeyOut


@router.get("/whoami", summary="Whose key this is and what it may do")
def whoami(key: Reader, shared: Shared) -> WhoAmI:
    with shared.reading() as session:
        tenant = session.get_one(Tenant, key.tenant_id)
        return WhoAmI.model_validate({"tenant": tenant, "key": key}, from_attributes=True)


class NewKey(Body):
    """A key to be made."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "notebook", "scopes": ["read"]}]})
    name: Name = Field(description="What it is for.")
    scopes: Annotated[list[Scope], Field(min_length=1, max_length=3)] = Field(
        description="read: look; write: post, change, delete, run; admin: keys."
    )


class StoredKey(KeyOut):
    """An API key as it is kept: nobody can see its secret again."""

    model_config = ConfigDict(from_attributes=True)
    created_at: Timestamp
    revoked_at: Timestamp | None


class MadeKey(StoredKey):
    """A key with its secret."""

    key: str = Field(description="Shown this once.")


_LIST = TypeAdapter(list[StoredKey])


def _show(rows: Sequence[ApiKey]) -> list[StoredKey]:
    return _LIST.validate_python(rows, from_attributes=True)


@router.post("/api-keys", summary="Make an API key", status_code=201)
def post_key(body: NewKey, caller: Admin, shared: Shared) -> MadeKey:
    """No Idempotency-Key here: the answer, which has the secret in it, is kept nowhere."""
    with shared.session() as session:
        made = keys.create_key(session, caller.tenant_id, body.name, body.scopes)
        row = keys.find_key(session, made)
        return MadeKey(key=made, **StoredKey.model_validate(row).model_dump())


@router.get("/api-keys", summary="List API keys, newest first")
def list_keys(caller: Admin, shared: Shared, limit: Limit = 50, after: After = None) -> Page[StoredKey]:
    with shared.reading() as session:
        rows = newest(session, ApiKey, caller.tenant_id, position(after, ID), limit + 1)
        return page(rows, limit, lambda row: row.id, _show)


@router.delete("/api-keys/{key_id}", summary="Revoke an API key", status_code=204)
def delete_key(key_id: str, caller: Admin, shared: Shared) -> None:
    """For good, and everywhere within a second. The last key that could make others is refused: nobody of the tenant
    could come back.
    """
    with shared.session() as session:
        row = find(session, ApiKey, caller.tenant_id, key_id)
        if keys.is_last_admin(session, row):
            hint = "make another with the scope 'admin' first"
            raise ConflictError("last_admin_key", f"'{row.id}' is the last key with the scope 'admin'", hint)
        keys.revoke_key(session, row.id)
    shared.callers.forget()
