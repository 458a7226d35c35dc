"""Labs, who own everything, found by name."""

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from store.errors import NotFoundError
from store.ids import new_id
from store.tables import Tenant


def ensure_tenant(session: Session, name: str) -> Tenant:
    """The oldest tenant of this name; a new one if there is none."""
    # Two processes that start together must not make two tenants.
    session.execute(text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))"), {"name": f"tenant {name}"})
    try:
        return find_tenant(session, name)
    except NotFoundError:
        tenant = Tenant(id=new_id("ten"), name=name)
        session.add(tenant)
        session.flush()
        return tenant


def find_tenant(session: Session, name: str) -> Tenant:
    """The oldest tenant of this name. Raises: NotFoundError."""
    tenant = session.scalar(select(Tenant).where(Tenant.name == name).order_by(Tenant.id).limit(1))
    if tenant is None:
        raise NotFoundError("tenant", name, "make it with ensure-tenant")
    return tenant
