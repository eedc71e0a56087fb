"""What sessions work with: where they are kept, who counts them, who is told, and who keeps more of their turns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from sqlalchemy.orm import Session

from config.clock import Clock
from config.database import Database
from rag.sessions.tables import ChatSession, SessionTag, Turn


class SessionRules(Protocol):
    """How many sessions a tenant may have. `tenants.quotas.Quotas` satisfies it."""

    def count_sessions(self, session: Session, tenant_id: str, more: int) -> None:
        """Count them when the session commits, which then may raise QuotaExceeded."""


class Tell(Protocol):
    """Writes an event of a session's in the transaction of what happened. `tenants.events.emit` with a clock satisfies it."""

    def __call__(self, session: Session, tenant_id: str, event: str, subject: str, **data: object) -> None: ...


class Companion(Protocol):
    """Keeps something beside turns that goes where they go: their vectors, the documents attached to them."""

    def forked(self, session: Session, copies: Sequence[tuple[str, Turn]]) -> None:
        """Do the same in the fork's transaction: of each pair the first is the id of the turn that the second copies."""

    def clear(self, session: Session, session_id: str, limit: int) -> int:
        """Remove up to so many rows of a session that nobody reaches any more; return how many. Called until it is 0.

        The transaction is bound to the session's tenant.
        """


class _NoRules:
    def count_sessions(self, session: Session, tenant_id: str, more: int) -> None: ...


NO_RULES = _NoRules()


def untold(session: Session, tenant_id: str, event: str, subject: str, **data: object) -> None:
    """Where nobody listens."""


@dataclass(frozen=True)
class SessionParts:
    database: Database
    clock: Clock
    rules: SessionRules = NO_RULES
    tell: Tell = untold
    companions: Sequence[Companion] = ()

    def add(self, session: Session, row: ChatSession) -> None:
        """A new session, with what is to be known of it."""
        session.add(row)
        session.flush()
        session.add_all(SessionTag(tenant_id=row.tenant_id, session_id=row.id, tag=tag) for tag in row.tags)
        self.rules.count_sessions(session, row.tenant_id, 1)
        data = {} if row.forked_from is None else {"forked_from": row.forked_from}
        self.tell(session, row.tenant_id, "session.created", row.id, **data)
