"""What is done right before a transaction commits, after everything else in it: statements on rows that many wait for.

Whoever holds such a row waits for nobody any more but for the events' turn (`config.database.add_last`), which comes after.
So the order of locks is the same everywhere, and the row is held for the commit alone.
"""

from __future__ import annotations

from typing import Protocol, TypeVar

from sqlalchemy import event
from sqlalchemy.orm import Session

from config.database import TenantSession

_WORK = "carrel_at_commit"


class Work(Protocol):
    def __call__(self) -> None:
        """May ask for more work, and may raise: then nothing is committed."""


W = TypeVar("W", bound=Work)


def at_commit(session: Session, kind: type[W]) -> W:
    """The session's one work of this kind, made with the session when it is first asked for, and called once."""
    work: W = session.info.setdefault(_WORK, {}).setdefault(kind, None)
    if work is None:
        work = session.info[_WORK][kind] = kind(session)
    return work


@event.listens_for(TenantSession, "before_commit", insert=True)
def _work(session: Session) -> None:
    while waiting := session.info.get(_WORK):
        session.flush()
        waiting.pop(next(iter(waiting)))()


@event.listens_for(TenantSession, "after_rollback")
def _forget(session: Session) -> None:
    session.info.pop(_WORK, None)
