"""Keeps a session within the length that it was given: refuses turns, or lets the oldest leave the window. Of a former moment
it says how far they had left.

The window is what is recalled and packed: the turns behind `archived_turns`. Turns before it stay as they are, to be listed
and replayed; whoever makes them shorter begins there.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.orm import Session
from sqlmodel import col, select

from config.errors import Conflict
from rag.sessions.tables import ChatSession, Turn

PAGE = 200


def make_room(session: Session, chat: ChatSession, newest: Turn) -> None:
    """The session's row counts the new turns already. Raise Conflict where they, or the newest alone, do not fit."""
    if not (exceeded := _exceeded(chat)):
        return
    if chat.when_full == "refuse" or _over(chat, 1, newest.tokens):
        limit = getattr(chat, exceeded)
        raise Conflict(f"The session is full: its `{exceeded}` is {limit}.", field=exceeded, limit=limit)
    while _exceeded(chat):
        page = session.execute(_OLDEST, {"of": chat.id, "after": chat.archived_turns, "before": newest.seq}).all()
        for seq, tokens in page:
            chat.archived_turns, chat.archived_tokens = seq, chat.archived_tokens + tokens
            if not _exceeded(chat):
                break
        if not page:  # the row's counts were not those of its turns: all but the newest have left
            chat.archived_turns, chat.archived_tokens = newest.seq - 1, chat.tokens - newest.tokens


def left_by(session: Session, chat: ChatSession, last: int) -> int:
    """How many turns had left the window when turn `last` was the newest: by the bounds that the session has now, and none
    that is in its window now.
    """
    before, tokens = last + 1 if chat.archived_turns else 0, 0
    while page := session.execute(_NEWEST, {"of": chat.id, "before": before}).all():
        for seq, more in page:
            tokens += more
            if seq <= chat.archived_turns and _over(chat, last - seq + 1, tokens):
                return seq
        before = page[-1].seq
    return 0


def _exceeded(chat: ChatSession) -> str | None:
    """The name of a bound that the window breaks."""
    return _over(chat, chat.turns - chat.archived_turns, chat.tokens - chat.archived_tokens)


def _over(chat: ChatSession, turns: int, tokens: int) -> str | None:
    if chat.max_turns is not None and turns > chat.max_turns:
        return "max_turns"
    return "max_tokens" if chat.max_tokens is not None and tokens > chat.max_tokens else None


_OF, _BEFORE = col(Turn.session_id) == sa.bindparam("of"), col(Turn.seq) < sa.bindparam("before")
_COUNTED = select(col(Turn.seq), col(Turn.tokens)).where(_OF, _BEFORE).limit(PAGE)
_OLDEST = _COUNTED.where(col(Turn.seq) > sa.bindparam("after")).order_by(col(Turn.seq))
_NEWEST = _COUNTED.order_by(col(Turn.seq).desc())
