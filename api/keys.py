"""GET /v1/whoami: whose key this is."""

from fastapi import APIRouter
from pydantic import BaseModel

from api.dependencies import Reader, Shared
from api.problems import RESPONSES
from store.keys import Scope
from store.tables import Tenant

router = APIRouter(prefix="/v1", tags=["keys"], responses=RESPONSES)


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
    with shared.session() as session:
        tenant = session.get_one(Tenant, key.tenant_id)
        return WhoAmI.model_validate({"tenant": tenant, "key": key}, from_attributes=True)
