"""Traces end: with their session or subject, by age, and with their tenant."""

from __future__ import annotations

from collections.abc import Callable
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


def fence(session: Session, tenant_id: str, who: str, now: int) -> None:
    """Traces of the subject that are not written yet will not be. Those that are go with all of its rows; and none is
    written of a session that is gone, which its own row says.
    """
    known = session.get(TraceErasure, (tenant_id, who)) or TraceErasure(tenant_id=tenant_id, who=who, at=now)
    known.at = now
    session.add(known)


def _delete(session: Session, condition: sa.ColumnElement[bool]) -> int:
    result = session.execute(sa.delete(Trace).where(condition), execution_options=_NO_SYNC)
    return int(result.rowcount)  # type: ignore[attr-defined]


class Sweeper:
    """Deletes traces that are older than their tenants' plans keep them."""

    def __init__(self, database: Database, clock: Clock, retention_of: RetentionOf) -> None:
        self._database, self._clock, self._retention_of = database, clock, retention_of

    def run_once(self) -> int:
        """How many went."""
        self._forget_erasures()
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

    def _forget_erasures(self) -> None:
        old = sa.delete(TraceErasure).where(col(TraceErasure.at) < self._clock() - KNOWN_MS)
        with self._database.system_write() as session:
            session.execute(old, execution_options=_NO_SYNC)
