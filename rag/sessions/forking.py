"""A session that begins as another one was at some turn, with the window of then. Its turns are copies, those that are
compacted too, so either can go without the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session
from sqlmodel import col, select

from config.errors import NotFound
from config.ids import new_id
from rag.recall.tables import TurnVector
from rag.sessions.appending import INSERT, RAW
from rag.sessions.archives import is_intact, restored
from rag.sessions.finding import BEHIND, find
from rag.sessions.parts import SessionParts
from rag.sessions.room import left_by
from rag.sessions.tables import OPEN, ChatSession, Turn, TurnArchive
from rag.types import Speaker

PAGE = 200  # turns in memory at a time: 40 MB of the largest
ARCHIVES = 20  # some 250 KB, and 10 MB of the largest
Record = Callable[[Session, ChatSession], None]


def fork(parts: SessionParts, scope: Speaker, session_id: str, turn_id: str | None, record: Record | None) -> ChatSession:
    """See `TenantSessions.fork`."""
    with parts.database.write(scope) as session:
        source = find(session, scope, session_id, parts.clock(), lock=True)
        last = source.turns if turn_id is None else _seq(session, session_id, turn_id)
        row = _begun(source, last, _outside(session, source, last), parts.clock())
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


def _outside(session: Session, source: ChatSession, last: int) -> int:
    """How many turns are outside the window. It begins behind what is damaged, which is copied as it is."""
    outside = left_by(session, source, last)
    for page in _archives(session, source.id, outside, last):
        outside = max([outside, *(archive.last_seq for archive in page if not is_intact(archive))])
    return outside


def _begun(source: ChatSession, last: int, outside: int, now: int) -> ChatSession:
    """Nothing is spent for it yet, and its times begin now. Turns outside its window need no vectors: nothing asks them."""
    kept = source.model_dump(exclude={"archived_tokens", "expires_at", "spent_tokens", "spent_cost"})
    row = ChatSession(
        **kept
        | {"id": new_id("ses"), "state": OPEN, "created_at": now, "last_active_at": now}
        | {"turns": 0, "tokens": 0, "compacted_turns": 0, "archived_turns": outside, "embedded_turns": outside}
        | {"forked_from": source.id, "forked_at_seq": last}
    )
    row.expires_at = row.ends_at()
    return row


def _archives(session: Session, session_id: str, after: int, through: int) -> Iterator[Sequence[TurnArchive]]:
    """Those that end there, in their order, some at a time."""
    while page := session.scalars(_ARCHIVES, {"of": session_id, "after": after, "through": through}).all():
        yield page
        after = page[-1].last_seq


def _copy_archives(session: Session, source: ChatSession, row: ChatSession) -> None:
    """As they are, those that hold no turn in the window: what is damaged stays so, and stays known as that. Other turns are
    copied whole. No trace of the copy was left when they had vectors.
    """
    own = {"session_id": row.id, "packed_at": None}
    for page in _archives(session, source.id, 0, row.archived_turns):
        session.execute(sa.insert(TurnArchive), [archive.model_dump() | own for archive in page])
        row.compacted_turns = page[-1].last_seq


def _copy(session: Session, source: ChatSession, row: ChatSession) -> None:
    last = row.forked_at_seq or 0
    while row.turns < last:
        page = session.scalars(_PAGE, {"of": source.id, "after": row.turns, "through": last}).all()
        restored(session, [turn for turn in page if turn.seq > row.compacted_turns])
        copies = [_copied(turn, row.id) for turn in page]
        session.execute(INSERT, copies, execution_options=RAW)
        _copy_vectors(session, source, row, copies)
        row.turns = page[-1].seq
        row.tokens += sum(turn.tokens for turn in page)
        row.archived_tokens += sum(turn.tokens for turn in page if turn.seq <= row.archived_turns)


def _copied(turn: Turn, session_id: str) -> dict[str, Any]:
    """Without its key: that stood for an appending to the other session."""
    return turn.model_dump() | {"id": new_id("trn"), "session_id": session_id, "idempotency_key": None}


def _copy_vectors(session: Session, source: ChatSession, row: ChatSession, copies: Sequence[dict[str, Any]]) -> None:
    """In the window, as far as all turns that say something have theirs. Those behind are embedded as if just said."""
    first, last = row.embedded_turns + 1, copies[-1]["seq"]
    if not copies[0]["seq"] <= first <= last:
        return
    there = {each.seq: each for each in session.execute(_VECTORS, {"of": source.id, "first": first, "last": last})}
    found = []
    for copy in copies[first - copies[0]["seq"] :]:
        if vector := there.get(copy["seq"]):
            own = {"turn_id": copy["id"], "tenant_id": row.tenant_id, "session_id": row.id}
            found.append(own | vector._asdict())
        elif copy["content"]:
            break
        row.embedded_turns = copy["seq"]
    if found:
        session.execute(sa.insert(TurnVector), found, execution_options=RAW)


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
_VECTORS = select(col(TurnVector.seq), col(TurnVector.space), col(TurnVector.vector)).where(
    col(TurnVector.session_id) == sa.bindparam("of"),
    col(TurnVector.seq).between(sa.bindparam("first", type_=sa.Integer()), sa.bindparam("last", type_=sa.Integer())),
)
