"""API keys: made once, shown once, stored as a hash."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session
from sqlmodel import col, select

from config.clock import Clock
from config.database import Database
from config.errors import Conflict, InvalidInput, NotFound, storable
from config.ids import new_id
from tenants.context import TENANT_SCOPES, Scope
from tenants.events import emit
from tenants.identity.tokens import MAX_BOUNDS, check_bounds
from tenants.registry import changeable
from tenants.tables import ApiKey

FIND_KEY = "carrel_find_key"  #: PostgreSQL's function that looks a key up before its tenant is known
SECRET_BYTES = 32  # 256 random bits: guessing is hopeless, and a plain hash is enough to store
MAX_NAME_CHARS = 100
MAX_OVERLAP_S = 30 * 24 * 3600
NOTED_AT_ONCE = 500  #: keys whose last use one transaction writes


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
        read_only: bool = False,
        allowed_addresses: Sequence[str] | None = None,
        expires_at: int | None = None,
        secret: str | None = None,
        record: Callable[[Session, NewKey], None] | None = None,
    ) -> NewKey:
        """`tenant_id` None makes an operator key. `secret` is given only for the first operator key, from its file.

        `record` writes something of the new key in its transaction, last. Raise Conflict for a tenant that is being deleted.
        """
        _check(tenant_id, name, scopes, collections, labels)
        now = self._clock()
        if expires_at is not None and expires_at <= now:
            raise InvalidInput("A key expires in the future.", field="expires_at")
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
            read_only=read_only,
            allowed_addresses=None if allowed_addresses is None else _networks(allowed_addresses),
            created_at=now,
            expires_at=expires_at,
        )
        new = NewKey(row, secret)
        with self._database.system_write() as session:
            if tenant_id is not None:
                changeable(session, tenant_id)
            session.add(row)
            self._emit(session, "created", row)
            if record is not None:
                record(session, new)
        return new

    def row(self, key_id: str) -> ApiKey | None:
        """As it is, revoked and expired ones too. For finding out who asks."""
        with self._database.lookup() as session:
            return _by_id(session, key_id)

    def get(self, key_id: str) -> ApiKey:
        with self._database.system_read() as session:
            return _require(session.get(ApiKey, key_id), None)

    def list(self, tenant_id: str | None, *, after: str | None, limit: int) -> list[ApiKey]:
        statement = select(ApiKey).where(col(ApiKey.tenant_id) == tenant_id).order_by(col(ApiKey.id)).limit(limit)
        if after is not None:
            statement = statement.where(col(ApiKey.id) > after)
        with self._database.system_read() as session:
            return [*session.scalars(statement)]

    def revoke(self, key_id: str, *, tenant_id: str | None = None) -> ApiKey:
        """Holds from the next request on in this process, within a second in others. `tenant_id` bounds it to one tenant's."""
        with self._database.system_write() as session:
            row = _require(session.get(ApiKey, key_id), tenant_id)
            if row.revoked_at is None:
                row.revoked_at = row.changed_at = self._clock()
                self._emit(session, "revoked", row)
            session.add(row)
        return row

    def rotate(self, key_id: str, *, overlap_s: int, record: Callable[[Session, NewKey], None] | None = None) -> NewKey:
        """A new key with the same terms; the old one is valid for the overlap, or until it expires anyway.

        A key that was made to expire gets a successor with the same span of life. Raise Conflict for a key that is revoked,
        expired, rotated already or of a tenant that is being deleted, and for the operator's, which comes from its file.
        """
        with self._database.system_write() as session:
            old, now = _require(session.get(ApiKey, key_id, with_for_update=True), None), self._clock()
            _check_rotation(session, old, now, overlap_s)
            end = now + overlap_s * 1000
            old.expires_at, span = min(old.expires_at or end, end), old.expires_at and old.expires_at - old.created_at
            old.changed_at = now
            new = _successor(old, now, None if span is None else now + span)
            session.add_all([old, new.row])
            self._emit(session, "rotated", new.row, replaces=old.id)
            if record is not None:
                record(session, new)
        return new

    def note_used(self, used: Mapping[str, int]) -> None:
        """When each key was last used, by id. In one order everywhere, so that no two processes wait in a circle."""
        rows = [{"key": key_id, "at": at} for key_id, at in sorted(used.items())]
        for start in range(0, len(rows), NOTED_AT_ONCE):
            with self._database.system_write() as session:
                session.execute(_USED, rows[start : start + NOTED_AT_ONCE])

    def _emit(self, session: Session, verb: str, row: ApiKey, **more: str) -> None:
        """Operator keys have no tenant whose event it could be."""
        if row.tenant_id is not None:
            emit(session, self._clock, row.tenant_id, f"key.{verb}", row.id, scopes=row.scopes, **more)

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


