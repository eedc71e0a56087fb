"""Sessions go with all of their turns in a transaction of whoever erases them."""

from __future__ import annotations

from collections.abc import Collection

import sqlalchemy as sa
from sqlalchemy.orm import Session
from sqlmodel import col, select

from rag.sessions.parts import SessionParts
from rag.sessions.tables import GONE, ChatSession, SessionTag, Turn
from rag.types import Speaker

_NO_SYNC = {"synchronize_session": False}


def erase(session: Session, parts: SessionParts, scope: Speaker, *, session_ids: Collection[str]) -> int:
    """Remove sessions, their tags and turns; return how many sessions. What companions keep is theirs to remove, before."""
    counted = select(col(ChatSession.id)).where(col(ChatSession.id).in_(session_ids), col(ChatSession.state).not_in(GONE))
    living = len(session.execute(counted.with_for_update()).all())
    for table in (Turn, SessionTag):
        of_them = sa.delete(table).where(col(table.session_id).in_(session_ids))
        session.execute(of_them, execution_options=_NO_SYNC)
    mine = sa.delete(ChatSession).where(col(ChatSession.id).in_(session_ids))
    removed: int = session.execute(mine, execution_options=_NO_SYNC).rowcount  # type: ignore[attr-defined]
    if living:
        parts.rules.count_sessions(session, scope.tenant_id, -living)
    return removed
