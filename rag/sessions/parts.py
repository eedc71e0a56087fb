"""What sessions work with: where they are kept, who counts them, and who is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from sqlalchemy.orm import Session

from config.clock import Clock
from config.database import Database
from rag.sessions.tables import ChatSession, SessionTag


class SessionRules(Protocol):
    """How many sessions a tenant may have. `tenants.limits.quotas.Quotas` satisfies it."""

    def count_sessions(self, session: Session, tenant_id: str, more: int) -> None:
        """Count them when the session commits, which then may raise QuotaExceeded."""


class Tell(Protocol):
    """Writes an event of a session's in the transaction of what happened. `tenants.events.emit` with a clock satisfies it."""

    def __call__(self, session: Session, tenant_id: str, event: str, subject: str, **data: object) -> None: ...


class Follow(Protocol):
    """What else a fork has of a session, written in its transaction. `rag.context.pins.follow` satisfies it."""

    def __call__(self, session: Session, source_id: str, fork: ChatSession) -> None: ...


class _NoRules:
    def count_sessions(self, session: Session, tenant_id: str, more: int) -> None: ...


NO_RULES = _NoRules()


def untold(session: Session, tenant_id: str, event: str, subject: str, **data: object) -> None:
    """Where nobody listens."""


def alone(session: Session, source_id: str, fork: ChatSession) -> None:
    """Where turns are all that a session has."""


@dataclass(frozen=True)
class SessionParts:
    database: Database
    clock: Clock
    rules: SessionRules = NO_RULES
    tell: Tell = untold
    follow: Follow = alone

    def add(self, session: Session, row: ChatSession) -> None:
        """A new session, with what is to be known of it."""
        session.add(row)
        session.flush()
        session.add_all(SessionTag(tenant_id=row.tenant_id, session_id=row.id, tag=tag) for tag in row.tags)
        self.rules.count_sessions(session, row.tenant_id, 1)
        data = {} if row.forked_from is None else {"forked_from": row.forked_from}
        self.tell(session, row.tenant_id, "session.created", row.id, **data)
