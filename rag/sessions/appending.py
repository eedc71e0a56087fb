"""Turns are added to a session in one short transaction: the session's row is held, so their numbers have no gaps, a key
stands for one turn only, and a batch is there as a whole or not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import sqlalchemy as sa
from sqlalchemy.orm import Session
from sqlmodel import col, select

from config.errors import Conflict, IdempotencyKeyReused, InvalidInput
from config.ids import new_id
from rag.sessions.finding import find
from rag.sessions.parts import SessionParts
from rag.sessions.room import make_room
from rag.sessions.tables import OPEN, ChatSession, Turn
from rag.sessions.values import MAX_BATCH, MAX_TURNS, Appended, NewTurn
from rag.tokens import count_tokens
from rag.types import Speaker

Record = Callable[[Session, Appended], None]


def append(
    parts: SessionParts, scope: Speaker, session_id: str, turns: Sequence[NewTurn], record: Record | None = None
) -> Appended:
    """See `TenantSessions.append`. Tokens and digests are reckoned before anybody waits for the row."""
    if not 1 <= len(turns) <= MAX_BATCH:
        raise InvalidInput(f"A call appends 1 to {MAX_BATCH} turns.", field="turns", limit=MAX_BATCH)
    made = [_row(scope, session_id, turn) for turn in turns]
    _require_own_keys(made)
    with parts.database.write(scope) as session:
        now = parts.clock()
        chat = find(session, scope, session_id, now, lock=True)
        if chat.state != OPEN:
            raise Conflict(f"The session is {chat.state}: resume it first.", field="state", limit=chat.state)
        known = _known(session, session_id, made)
        new = [row for row in made if row.idempotency_key not in known]
        if new:
            _number(chat, new, now)
            session.execute(INSERT, [{name: getattr(row, name) for name in _COLUMNS} for row in new], execution_options=RAW)
            make_room(session, chat, new[-1])
        outcome = Appended(chat, [known.get(row.idempotency_key, row) for row in made], len(new))
        if record is not None:
            record(session, outcome)
    return outcome


def _row(scope: Speaker, session_id: str, turn: NewTurn) -> Turn:
    return Turn(
        id=new_id("trn"),
        tenant_id=scope.tenant_id,
        session_id=session_id,
        seq=0,
        role=turn.role,
        speaker=turn.speaker,
        content=turn.content,
        tool_calls=None if turn.tool_calls is None else [dict(call) for call in turn.tool_calls],
        data=dict(turn.metadata),
        files=list(turn.files),
        tokens=count_tokens(turn.content),
        said_at=turn.said_at or 0,
        created_at=0,
        content_hash=turn.digest(),
        idempotency_key=turn.idempotency_key,
    )


def _require_own_keys(rows: Sequence[Turn]) -> None:
    keys = [row.idempotency_key for row in rows if row.idempotency_key is not None]
    if len(set(keys)) < len(keys):
        raise InvalidInput("Two turns of the call have the same key.", field="idempotency_key")


def _known(session: Session, session_id: str, rows: Sequence[Turn]) -> Mapping[str | None, Turn]:
    """Turns that are there already, by key."""
    keys = {row.idempotency_key: row.content_hash for row in rows if row.idempotency_key is not None}
    if not keys:
        return {}
    found = session.scalars(_BY_KEYS, {"of": session_id, "keys": [*keys]}).all()
    for row in found:
        if row.content_hash != keys[row.idempotency_key or ""]:
            detail = f"The key {row.idempotency_key!r} stands for another turn of this session."
            raise IdempotencyKeyReused(detail, field="idempotency_key")
    return {row.idempotency_key: row for row in found}


def _number(chat: ChatSession, new: Sequence[Turn], now: int) -> None:
    for seq, row in enumerate(new, chat.turns + 1):
        row.seq, row.created_at, row.said_at = seq, now, row.said_at or now
    if chat.turns + len(new) > MAX_TURNS:
        raise Conflict(f"A session holds at most {MAX_TURNS} turns.", field="turns", limit=MAX_TURNS)
    chat.turns += len(new)
    chat.tokens += sum(row.tokens for row in new)
    chat.last_active_at = now
    chat.expires_at = chat.ends_at()


_BY_KEYS = select(Turn).where(
    col(Turn.session_id) == sa.bindparam("of"), col(Turn.idempotency_key).in_(sa.bindparam("keys", expanding=True))
)
INSERT, _COLUMNS = sa.insert(Turn), tuple(Turn.model_fields)
RAW = {"dml_strategy": "raw"}  # a third of the time of adding entities, which nobody changes afterwards
