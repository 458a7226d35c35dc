"""What belongs to a tenant: found by id, listed newest first. Another tenant's is as good as none."""

import re
from collections.abc import Sequence
from typing import Literal, TypeVar

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from store.errors import NotFoundError
from store.tables import ApiKey, Dataset, Delivery, Job, Model, Series, Upload, Webhook

Owned = TypeVar("Owned", ApiKey, Dataset, Model, Series, Job, Upload, Webhook, Delivery)

_ID = re.compile(r"[a-z]{3}_[0-9a-f]{32}")


def is_id(text: str) -> bool:
    """Whether this may be an id: anything else need not, or can't, be asked of the database."""
    return _ID.fullmatch(text) is not None


def find(
    session: Session, table: type[Owned], tenant_id: str, row_id: str, lock: Literal["keep", "delete"] | None = None
) -> Owned:
    """The row of this id. Until the transaction ends, who finds it to 'keep' it keeps those out who want to 'delete'
    it, and they everybody. Raises: NotFoundError.
    """
    row = None
    if is_id(row_id):
        query = select(table).where(table.id == row_id, table.tenant_id == tenant_id)
        if lock is not None:
            query = query.with_for_update(read=lock == "keep", key_share=lock == "keep")
        row = session.scalar(query)
    if row is None:
        raise NotFoundError("API key" if table is ApiKey else table.__name__.lower(), row_id[:100])
    return row


def newest(
    session: Session, table: type[Owned], tenant_id: str, after: str | None, limit: int, *where: ColumnElement[bool]
) -> Sequence[Owned]:
    """At most `limit` rows, newest first, that are older than the row `after`."""
    query = select(table).where(table.tenant_id == tenant_id, *where).order_by(table.id.desc()).limit(limit)
    return session.scalars(query if after is None else query.where(table.id < after)).all()
