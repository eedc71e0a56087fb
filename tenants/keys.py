"""API keys: made once, shown once, stored as a hash."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session
from sqlmodel import col, select

from config.clock import Clock
from config.database import Database
from config.errors import InvalidInput, NotFound, storable
from config.ids import new_id
from tenants.context import TENANT_SCOPES, Scope
from tenants.events import emit
from tenants.tables import ApiKey

FIND_KEY = "carrel_find_key"  #: PostgreSQL's function that looks a key up before its tenant is known
SECRET_BYTES = 32  # 256 random bits: guessing is hopeless, and a plain hash is enough to store
MAX_NAME_CHARS, MAX_BOUNDS, MAX_BOUND_CHARS = 100, 100, 100


@dataclass(frozen=True, slots=True)
class NewKey:
    row: ApiKey
    secret: str  #: the whole key, shown this once


class KeyRing:
    def __init__(self, database: Database, clock: Clock) -> None:
        self._database, self._clock = database, clock

    def create(
        self,
        tenant_id: str | None,
        *,
        name: str,
        scopes: Sequence[Scope],
        collections: Sequence[str] | None = None,
        labels: Sequence[str] | None = None,
        secret: str | None = None,
        record: Callable[[Session, NewKey], None] | None = None,
    ) -> NewKey:
        """`tenant_id` None makes an operator key. `secret` is given only for the first operator key, from its file.

        `record` writes something of the new key in its transaction, last.
        """
        _check(tenant_id, name, scopes, collections, labels)
        key_id = new_id("key") if secret is None else key_id_of(secret)
        secret = secret or make_secret(key_id)
        row = ApiKey(
            id=key_id,
            tenant_id=tenant_id,
            name=name,
            secret_sha256=_hash(secret),
            scopes=[str(scope) for scope in scopes],
            collections=None if collections is None else list(collections),
            labels=None if labels is None else list(labels),
            created_at=self._clock(),
        )
        new = NewKey(row, secret)
        with self._database.system_write() as session:
            session.add(row)
            self._emit(session, "created", row)
            if record is not None:
                record(session, new)
        return new

    def find(self, secret: str) -> ApiKey | None:
        """The unrevoked key of this secret. Compares in constant time, against a dummy where there is no such key."""
        with self._database.lookup() as session:
            row = _by_id(session, key_id_of(secret))
        stored = row.secret_sha256 if row is not None else bytes(32)
        genuine = hmac.compare_digest(stored, _hash(secret))
        return row if row is not None and genuine and row.revoked_at is None else None

    def list(self, tenant_id: str | None, *, after: str | None, limit: int) -> list[ApiKey]:
        statement = select(ApiKey).where(col(ApiKey.tenant_id) == tenant_id).order_by(col(ApiKey.id)).limit(limit)
        if after is not None:
            statement = statement.where(col(ApiKey.id) > after)
        with self._database.system_read() as session:
            return [*session.scalars(statement)]

    def revoke(self, key_id: str, *, tenant_id: str | None = None) -> ApiKey:
        """Takes effect at the next request. `tenant_id` bounds it to one tenant's keys."""
        with self._database.system_write() as session:
            row = session.get(ApiKey, key_id)
            if row is None or (tenant_id is not None and row.tenant_id != tenant_id):
                raise NotFound("There is no such key.")
            if row.revoked_at is None:
                row.revoked_at = self._clock()
                self._emit(session, "revoked", row)
            session.add(row)
        return row

    def _emit(self, session: Session, verb: str, row: ApiKey) -> None:
        """Operator keys have no tenant whose event it could be."""
        if row.tenant_id is not None:
            emit(session, self._clock, row.tenant_id, f"key.{verb}", row.id, scopes=row.scopes)

    def ensure_operator(self, secret: str) -> None:
        """Make the key that was written into the data directory known to the database."""
        with self._database.system_read() as session:
            known = session.scalar(sa.select(sa.exists().where(col(ApiKey.id) == key_id_of(secret))))
        if not known:
            with suppress(IntegrityError):  # another api process starts at the same moment
                self.create(None, name="operator", scopes=[Scope.OPERATE], secret=secret)


_BY_ID = select(ApiKey).where(col(ApiKey.id) == sa.bindparam("id"))


def _by_id(session: Session, key_id: str) -> ApiKey | None:
    if session.get_bind().dialect.name != "postgresql":
        return session.scalars(_BY_ID, {"id": key_id}).first()
    columns = ApiKey.__table__.columns  # type: ignore[attr-defined]
    found = getattr(sa.func, FIND_KEY)(key_id).table_valued(*columns)
    return session.scalars(select(ApiKey).from_statement(sa.select(found))).first()


def make_secret(key_id: str) -> str:
    return f"carrel_{key_id}_{secrets.token_urlsafe(SECRET_BYTES)}"


def key_id_of(secret: str) -> str:
    """The visible part, `key_…`; of something that is no key, a string that no key has."""
    parts = secret.split("_", 3)
    return "_".join(parts[1:3]) if len(parts) == 4 and parts[0] == "carrel" and storable(secret) else ""


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def _check(
    tenant_id: str | None,
    name: str,
    scopes: Sequence[Scope],
    collections: Sequence[str] | None,
    labels: Sequence[str] | None,
) -> None:
    allowed = (Scope.OPERATE,) if tenant_id is None else TENANT_SCOPES
    if not scopes or any(scope not in allowed for scope in scopes):
        raise InvalidInput(f"Scopes are some of {', '.join(allowed)}.", field="scopes")
    if not 1 <= len(name) <= MAX_NAME_CHARS:
        raise InvalidInput(f"A key's name is 1 to {MAX_NAME_CHARS} characters.", field="name", limit=MAX_NAME_CHARS)
    for field, values in (("collections", collections), ("labels", labels)):
        if values is not None and len(values) > MAX_BOUNDS:
            raise InvalidInput(f"At most {MAX_BOUNDS} {field}.", field=field, limit=MAX_BOUNDS)
        if any(not 1 <= len(value) <= MAX_BOUND_CHARS for value in values or ()):
            raise InvalidInput(f"Each of `{field}` is 1 to {MAX_BOUND_CHARS} characters.", field=field, limit=MAX_BOUND_CHARS)
