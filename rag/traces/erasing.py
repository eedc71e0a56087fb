"""Traces end: with their session or subject, by age, and with their tenant."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session
from sqlmodel import col

from config.clock import Clock
from config.database import Database
from rag.traces.tables import Trace, TraceErasure

DAY_MS = 24 * 3600 * 1000
#: How long it is known that something was erased: a trace that was under way then is written within seconds, or never.
KNOWN_MS = 3600 * 1000
ROWS = 1_000  #: in one transaction
_NO_SYNC = {"synchronize_session": False}
RetentionOf = Callable[[str], int]  #: days by tenant; 0 for one that is gone


@dataclass(frozen=True, slots=True)
class _Owner:
    tenant_id: str


def erase(session: Session, tenant_id: str, *, session_ids: Sequence[str] = (), subject: str | None = None, now: int) -> int:
    """All traces of these sessions, and of the subject; those that are not written yet will not be. How many there were."""
    names = [("session", name) for name in session_ids] + ([] if subject is None else [("subject", subject)])
    for kind, name in names:
        known = session.get(TraceErasure, (tenant_id, kind, name)) or TraceErasure(
            tenant_id=tenant_id, kind=kind, name=name, at=now
        )
        known.at = now
        session.add(known)
    session.flush()
    return sum(_delete(session, _named(kind, name)) for kind, name in names)


def _named(kind: str, name: str) -> sa.ColumnElement[bool]:
    return (col(Trace.subject) if kind == "subject" else col(Trace.session_id)) == name


def _delete(session: Session, condition: sa.ColumnElement[bool]) -> int:
    result = session.execute(sa.delete(Trace).where(condition), execution_options=_NO_SYNC)
    return int(result.rowcount)  # type: ignore[attr-defined]


class Sweeper:
    """Deletes traces that are older than their tenants' plans keep them."""

    def __init__(self, database: Database, clock: Clock, retention_of: RetentionOf) -> None:
        self._database, self._clock, self._retention_of = database, clock, retention_of

    def run_once(self) -> int:
        """How many went."""
        self._settle_erasures()
        gone, tenant_id = 0, self._next("")
        while tenant_id is not None:
            gone += self._sweep(_Owner(tenant_id))
            tenant_id = self._next(tenant_id)
        return gone

    def _next(self, after: str) -> str | None:
        """Tenants that have traces, one by one along the index."""
        with self._database.system_read() as session:
            found: str | None = session.scalar(sa.select(sa.func.min(col(Trace.tenant_id))).where(col(Trace.tenant_id) > after))
        return found

    def _sweep(self, owner: _Owner) -> int:
        before = self._clock() - self._retention_of(owner.tenant_id) * DAY_MS
        old = sa.select(col(Trace.id)).where(col(Trace.at) < before).order_by(col(Trace.at), col(Trace.id)).limit(ROWS)
        gone = 0
        while True:
            with self._database.write(owner) as session:
                if ids := session.scalars(old).all():
                    gone += _delete(session, col(Trace.id).in_(ids))
            if len(ids) < ROWS:
                return gone

    def _settle_erasures(self) -> None:
        """Once more, for what was written at the very moment; then they need not be known any longer."""
        old = sa.select(TraceErasure).where(col(TraceErasure.at) < self._clock() - KNOWN_MS).limit(ROWS)
        while True:
            with self._database.system_read() as session:
                rows = session.scalars(old).all()
            for row in rows:
                with self._database.write(_Owner(row.tenant_id)) as session:
                    _delete(session, sa.and_(_named(row.kind, row.name), col(Trace.at) <= row.at))
                    known = (col(TraceErasure.kind) == row.kind, col(TraceErasure.name) == row.name)
                    session.execute(
                        sa.delete(TraceErasure).where(*known, col(TraceErasure.at) == row.at), execution_options=_NO_SYNC
                    )
            if len(rows) < ROWS:
                return
