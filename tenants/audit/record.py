"""The append-only record of who did what. Entries hold ids, never text; nothing here updates one, and none waits for another:
their place in the chain is given later, by `tenants.audit.sealer`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session
from sqlmodel import col, select

from config.clock import Clock
from config.database import Database
from config.ids import new_id
from config.kept import execute
from tenants.audit.tables import AuditEntry, AuditIntent
from tenants.context import Principal
from tenants.counters import table_of

DENIED = (401, 402, 403, 429)
LOOKED_AT = 5_000  #: entries that one page of a filtered list goes through at most
_INSERT, _INSERT_INTENT = sa.insert(table_of(AuditEntry)), sa.insert(AuditIntent)
_RAW = {"dml_strategy": "raw"}  # half the time of adding an entity
_UNSEALED = {"position": None, "hash": None}
_END_INTENT = sa.delete(AuditIntent).where(col(AuditIntent.id) == sa.bindparam("intent"))


@dataclass(frozen=True, slots=True)
class Event:
    request_id: str
    principal: Principal
    tenant_id: str | None
    action: str  #: method and route template, as "POST /v1/query"
    target: str  #: the path, whose ids are no content
    status: int
    detail: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Owner:
    tenant_id: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which entries a list shows; None: whatever it is. Times are Unix milliseconds, `until` is not in it."""

    principal: str | None = None
    action: str | None = None
    decision: str | None = None
    target: str | None = None  #: the path, or its beginning
    since: int | None = None
    until: int | None = None

    @property
    def filters(self) -> bool:
        """Whether it leaves entries of its time out."""
        return any(value is not None for value in (self.principal, self.action, self.decision, self.target))


class AuditLog:
    def __init__(self, database: Database, clock: Clock) -> None:
        self._database, self._clock = database, clock

    def append(self, event: Event, *, intent: str | None = None) -> None:
        """`intent`: what `begin` gave for this request, which is over now."""
        with self._confined(event.tenant_id) as session:
            self.add(session, event)
            if intent is not None:
                session.execute(_END_INTENT, {"intent": intent}, execution_options={"synchronize_session": False})

    def add(self, session: Session, event: Event) -> None:
        """In the transaction of what the entry tells of."""
        decision = "denied" if event.status in DENIED else "allowed"
        entry = {**self._facts(event), "id": new_id("aud"), "decision": decision, "status": event.status}
        execute(session, _INSERT, {**entry, **_UNSEALED, "detail": event.detail})

    def begin(self, event: Event) -> str:
        """Note what is about to change something, before it does: if the process dies, this becomes the entry."""
        name = new_id("aud")
        with self._confined(event.tenant_id) as session:
            session.execute(_INSERT_INTENT, {**self._facts(event), "id": name}, execution_options=_RAW)
        return name

    def _facts(self, event: Event) -> dict[str, Any]:
        return {
            "tenant_id": event.tenant_id,
            "at": self._clock(),
            "request_id": event.request_id,
            "principal_kind": event.principal.kind,
            "principal_id": event.principal.id,
            "action": event.action,
            "target": event.target,
        }

    @contextmanager
    def _confined(self, tenant_id: str | None) -> Iterator[Session]:
        """A transaction of the tenant's, or of nobody's."""
        with self._database.write(_Owner(tenant_id)) if tenant_id else self._database.system_write() as session:
            yield session

    def of(self, tenant_id: str | None, *, limit: int = 100) -> list[AuditEntry]:
        """A tenant's newest entries first; None: those of operators."""
        return self.page(tenant_id, limit=limit)[0]

    def page(
        self, tenant_id: str | None, wanted: Wanted | None = None, *, after: str | None = None, limit: int = 100
    ) -> tuple[list[AuditEntry], str | None]:
        """Newest entries first of a tenant, or of operators (None), and where to go on.

        A page can be short, or empty, and still have more behind it: it goes through LOOKED_AT entries at most.
        """
        wanted = wanted or Wanted()
        place = sa.tuple_(col(AuditEntry.at), col(AuditEntry.id))
        newest = _order(_of_the_time(sa.select(AuditEntry.at, AuditEntry.id), tenant_id, wanted, after))  # type: ignore[call-overload]
        shown = _order(_of_the_time(select(AuditEntry), tenant_id, wanted, after)).where(*_conditions(wanted)).limit(limit + 1)
        with self.reading(tenant_id) as session:
            end = session.execute(newest.offset(LOOKED_AT - 1).limit(1)).first() if wanted.filters else None
            if end is not None:
                shown = shown.where(place >= _place(end.at, end.id))
            rows = [*session.scalars(shown)]
        if len(rows) > limit:
            return rows[:limit], _position(rows[limit - 1].at, rows[limit - 1].id)
        return rows, None if end is None else _position(end.at, end.id)

    @contextmanager
    def reading(self, tenant_id: str | None) -> Iterator[Session]:
        with self._database.read(_Owner(tenant_id)) if tenant_id else self._database.system_read() as session:
            yield session


def _of_the_time(statement: sa.Select[Any], tenant_id: str | None, wanted: Wanted, after: str | None) -> sa.Select[Any]:
    """By the index of times."""
    at, name = col(AuditEntry.at), col(AuditEntry.id)
    statement = statement.where(col(AuditEntry.tenant_id) == tenant_id)
    if wanted.since is not None:
        statement = statement.where(at >= wanted.since)
    if wanted.until is not None:
        statement = statement.where(at < wanted.until)
    if after is not None:
        moment, _, entry_id = after.partition(" ")
        statement = statement.where(sa.tuple_(at, name) < _place(int(moment), entry_id))
    return statement


def _place(at: int, name: str) -> sa.Tuple:
    return sa.tuple_(sa.literal(at, sa.BigInteger), sa.literal(name))


def _order(statement: sa.Select[Any]) -> sa.Select[Any]:
    return statement.order_by(col(AuditEntry.at).desc(), col(AuditEntry.id).desc())


def _conditions(wanted: Wanted) -> Iterator[sa.ColumnElement[bool]]:
    for column, value in (
        (AuditEntry.principal_id, wanted.principal),
        (AuditEntry.action, wanted.action),
        (AuditEntry.decision, wanted.decision),
    ):
        if value is not None:
            yield col(column) == value
    if wanted.target is not None:
        yield col(AuditEntry.target).startswith(wanted.target, autoescape=True)


def _position(at: int, name: str) -> str:
    return f"{at} {name}"
