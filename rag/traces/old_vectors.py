"""Vectors of turns that were packed are kept for replays of what was asked when they were in the window: as long as there is a
trace that may be of then. What a turn said is kept for good.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import sqlalchemy as sa
from sqlmodel import col

from config.clock import Clock
from config.database import Database
from rag.recall.tables import TurnVector
from rag.sessions.sweeping import REST, SLICE_S, Owner
from rag.sessions.tables import HAS_VECTORS, TurnArchive
from rag.traces.erasing import DAY_MS, KNOWN_MS
from rag.traces.tables import Trace

PAGE = 20  # pieces of one tenant, before the next is looked at
#: An index in memory holds turns that left the window until it is unused for a quarter of an hour or much longer than the
#: window, and they count for its scores. No index of a conversation without such a pause is taken to be older than this.
INDEXED_MS = DAY_MS
_NO_SYNC = {"synchronize_session": False}


class OldVectors:
    """How far it is follows from the pieces: it may die at any instant, and be done by two at once."""

    def __init__(self, database: Database, clock: Clock, *, pause: Callable[[float], None] = time.sleep) -> None:
        self._database, self._clock, self._pause = database, clock, pause

    def run_once(self) -> int:
        """Work for SLICE_S at most; return of how many pieces the vectors went."""
        until, gone, more = time.monotonic() + SLICE_S, 0, True
        while more:
            more, tenant_id = False, self._next("")
            while tenant_id is not None:
                owner = Owner(tenant_id)
                for piece in self._due(owner):
                    if (began := time.monotonic()) > until:
                        return gone
                    self._let_go(owner, piece)
                    gone, more = gone + 1, True
                    self._pause(REST * (time.monotonic() - began))  # others come in between
                tenant_id = self._next(tenant_id)
        return gone

    def _next(self, after: str) -> str | None:
        """Tenants that have such vectors, one by one along the index."""
        with self._database.system_read() as session:
            found: str | None = session.scalar(_TENANT, {"after": after})
        return found

    def _due(self, owner: Owner) -> Sequence[sa.Row[str, int, int]]:
        with self._database.read(owner) as session:
            oldest: int | None = session.scalar(_OLDEST)
            before = self._clock() - KNOWN_MS if oldest is None else oldest - INDEXED_MS
            return session.execute(_DUE, {"before": before}).all()

    def _let_go(self, owner: Owner, piece: sa.Row[str, int, int]) -> None:
        """Whoever erases its session goes by the same order."""
        given = {"of": piece.session_id, "first": piece.first_seq, "last": piece.last_seq}
        with self._database.write(owner) as session:
            session.execute(_FORGET, given, execution_options=_NO_SYNC)
            session.execute(_DONE, given, execution_options=_NO_SYNC)


_LAST = sa.bindparam("last", type_=sa.Integer())
_TENANT = sa.select(sa.func.min(col(TurnArchive.tenant_id))).where(
    HAS_VECTORS, col(TurnArchive.tenant_id) > sa.bindparam("after")
)
_OLDEST = sa.select(col(Trace.at)).order_by(col(Trace.at), col(Trace.id)).limit(1)
_DUE = (
    sa.select(col(TurnArchive.session_id), col(TurnArchive.first_seq), col(TurnArchive.last_seq))
    .where(HAS_VECTORS, col(TurnArchive.packed_at) < sa.bindparam("before", type_=sa.BigInteger()))
    .order_by(col(TurnArchive.packed_at))
    .limit(PAGE)
)
_FORGET = sa.delete(TurnVector).where(
    col(TurnVector.session_id) == sa.bindparam("of"),
    col(TurnVector.seq).between(sa.bindparam("first", type_=sa.Integer()), _LAST),
)
_DONE = (
    sa.update(TurnArchive)
    .where(col(TurnArchive.session_id) == sa.bindparam("of"), col(TurnArchive.last_seq) == _LAST)
    .values(packed_at=None)
)
