"""Brings the index of a session up to date from SQL: the turns and the vectors that came since, as a rule one small read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.orm import Session
from sqlmodel import col

from config.database import ROWS_BY_KEY
from rag.recall.resident import Held, Residents
from rag.recall.tables import TurnVector
from rag.recall.turns import item_of, unpacked
from rag.sessions.tables import Turn
from rag.sessions.values import ROLES

PAGE = 1000  # rows in memory at a time
#: Of one recall: 60 MB of index, and half a second to a second when it is not in memory. Older turns are not recalled.
MAX_TURNS = 20_000
SPARE = 2_000  #: turns that an index may hold although they are not recalled any more, before it is made anew


class Known(NamedTuple):
    """What the session's row says of its turns."""

    id: str
    turns: int
    archived_turns: int
    embedded_turns: int


class Indexed(NamedTuple):
    """How much of a session a recall looked at: enough to look at as much again."""

    id: str
    before: int  #: turns before the first of the index
    turns: int  #: the last
    embedded_turns: int
    archived_turns: int


_TURNS = (
    sa.select(col(Turn.id), col(Turn.seq), col(Turn.role), col(Turn.speaker), col(Turn.content), col(Turn.said_at))
    .where(
        col(Turn.session_id) == sa.bindparam("of"),
        col(Turn.seq) > sa.bindparam("after"),
        col(Turn.seq) <= sa.bindparam("through"),
    )
    .order_by(col(Turn.seq))
    .limit(PAGE)
    .execution_options(**ROWS_BY_KEY)
)  # fmt: skip
_VECTORS = (
    sa.select(col(TurnVector.turn_id), col(TurnVector.seq), col(TurnVector.vector))
    .where(
        col(TurnVector.session_id) == sa.bindparam("of"),
        col(TurnVector.space) == sa.bindparam("space"),
        col(TurnVector.seq) > sa.bindparam("after"),
        col(TurnVector.seq) <= sa.bindparam("through"),
    )
    .order_by(col(TurnVector.seq))
    .limit(PAGE)
    .execution_options(**ROWS_BY_KEY)
)


#: Reads turns `of` a session behind `after`, the first of them, as far as `through`; they have the columns of `_TURNS`.
Read = Callable[[Session, Mapping[str, object]], Sequence[Any]]


def in_window(session: Session, given: Mapping[str, object]) -> Sequence[Any]:
    """Turns that have left it may lie elsewhere."""
    return session.execute(_TURNS, given).all()


def brought_up(
    residents: Residents, session: Session, tenant_id: str, known: Known, space: str, read: Read = in_window
) -> Held:
    """The index of the session with its newest MAX_TURNS turns, as SQL has them."""
    key = (tenant_id, known.id)
    held, oldest = residents.get(key), max(known.archived_turns, known.turns - MAX_TURNS)
    left = oldest - held.before > SPARE or known.archived_turns > held.seq
    if held.seq < known.turns or held.embedded < known.embedded_turns or left:
        if left:  # much of it is not recalled any more, or it is new: of compacted turns there is nothing to load
            held = residents.renew(key, oldest)
        with held.lock:
            _add_turns(held, session, known, read)
            _add_vectors(held, session, known, space)
        residents.weigh([key])
    return held


def _add_turns(held: Held, session: Session, known: Known, read: Read) -> None:
    while held.seq < known.turns:
        rows = read(session, {"of": known.id, "after": held.seq, "through": known.turns})
        if not rows:  # the session is being erased
            return
        held.thread.extend(item_of(row.id, row.role, row.speaker, row.content, row.said_at) for row in rows)
        for row in rows:
            held.roles.append(ROLES.index(row.role))
        held.seq = rows[-1].seq


def _add_vectors(held: Held, session: Session, known: Known, space: str) -> None:
    until = min(known.embedded_turns, held.seq)
    while held.embedded < until:
        given = {"of": known.id, "after": held.embedded, "through": until, "space": space}
        rows = session.execute(_VECTORS, given).all()
        held.thread.give_all((row.turn_id, unpacked(row.vector)) for row in rows)
        if not rows and held.embedded == held.before:  # those that are there are of another model: ours will come
            return
        held.embedded = rows[-1].seq if len(rows) == PAGE else until
