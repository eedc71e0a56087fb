"""Sessions whose time is up are ended, in pieces that nobody has to wait for. What ended ones leave is for others to remove."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import sqlalchemy as sa
from sqlmodel import col, select

from rag.sessions.parts import SessionParts
from rag.sessions.tables import EXPIRED, IS_LIVING, ChatSession

_NO_SYNC = {"synchronize_session": False}
#: Sessions that become expired in one transaction: it holds SQLite's one lock for some 5 ms, for which a question's audit
#: entry has to wait.
PAGE = 20
REST = 4.0  # pauses are so many times as long as the work before them: with twice, questions took 1.7 times as long (p95)
SLICE_S = 3.0  # of one call: others are looked after in between


@dataclass(frozen=True, slots=True)
class Owner:
    tenant_id: str


class SessionSweeper:
    """Ends sessions whose time is up: no more reached since, they become `expired`, with their event, and count no more.

    How far it is follows from what is still due: it may die at any instant, and be done by two at once.
    """

    def __init__(self, parts: SessionParts, *, pause: Callable[[float], None] = time.sleep) -> None:
        self._parts, self._pause = parts, pause

    def run_once(self) -> int:
        """Work for SLICE_S at most; return how many sessions were ended."""
        until, ended = time.monotonic() + SLICE_S, 0
        while time.monotonic() < until:
            began = time.monotonic()
            if (more := self._expire()) is None:
                break
            ended += more
            self._pause(REST * (time.monotonic() - began))  # others come in between
        return ended

    def _expire(self) -> int | None:
        """Some of one tenant; None if there are none of any."""
        now = self._parts.clock()
        with self._parts.database.system_read() as session:
            due = session.execute(_DUE, {"now": now, "limit": PAGE}).all()
        if not due:
            return None
        owner = Owner(due[0].tenant_id)
        ids = [row.id for row in due if row.tenant_id == owner.tenant_id]
        with self._parts.database.write(owner) as session:
            found = session.execute(_EXPIRE, {"ids": ids, "now": now}, execution_options=_NO_SYNC).scalars().all()
            if found:
                self._parts.rules.count_sessions(session, owner.tenant_id, -len(found))
            for session_id in sorted(found):
                self._parts.tell(session, owner.tenant_id, "session.expired", session_id)
        return len(found)


_COLUMNS = col(ChatSession.tenant_id), col(ChatSession.id)
_NOW = sa.bindparam("now", type_=sa.BigInteger())
_IS_DUE = sa.and_(IS_LIVING, col(ChatSession.expires_at) <= _NOW)
_DUE = select(*_COLUMNS).where(_IS_DUE).order_by(col(ChatSession.expires_at)).limit(sa.bindparam("limit"))
_EXPIRE = (
    sa.update(ChatSession)
    .where(col(ChatSession.id).in_(sa.bindparam("ids", expanding=True)), _IS_DUE)
    .values(state=EXPIRED, expires_at=_NOW)
    .returning(col(ChatSession.id))
)
