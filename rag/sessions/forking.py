"""A session that begins as another one was at some turn. Its turns are copies, those that are compacted too, so either can go
without the other.
"""

from __future__ import annotations

from collections.abc import Callable

import sqlalchemy as sa
from sqlalchemy.orm import Session
from sqlmodel import col, select

from config.errors import NotFound
from config.ids import new_id
from rag.sessions.archives import restored
from rag.sessions.finding import BEHIND, find
from rag.sessions.parts import SessionParts
from rag.sessions.tables import OPEN, ChatSession, Turn, TurnArchive
from rag.types import Speaker

PAGE = 500
ARCHIVES = 20  # some 250 KB, and 10 MB of the largest
Record = Callable[[Session, ChatSession], None]


def fork(parts: SessionParts, scope: Speaker, session_id: str, turn_id: str | None, record: Record | None) -> ChatSession:
    """See `TenantSessions.fork`."""
    with parts.database.write(scope) as session:
        source = find(session, scope, session_id, parts.clock(), lock=True)
        last = source.turns if turn_id is None else _seq(session, session_id, turn_id)
        row = _begun(source, last, parts.clock())
        parts.add(session, row)
        _copy_archives(session, source, row)
        _copy(session, source, row)
        parts.follow(session, source.id, row)
        if record is not None:
            record(session, row)
    return row


def _seq(session: Session, session_id: str, turn_id: str) -> int:
    turn = session.get(Turn, turn_id)
    if turn is None or turn.session_id != session_id:
        raise NotFound("There is no such turn.", field="turn_id")
    return turn.seq


def _begun(source: ChatSession, last: int, now: int) -> ChatSession:
    """Nothing is spent for it yet, none of its turns has a vector, and its times begin now."""
    kept = source.model_dump(exclude={"archived_tokens", "embedded_turns", "expires_at", "spent_tokens", "spent_cost"})
    row = ChatSession(
        **kept
        | {"id": new_id("ses"), "state": OPEN, "created_at": now, "last_active_at": now}
        | {"turns": 0, "tokens": 0, "compacted_turns": 0, "archived_turns": min(source.archived_turns, last)}
        | {"forked_from": source.id, "forked_at_seq": last}
    )
    row.expires_at = row.ends_at()
    return row


def _copy_archives(session: Session, source: ChatSession, row: ChatSession) -> None:
    """As they are, those that hold no turn behind the last: what is damaged stays so, and stays known as that. Other turns
    are copied whole. Those that are compacted wait for no vectors, and no trace of the copy was left when they had any.
    """
    last, own = row.forked_at_seq or 0, {"session_id": row.id, "packed_at": None}
    while row.compacted_turns < last:
        page = session.scalars(_ARCHIVES, {"of": source.id, "after": row.compacted_turns, "through": last}).all()
        if not page:
            return
        session.execute(sa.insert(TurnArchive), [archive.model_dump() | own for archive in page])
        row.compacted_turns = row.embedded_turns = page[-1].last_seq


def _copy(session: Session, source: ChatSession, row: ChatSession) -> None:
    last = row.forked_at_seq or 0
    while row.turns < last:
        page = session.scalars(_PAGE, {"of": source.id, "after": row.turns, "through": last}).all()
        restored(session, [turn for turn in page if turn.seq > row.compacted_turns])
        copies = [_copied(turn, row.id) for turn in page]
        session.execute(sa.insert(Turn), [copy.model_dump() for copy in copies])
        row.turns = page[-1].seq
        row.tokens += sum(turn.tokens for turn in page)
        row.archived_tokens += sum(turn.tokens for turn in page if turn.seq <= row.archived_turns)


def _copied(turn: Turn, session_id: str) -> Turn:
    """Without its key: that stood for an appending to the other session."""
    return Turn(**turn.model_dump() | {"id": new_id("trn"), "session_id": session_id, "idempotency_key": None})


_PAGE = BEHIND.limit(PAGE)
_ARCHIVES = (
    select(TurnArchive)
    .where(
        col(TurnArchive.session_id) == sa.bindparam("of"),
        col(TurnArchive.last_seq) > sa.bindparam("after"),
        col(TurnArchive.last_seq) <= sa.bindparam("through"),
    )
    .order_by(col(TurnArchive.last_seq))
    .limit(ARCHIVES)
)
