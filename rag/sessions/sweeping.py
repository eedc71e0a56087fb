"""Sessions whose time is up, and those that were erased, go by and by, in pieces that nobody has to wait for."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session
from sqlmodel import col, select

from rag.sessions.parts import SessionParts
from rag.sessions.tables import EXPIRED, GONE, ChatSession, SessionTag, Turn

_NO_SYNC = {"synchronize_session": False}
#: Sessions that become expired in one transaction, and rows that one removes: either holds SQLite's one lock for 5 ms.
PAGE, ROWS = 50, 200
SLICE_S = 3.0  # of one call: others are looked after in between


@dataclass(frozen=True, slots=True)
class _Owner:
    tenant_id: str


class SessionSweeper:
    """Ends sessions whose time is up, and removes what nobody reaches any more, in short transactions with pauses between.

        expires_at has passed: 404 at once → `expired`, with its event, and counted no more → companions' rows, turns
        → tags and the session itself

    How far it is follows from what is still there: it may die at any instant, and be done by two at once.
    """

    def __init__(self, parts: SessionParts, *, pause: Callable[[float], None] = time.sleep) -> None:
        self._parts, self._pause = parts, pause

    def run_once(self) -> int:
        """Work for SLICE_S at most; return how many sessions were ended and how many removed, together."""
        until, done = time.monotonic() + SLICE_S, 0
        for work in (self._expire, self._remove):
            while time.monotonic() < until:
                began = time.monotonic()
                if (more := work()) is None:
                    break
                done += more
                self._pause(time.monotonic() - began)  # as long as it worked: others come in between
        return done

    def _expire(self) -> int | None:
        """Some of one tenant; None if there are none of any."""
        now = self._parts.clock()
        with self._parts.database.system_read() as session:
            due = session.execute(_DUE, {"now": now}).all()
        if not due:
            return None
        owner = _Owner(due[0].tenant_id)
        ids = [row.id for row in due if row.tenant_id == owner.tenant_id]
        with self._parts.database.write(owner) as session:
            found = session.execute(_EXPIRE, {"ids": ids, "now": now}, execution_options=_NO_SYNC).scalars().all()
            if found:
                self._parts.rules.count_sessions(session, owner.tenant_id, -len(found))
            for session_id in sorted(found):
                self._parts.tell(session, owner.tenant_id, "session.expired", session_id)
        return len(found)

    def _remove(self) -> int | None:
        with self._parts.database.system_read() as session:
            gone = session.execute(_GONE).all()
        if not gone:
            return None
        owner = _Owner(gone[0].tenant_id)
        return self._clear(owner, [row.id for row in gone if row.tenant_id == owner.tenant_id])

    def _clear(self, owner: _Owner, ids: Sequence[str]) -> int:
        """ROWS at most, of one session after another; return how many sessions are away with it."""
        left, away = ROWS, 0
        with self._parts.database.write(owner) as session:
            for session_id in ids:
                left -= sum(companion.clear(session, session_id, left) for companion in self._parts.companions)
                if left > 0:
                    left -= _rows(session, _SOME_TURNS, {"of": session_id, "limit": left})
                if left <= 0:
                    break
                _rows(session, _TAGS, {"of": session_id})
                away += _rows(session, _SESSION, {"of": session_id})
                left -= 1
        return away


def _rows(session: Session, statement: sa.Delete, given: dict[str, Any]) -> int:
    count: int = session.execute(statement, given, execution_options=_NO_SYNC).rowcount  # type: ignore[attr-defined]
    return count


_COLUMNS = col(ChatSession.tenant_id), col(ChatSession.id)
_NOW = sa.bindparam("now", type_=sa.BigInteger())
_IS_DUE = sa.and_(col(ChatSession.state).not_in(GONE), col(ChatSession.expires_at) <= _NOW)
_DUE = select(*_COLUMNS).where(_IS_DUE).order_by(col(ChatSession.expires_at)).limit(PAGE)
#: Without its time it is due no more.
_EXPIRE = (
    sa.update(ChatSession)
    .where(col(ChatSession.id).in_(sa.bindparam("ids", expanding=True)), _IS_DUE)
    .values(state=EXPIRED, expires_at=None)
    .returning(col(ChatSession.id))
)
_GONE = select(*_COLUMNS).where(sa.or_(*(col(ChatSession.state) == state for state in GONE))).limit(PAGE)
_SOME_TURNS = sa.delete(Turn).where(
    col(Turn.id).in_(
        select(col(Turn.id))
        .where(col(Turn.session_id) == sa.bindparam("of"))
        .order_by(col(Turn.seq))
        .limit(sa.bindparam("limit", type_=sa.Integer()))
    )
)
_TAGS = sa.delete(SessionTag).where(col(SessionTag.session_id) == sa.bindparam("of"))
_SESSION = sa.delete(ChatSession).where(col(ChatSession.id) == sa.bindparam("of"))
