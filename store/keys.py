"""API keys `lh_<id>_<secret><crc>`: made, told apart from typos without the database, checked, revoked.

The id and the secret are random; the checksum is CRC-32 of all before it, in base 62. Only SHA-256 of the secret is
stored: with 190 bits of randomness a slow hash would add nothing.
"""

import hashlib
import re
import secrets
import string
import zlib
from collections.abc import Sequence
from typing import Literal, get_args

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from store.errors import NotFoundError, UnauthorizedError
from store.ids import new_id
from store.tables import ApiKey

Scope = Literal["read", "write", "admin"]
ALL_SCOPES: tuple[Scope, ...] = get_args(Scope)

_ALPHABET = string.digits + string.ascii_letters
_SECRET_LENGTH = 32
_CRC_LENGTH = 6  # 62⁶ > 2³²
_FORM = re.compile(rf"lh_([0-9a-f]{{32}})_([0-9A-Za-z]{{{_SECRET_LENGTH}}})([0-9A-Za-z]{{{_CRC_LENGTH}}})")


def create_key(session: Session, tenant_id: str, name: str, scopes: Sequence[Scope] = ALL_SCOPES) -> str:
    """A new key of a tenant, as text: the only time that its secret is known."""
    key_id = new_id("key")
    secret = "".join(secrets.choice(_ALPHABET) for _ in range(_SECRET_LENGTH))
    session.add(
        ApiKey(id=key_id, tenant_id=tenant_id, name=name, secret_hash=_hash(secret), scopes=list(dict.fromkeys(scopes)))
    )
    session.flush()
    rest = f"lh_{key_id.removeprefix('key_')}_{secret}"
    return rest + checksum(rest)


def find_key(session: Session, text: str) -> ApiKey:
    """The stored key that a text is. Raises: UnauthorizedError, which tells a typo from a key that is not known."""
    form = _FORM.fullmatch(text)
    if form is None or checksum(text[:-_CRC_LENGTH]) != form[3]:
        raise UnauthorizedError("this is not an API key: it is mistyped or cut short", "copy the whole key, lh_…")
    key = session.get(ApiKey, f"key_{form[1]}")
    known = key.secret_hash if key is not None else ""
    if key is None or not secrets.compare_digest(known, _hash(form[2])) or key.revoked_at is not None:
        raise UnauthorizedError("the API key is unknown or was revoked", "ask for a new key")
    return key


def revoke_key(session: Session, key_id: str) -> None:
    """End a key; it stays on record. Raises: NotFoundError."""
    revoked = update(ApiKey).where(ApiKey.id == key_id).values(revoked_at=func.coalesce(ApiKey.revoked_at, func.now()))
    if session.scalar(revoked.returning(ApiKey.id)) is None:
        raise NotFoundError("key", key_id)


def is_last_admin(session: Session, key: ApiKey) -> bool:
    """Whether no other key of the tenant could make keys. Until the transaction ends, no other key can be revoked."""
    others = select(ApiKey).where(ApiKey.tenant_id == key.tenant_id, ApiKey.revoked_at.is_(None)).with_for_update()
    admins = [other.id for other in session.scalars(others) if "admin" in other.scopes]
    return admins == [key.id]


def has_key(session: Session, tenant_id: str) -> bool:
    """Whether a tenant has a key that works."""
    return (
        session.scalar(select(ApiKey.id).where(ApiKey.tenant_id == tenant_id, ApiKey.revoked_at.is_(None))) is not None
    )


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def checksum(text: str) -> str:
    """CRC-32 in base 62, of six digits: tells a typo from a key that is not known, without the database."""
    number = zlib.crc32(text.encode())
    digits = ""
    for _ in range(_CRC_LENGTH):
        number, digit = divmod(number, len(_ALPHABET))
        digits = _ALPHABET[digit] + digits
    return digits
