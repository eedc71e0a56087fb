"""A tenant's sessions as its principals reach them: made, found, listed, changed, ended, and what was said in them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from sqlalchemy.orm import Session
from sqlmodel import col, select

from config.clock import Clock
from config.database import Database
from config.errors import InvalidInput, NotFound
from config.ids import new_id
from rag.sessions.appending import append
from rag.sessions.finding import find
from rag.sessions.tables import ChatSession, SessionTag, Turn
from rag.sessions.values import Appended, NewSession, NewTurn
from rag.types import Speaker

DIRECTIONS = ("oldest", "newest")


class SessionRules(Protocol):
    """How many sessions a tenant may have. `tenants.quotas.Quotas` satisfies it."""

    def count_sessions(self, session: Session, tenant_id: str, more: int) -> None:
        """Count them when the session commits, which then may raise QuotaExceeded."""


class Tell(Protocol):
    """Writes an event of a session's in the transaction of what happened. `tenants.events.emit` with a clock satisfies it."""

    def __call__(self, session: Session, tenant_id: str, event: str, subject: str, **data: object) -> None: ...


class _NoRules:
    def count_sessions(self, session: Session, tenant_id: str, more: int) -> None: ...


NO_RULES = _NoRules()


def untold(session: Session, tenant_id: str, event: str, subject: str, **data: object) -> None:
    """Where nobody listens."""


@dataclass(frozen=True, slots=True)
class Sessions:
    database: Database
    clock: Clock
    rules: SessionRules = NO_RULES
    tell: Tell = untold

    def for_tenant(self, scope: Speaker) -> TenantSessions:
        return TenantSessions(self, scope)


class TenantSessions:
    """Raises NotFound alike for sessions that are missing, foreign, another subject's, expired or erased."""

    def __init__(self, parts: Sessions, scope: Speaker) -> None:
        self._parts, self._scope = parts, scope

    def create(self, new: NewSession, *, record: Callable[[Session, ChatSession], None] | None = None) -> ChatSession:
        """`record` writes something of the new session in its transaction, last. Raise Forbidden, QuotaExceeded."""
        subject = self._scope.speaking_for(new.subject)
        if subject is None:
            raise InvalidInput("Name the subject: the end user whose session it is.", field="subject")
        now = self._parts.clock()
        row = ChatSession(
            id=new_id("ses"),
            tenant_id=self._scope.tenant_id,
            subject=subject,
            title=new.title,
            tags=sorted(set(new.tags)),
            data=dict(new.metadata),
            created_at=now,
            last_active_at=now,
            idle_ttl_s=new.idle_ttl_s,
            absolute_ttl_s=new.absolute_ttl_s,
            max_turns=new.max_turns,
            max_tokens=new.max_tokens,
            when_full=new.when_full,
            budget_tokens=new.budget_tokens,
            budget_micro_usd=new.budget_micro_usd,
        )
        row.expires_at = row.ends_at()
        with self._parts.database.write(self._scope) as session:
            session.add(row)
            session.flush()
            session.add_all(SessionTag(tenant_id=row.tenant_id, session_id=row.id, tag=tag) for tag in row.tags)
            self._parts.rules.count_sessions(session, row.tenant_id, 1)
            self._parts.tell(session, row.tenant_id, "session.created", row.id)
            if record is not None:
                record(session, row)
        return row

    def find(self, session: Session, session_id: str, *, lock: bool = False) -> ChatSession:
        """In a transaction of the caller's; `lock`: nobody else changes it until that ends."""
        return find(session, self._scope, session_id, self._parts.clock(), lock=lock)

    def get(self, session_id: str) -> ChatSession:
        with self._parts.database.read(self._scope) as session:
            return self.find(session, session_id)

    def append(
        self,
        session_id: str,
        turns: Sequence[NewTurn],
        *,
        record: Callable[[Session, Appended], None] | None = None,
    ) -> Appended:
        """All of them or none, in one transaction. Raise Conflict for a session that is not open or is full, and
        IdempotencyKeyReused for a key that another turn of the session has; a turn that is there with its key stays as it is.
        """
        return append(self._parts.database, self._parts.clock, self._scope, session_id, turns, record)

    def turns(self, session_id: str, *, after: int | None = None, limit: int, newest_first: bool = False) -> list[Turn]:
        """What follows the turn of this `seq` in that direction."""
        order = col(Turn.seq).desc() if newest_first else col(Turn.seq)
        statement = select(Turn).where(col(Turn.session_id) == session_id).order_by(order).limit(limit)
        if after is not None:
            statement = statement.where(col(Turn.seq) < after if newest_first else col(Turn.seq) > after)
        with self._parts.database.read(self._scope) as session:
            self.find(session, session_id)
            return [*session.scalars(statement)]

    def turn(self, session_id: str, turn_id: str) -> Turn:
        statement = select(Turn).where(col(Turn.id) == turn_id, col(Turn.session_id) == session_id)
        with self._parts.database.read(self._scope) as session:
            self.find(session, session_id)
            row: Any = session.scalars(statement).one_or_none()
        if row is None:
            raise NotFound("There is no such turn.", field="turn_id")
        found: Turn = row
        return found
