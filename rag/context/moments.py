"""A conversation at one moment: how far it had come, what was in its window, and what was pinned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import sqlalchemy as sa
from sqlalchemy.orm import Session
from sqlmodel import col, select

from rag.context.pins import pinned
from rag.sessions.archives import readable, restored
from rag.sessions.room import left_by
from rag.sessions.tables import ChatSession, Turn


@dataclass(frozen=True, slots=True)
class Moment:
    turns: int  #: the last
    archived: int  #: so many had left the window
    pins: tuple[int, ...] = ()  #: turns that were pinned, as far as they can be read
    damaged: bool = False  #: others cannot be


#: As it was at a moment that is known, by a time (Unix milliseconds), or as it stands.
When = Moment | int | None


def moment_of(session: Session, chat: ChatSession, when: When) -> tuple[Moment, Sequence[Turn]]:
    """With the turns that were pinned then and are still there. Of a time, those that are pinned and were by then. Raise
    ContentDamaged for a moment that is known.
    """
    if isinstance(when, Moment):
        turns = _turns(session, chat.id, when.pins)
        return replace(when, pins=tuple(turn.seq for turn in turns)), turns
    marked, last, archived = pinned(session, chat.id), chat.turns, chat.archived_turns
    if when is not None:
        last = session.scalar(_LAST, {"of": chat.id, "by": when}) or 0
        archived = left_by(session, chat, last)
        marked = [each for each in marked if each.pinned_at <= when]
    turns = readable(session, [each.turn for each in marked])
    pins, damaged = tuple(turn.seq for turn in turns), len(turns) < len(marked)
    return Moment(last, archived, pins, damaged), turns


def _turns(session: Session, session_id: str, seqs: Sequence[int]) -> Sequence[Turn]:
    if not seqs:
        return ()
    found = select(Turn).where(col(Turn.session_id) == session_id, col(Turn.seq).in_(seqs)).order_by(col(Turn.seq))
    return restored(session, session.scalars(found))


_LAST = sa.select(sa.func.max(col(Turn.seq))).where(
    col(Turn.session_id) == sa.bindparam("of"), col(Turn.created_at) <= sa.bindparam("by", type_=sa.BigInteger())
)
