"""A tenant's sessions as its principals reach them: made, found, listed, changed, ended, and what was said in them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session
from sqlmodel import col, select

from config.errors import Conflict, Forbidden, InvalidInput, NotFound
from config.ids import new_id
from rag.sessions import forking
from rag.sessions.appending import append
from rag.sessions.archives import restored
from rag.sessions.finding import alive, find
from rag.sessions.parts import SessionParts
from rag.sessions.tables import ARCHIVED, CLOSED, OPEN, ChatSession, SessionTag, Turn
from rag.sessions.values import Appended, NewSession, NewTurn
from rag.types import Speaker

#: What may be changed of a session, and what of it only by who acts for all subjects: its bounds are the application's.
OF_SUBJECT = frozenset({"title", "tags", "metadata"})
BOUNDS = frozenset(
    {"idle_ttl_s", "absolute_ttl_s", "max_turns", "max_tokens", "when_full", "budget_tokens", "budget_micro_usd"}
)
#: state that is wanted → states that lead to it
_LEADS = {OPEN: (CLOSED, ARCHIVED), CLOSED: (OPEN,), ARCHIVED: (OPEN, CLOSED)}
_EVENTS = {OPEN: "session.resumed", CLOSED: "session.closed", ARCHIVED: "session.archived"}

Record = Callable[[Session, ChatSession], None]


class Sessions(SessionParts):
    def for_tenant(self, scope: Speaker) -> TenantSessions:
        return TenantSessions(self, scope)


class TenantSessions:
    """Raises NotFound alike for sessions that are missing, foreign, another subject's, expired or erased.

    `record`, where it can be given, writes something of the outcome in the same transaction, last.
    """

    def __init__(self, parts: Sessions, scope: Speaker) -> None:
        self._parts, self._scope = parts, scope

    def create(self, new: NewSession, *, record: Record | None = None) -> ChatSession:
        """Raise Forbidden for another's subject, QuotaExceeded."""
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
            **{name: getattr(new, name) for name in BOUNDS},
        )
        row.expires_at = row.ends_at()
        with self._parts.database.write(self._scope) as session:
            self._parts.add(session, row)
            if record is not None:
                record(session, row)
        return row

    def find(self, session: Session, session_id: str, *, lock: bool = False) -> ChatSession:
        """In a transaction of the caller's; `lock`: nobody else changes it until that ends."""
        return find(session, self._scope, session_id, self._parts.clock(), lock=lock)

    def get(self, session_id: str) -> ChatSession:
        with self._parts.database.read(self._scope) as session:
            return self.find(session, session_id)

    def list(
        self,
        *,
        subject: str | None = None,
        tag: str | None = None,
        state: str | None = None,
        after: str | None = None,
        limit: int,
    ) -> list[ChatSession]:
        """The newest first; `after`: the id of the last one that is known. Raise Forbidden for another's subject."""
        subject = self._scope.speaking_for(subject)
        statement = select(ChatSession).where(*alive(self._parts.clock())).order_by(col(ChatSession.id).desc()).limit(limit)
        if subject is not None:
            statement = statement.where(col(ChatSession.subject) == subject)
        if state is not None:
            statement = statement.where(col(ChatSession.state) == state)
        if after is not None:
            statement = statement.where(col(ChatSession.id) < after)
        if tag is not None:
            tagged = sa.and_(col(SessionTag.session_id) == col(ChatSession.id), col(SessionTag.tag) == tag)
            statement = statement.join(SessionTag, tagged)
        with self._parts.database.read(self._scope) as session:
            return [*session.scalars(statement)]

    def update(self, session_id: str, changes: Mapping[str, Any]) -> ChatSession:
        """`changes` by the names of `NewSession`'s fields. Raise Forbidden where they are not the caller's to change."""
        if not changes or changes.keys() - OF_SUBJECT - BOUNDS:
            raise InvalidInput(f"Give some of {', '.join(sorted(OF_SUBJECT | BOUNDS))}.", field="title")
        with self._parts.database.write(self._scope) as session:
            row = self.find(session, session_id, lock=True)
            if self._scope.subject is not None and (named := sorted(changes.keys() & BOUNDS)):
                raise Forbidden("The bounds of a session are changed by keys that act for no subject.", field=named[0])
            row.sqlmodel_update({name: value for name, value in changes.items() if name in BOUNDS | {"title"}})
            if "metadata" in changes:
                row.data = dict(changes["metadata"])
            if "tags" in changes:
                _tag(session, row, changes["tags"])
            row.expires_at = row.ends_at()
        return row

    def close(self, session_id: str) -> ChatSession:
        """It takes no turns until it is resumed. One that is closed stays so. Raise Conflict for an archived one."""
        return self._become(CLOSED, session_id)

    def archive(self, session_id: str) -> ChatSession:
        """As closed, and its idle time does not run any more."""
        return self._become(ARCHIVED, session_id)

    def resume(self, session_id: str) -> ChatSession:
        """Its idle time begins anew."""
        return self._become(OPEN, session_id)

    def _become(self, state: str, session_id: str) -> ChatSession:
        with self._parts.database.write(self._scope) as session:
            row = self.find(session, session_id, lock=True)
            if row.state != state:
                if row.state not in _LEADS[state]:
                    raise Conflict(f"The session is {row.state}.", field="state", limit=row.state)
                row.state = state
                if state == OPEN:
                    row.last_active_at = self._parts.clock()
                row.expires_at = row.ends_at()
                self._parts.tell(session, row.tenant_id, _EVENTS[state], row.id)
        return row

    def fork(self, session_id: str, *, turn_id: str | None = None, record: Record | None = None) -> ChatSession:
        """A new session of the same subject that begins with the other's turns up to this one, or with all of them."""
        return forking.fork(self._parts, self._scope, session_id, turn_id, record)

    def append(
        self, session_id: str, turns: Sequence[NewTurn], *, record: Callable[[Session, Appended], None] | None = None
    ) -> Appended:
        """All of them or none, in one transaction. Raise Conflict for a session that is not open or is full, and
        IdempotencyKeyReused for a key that another turn of the session has; a turn that is there with its key stays as it is.
        """
        return append(self._parts, self._scope, session_id, turns, record)

    def turns(self, session_id: str, *, after: int | None = None, limit: int, newest_first: bool = False) -> Sequence[Turn]:
        """What follows the turn of this `seq` in that direction."""
        order = col(Turn.seq).desc() if newest_first else col(Turn.seq)
        statement = select(Turn).where(col(Turn.session_id) == session_id).order_by(order).limit(limit)
        if after is not None:
            statement = statement.where(col(Turn.seq) < after if newest_first else col(Turn.seq) > after)
        with self._parts.database.read(self._scope) as session:
            self.find(session, session_id)
            return restored(session, session.scalars(statement))

    def turn(self, session_id: str, turn_id: str) -> Turn:
        with self._parts.database.read(self._scope) as session:
            self.find(session, session_id)
            return turn_of(session, session_id, turn_id)


def turn_of(session: Session, session_id: str, turn_id: str) -> Turn:
    row = session.get(Turn, turn_id)
    if row is None or row.session_id != session_id:
        raise NotFound("There is no such turn.", field="turn_id")
    return restored(session, [row])[0]


def _tag(session: Session, row: ChatSession, tags: Sequence[str]) -> None:
    session.execute(
        sa.delete(SessionTag).where(col(SessionTag.session_id) == row.id), execution_options={"synchronize_session": False}
    )
    row.tags = sorted(set(tags))
    session.add_all(SessionTag(tenant_id=row.tenant_id, session_id=row.id, tag=tag) for tag in row.tags)