_KEYS = ApiKey.__table__  # type: ignore[attr-defined]
_USED = (
    sa.update(_KEYS)
    .where(
        _KEYS.c.id == sa.bindparam("key"),
        sa.or_(_KEYS.c.last_used_at.is_(None), _KEYS.c.last_used_at < sa.bindparam("at", type_=sa.BigInteger())),
    )
    .values(last_used_at=sa.bindparam("at", type_=sa.BigInteger()))
)


def _require(row: ApiKey | None, tenant_id: str | None) -> ApiKey:
    if row is None or (tenant_id is not None and row.tenant_id != tenant_id):
        raise NotFound("There is no such key.")
    return row


def is_genuine(stored: bytes | None, secret: str) -> bool:
    """In constant time, against a dummy where there is no such key."""
    return hmac.compare_digest(stored or bytes(32), _hash(secret)) and stored is not None


def is_alive(row: ApiKey, now: int) -> bool:
    return row.revoked_at is None and (row.expires_at is None or row.expires_at > now)


def _check_rotation(session: Session, old: ApiKey, now: int, overlap_s: int) -> None:
    if not 0 <= overlap_s <= MAX_OVERLAP_S:
        raise InvalidInput(f"0 to {MAX_OVERLAP_S} seconds.", field="overlap_seconds", limit=MAX_OVERLAP_S)
    if old.tenant_id is None:
        raise Conflict("The operator's key comes from its file: remove that and start the service again.")
    changeable(session, old.tenant_id)
    if not is_alive(old, now):
        raise Conflict("The key is revoked or expired: make another one.")
    if session.scalar(sa.select(sa.exists().where(col(ApiKey.replaces) == old.id, col(ApiKey.tenant_id) == old.tenant_id))):
        raise Conflict("The key was rotated already: rotate the one that replaces it.")


def _successor(old: ApiKey, now: int, expires_at: int | None) -> NewKey:
    key_id = new_id("key")
    secret = make_secret(key_id)
    fields = old.model_dump(include={"tenant_id", "name", "scopes", "collections", "labels", "read_only", "allowed_addresses"})
    row = ApiKey(
        **fields, id=key_id, secret_sha256=_hash(secret), replaces=old.id, created_at=now, expires_at=expires_at, changed_at=0
    )
    return NewKey(row, secret)


def make_secret(key_id: str) -> str:
    return f"carrel_{key_id}_{secrets.token_urlsafe(SECRET_BYTES)}"


def key_id_of(secret: str) -> str:
    """The visible part, `key_…`; of something that is no key, a string that no key has."""
    parts = secret.split("_", 3)
    return "_".join(parts[1:3]) if len(parts) == 4 and parts[0] == "carrel" and storable(secret) else ""


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def _networks(given: Sequence[str]) -> list[str]:
    """Addresses and networks, each as a network is written."""
    if len(given) > MAX_BOUNDS:
        raise InvalidInput(f"At most {MAX_BOUNDS} networks.", field="allowed_addresses", limit=MAX_BOUNDS)
    try:
        return [str(ipaddress.ip_network(network, strict=False)) for network in given]
    except ValueError:
        detail = "Addresses or networks, such as 192.0.2.7 or 2001:db8::/32."
        raise InvalidInput(detail, field="allowed_addresses") from None


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
    check_bounds(collections, labels)
