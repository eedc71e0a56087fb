"""Turns that have left their session's window are made small, in pieces that nobody has to wait for: what was said in them goes
into one packed row. Their vectors stay for the replay of what was asked before: `rag.traces.old_vectors`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import sqlalchemy as sa
from sqlmodel import col, select

from rag.recall.tables import TurnVector
from rag.sessions.appending import INSERT, RAW
from rag.sessions.archives import THIN, pack
from rag.sessions.finding import BEHIND, alive
from rag.sessions.parts import SessionParts
from rag.sessions.sweeping import REST, SLICE_S, Owner
from rag.sessions.tables import IS_COMPACTABLE, PIECE, ChatSession, Turn

PAGE = 50  # sessions of one look, a piece of each before the next look
_NO_SYNC = {"synchronize_session": False}


class SessionCompactor:
    """How far it is follows from the sessions' rows: it may die at any instant, and be done by two at once. What is over, or is
    being erased, it leaves.
    """

    def __init__(self, parts: SessionParts, *, pause: Callable[[float], None] = time.sleep) -> None:
        self._parts, self._pause = parts, pause

    def run_once(self) -> int:
        """Work for SLICE_S at most; return how many turns were compacted."""
        until, compacted, more = time.monotonic() + SLICE_S, 0, True
        while more:
            more = False
            for row in self._due():
                if (began := time.monotonic()) > until:
                    return compacted
                done = self._compact(Owner(row.tenant_id), row.id, row.compacted_turns)
                compacted, more = compacted + done, more or bool(done)
                self._pause(REST * (time.monotonic() - began))  # others come in between
        return compacted

    def _due(self) -> Sequence[sa.Row[str, str, int]]:
        with self._parts.database.system_read() as session:
            return session.execute(_DUE, {"now": self._parts.clock()}).all()

    def _compact(self, owner: Owner, session_id: str, done: int) -> int:
        """One piece of those behind `done`. It is packed before anybody waits for the row: turns do not change, but by this."""
        with self._parts.database.read(owner) as session:
            turns = session.scalars(BEHIND, {"of": session_id, "after": done, "through": done + PIECE}).all()
        if not turns:
            return 0
        archive = pack(turns)
        thin = [{**turn.model_dump(), **THIN} for turn in turns if turn.seq <= archive.last_seq]
        given = {"of": session_id, "first": archive.first_seq, "last": archive.last_seq}
        with self._parts.database.write(owner) as session:
            chat = session.scalars(_HELD, {"of": session_id, "done": done, "now": self._parts.clock()}).one_or_none()
            if chat is None:  # another was first, or it is over
                return 0
            vectors = [row.model_dump() for row in session.scalars(_VECTORS, given)]  # they refer to the turns
            session.execute(_FORGET_VECTORS, given, execution_options=_NO_SYNC)
            # Made anew: of rows that are only made smaller SQLite keeps the pages, half empty (1.7 times the bytes).
            session.execute(_FORGET_TURNS, given, execution_options=_NO_SYNC)
            session.execute(INSERT, thin, execution_options=RAW)
            if vectors:
                session.execute(_INSERT_VECTORS, vectors, execution_options=RAW)
                archive.packed_at = self._parts.clock()
            session.add(archive)
            chat.compacted_turns = archive.last_seq
            chat.embedded_turns = max(chat.embedded_turns, archive.last_seq)  # those that wait for vectors need none
        return archive.last_seq - archive.first_seq + 1


_NOW = sa.bindparam("now", type_=sa.BigInteger())
_DUE = (
    sa.select(col(ChatSession.tenant_id), col(ChatSession.id), col(ChatSession.compacted_turns))
    .where(IS_COMPACTABLE, *alive(_NOW))
    .order_by(col(ChatSession.id))
    .limit(PAGE)
)
_HELD = (
    select(ChatSession)
    .where(col(ChatSession.id) == sa.bindparam("of"), col(ChatSession.compacted_turns) == sa.bindparam("done"), *alive(_NOW))
    .with_for_update()
)
_FIRST, _LAST = sa.bindparam("first", type_=sa.Integer()), sa.bindparam("last", type_=sa.Integer())
_FORGET_TURNS = sa.delete(Turn).where(col(Turn.session_id) == sa.bindparam("of"), col(Turn.seq).between(_FIRST, _LAST))
_OF_PIECE = col(TurnVector.session_id) == sa.bindparam("of"), col(TurnVector.seq).between(_FIRST, _LAST)
_VECTORS, _FORGET_VECTORS = select(TurnVector).where(*_OF_PIECE), sa.delete(TurnVector).where(*_OF_PIECE)
_INSERT_VECTORS = sa.insert(TurnVector)
