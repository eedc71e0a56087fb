"""The one way to a session: of the tenant, of the subject if the caller has one, and not over."""

from __future__ import annotations

from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.orm import Session
from sqlmodel import col, select

from config.errors import NotFound
from rag.sessions.tables import GONE, ChatSession, Turn
from rag.types import Speaker

Found = TypeVar("Found")
Shown = sa.Select[*tuple[Any, ...]]
Statement = TypeVar("Statement", bound=Shown)


def alive(now: int | sa.BindParameter[int]) -> tuple[sa.ColumnElement[bool], ...]:
    """Conditions on the session's row: nobody has ended it, and its time is not up."""
    return (
        col(ChatSession.state).not_in(GONE),
        sa.or_(col(ChatSession.expires_at).is_(None), col(ChatSession.expires_at) > now),
    )


def find(session: Session, scope: Speaker, session_id: str, now: int, *, lock: bool = False) -> ChatSession:
    """`lock`: nobody else changes it until the transaction ends. Raise NotFound."""
    return _given(session.scalars(_LOCKED if lock else _FOUND, _values(scope, session_id, now)).one_or_none())


def find_columns(session: Session, scope: Speaker, session_id: str, now: int, shown: Shown) -> sa.Row[*tuple[Any, ...]]:
    """As `find`, and no more of it than `shown`, which `reachable` made."""
    return _given(session.execute(shown, _values(scope, session_id, now)).one_or_none())


def _given(row: Found | None) -> Found:
    if row is None:
        raise NotFound("There is no such session.", field="session_id")
    return row


def _values(scope: Speaker, session_id: str, now: int) -> dict[str, Any]:
    return {"id": session_id, "now": now, "all": scope.subject is None, "subject": scope.subject or ""}


def reachable(statement: Statement) -> Statement:
    """Of that one session. Made once by each module: building it costs more than SQLite takes for it."""
    return statement.where(
        col(ChatSession.id) == sa.bindparam("id"),
        sa.or_(sa.bindparam("all", type_=sa.Boolean()), col(ChatSession.subject) == sa.bindparam("subject")),
        *alive(sa.bindparam("now", type_=sa.BigInteger())),
    )


#: Turns of a session behind one of them and through another, in their order. Whoever asks has found the session.
BEHIND = (
    select(Turn)
    .where(
        col(Turn.session_id) == sa.bindparam("of"),
        col(Turn.seq) > sa.bindparam("after"),
        col(Turn.seq) <= sa.bindparam("through"),
    )
    .order_by(col(Turn.seq))
)
_FOUND = reachable(select(ChatSession))
_LOCKED = _FOUND.with_for_update().execution_options(populate_existing=True)
