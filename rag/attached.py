"""The collection that holds what is attached to a session, so that taking in, isolation and quotas hold for it as for others.

No name leads to it, and no list shows it: it is reached through its session alone, by whoever reaches that.
"""

from __future__ import annotations

from contextlib import suppress

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session
from sqlmodel import col, select

from config.clock import Clock
from config.database import Database
from config.errors import SpaceMismatch
from config.ids import new_id
from rag.corpus import Collection
from rag.sessions.finding import find
from rag.store.base import Space
from rag.types import Speaker

PREFIX = "session:"  #: no name that users give has a colon
_NAMED = select(Collection).where(
    col(Collection.name) == sa.bindparam("name"), col(Collection.session_id) == sa.bindparam("of")
)


def name_of(session_id: str) -> str:
    return PREFIX + session_id


def session_of(collection: str) -> str | None:
    """Whose documents those of a collection of this name are."""
    return collection.removeprefix(PREFIX) if collection.startswith(PREFIX) else None


def attached_to(session: Session, scope: Speaker, session_id: str, *, space: Space, now: int) -> list[Collection]:
    """The collection of a session, if anything was attached to it. Raise NotFound for a session out of reach."""
    find(session, scope, session_id, now)
    found = [*session.scalars(_NAMED, {"name": name_of(session_id), "of": session_id})]
    if any(row.space_id != space.id for row in found):
        raise SpaceMismatch("What is attached to the session was embedded by another model or at another precision.")
    return found


def ensure_collection(database: Database, clock: Clock, scope: Speaker, session_id: str, *, space: Space) -> None:
    """Make it with the first document. Counted among nobody's collections; its documents are counted as all are."""
    with database.read(scope) as session:
        if attached_to(session, scope, session_id, space=space, now=clock()):
            return
    row = Collection(
        id=new_id("col"),
        tenant_id=scope.tenant_id,
        name=name_of(session_id),
        session_id=session_id,
        space_id=space.id,
        created_at=clock(),
    )
    with suppress(IntegrityError), database.write(scope) as session:  # another document is the first at the same moment
        find(session, scope, session_id, clock(), lock=True)
        session.add(row)
