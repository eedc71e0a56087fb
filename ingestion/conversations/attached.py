"""Documents that belong to a session: brought, found and deleted as others are, by whoever reaches it, and gone with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from sqlalchemy.orm import Session
from sqlmodel import col, select

from config.errors import Conflict, InvalidInput, NotFound
from ingestion.intake.documents import Documents, Submitted, TenantDocuments
from ingestion.intake.preconditions import ANYTHING, Precondition
from ingestion.intake.submission import Submission
from ingestion.jobs.rows import AT_ONCE, After
from rag.attached import attached_to, ensure_collection, name_of
from rag.collections import DEFAULT
from rag.corpus import Document
from rag.sessions.finding import find
from rag.sessions.tables import OPEN, ChatSession
from rag.store.base import Space
from tenants.context import TenantContext

MAX_FILES = 100  # that the turns of one call refer to


@dataclass(frozen=True, slots=True)
class AttachedDocuments:
    documents: Documents
    space: Space

    def for_tenant(self, context: TenantContext) -> TenantAttached:
        return TenantAttached(self, context)


class TenantAttached:
    """Raises NotFound alike for sessions that are missing, foreign, another subject's, or over."""

    def __init__(self, parts: AttachedDocuments, context: TenantContext) -> None:
        self._parts, self._context = parts, context
        self._database, self._clock = parts.documents.database, parts.documents.clock

    def submit(
        self,
        session_id: str,
        submission: Submission,
        *,
        expected: Precondition = ANYTHING,
        after: After = AT_ONCE,
        record: Callable[[Session, Submitted], None] | None = None,
    ) -> Submitted:
        """As `TenantDocuments.submit`. Counts as activity of the session, which must be open. Raise Conflict."""
        if submission.collection != DEFAULT:
            raise InvalidInput("What is attached to a session is in no collection: promote it.", field="collection")
        self._open(session_id)
        ensure_collection(self._database, self._clock, self._context, session_id, space=self._parts.space)

        def keep_open(session: Session, submitted: Submitted) -> None:
            chat = _opened(find(session, self._context, session_id, self._clock(), lock=True))
            chat.last_active_at = self._clock()
            chat.expires_at = chat.ends_at()
            session.add(chat)
            if record is not None:
                record(session, submitted)

        named = replace(submission, collection=name_of(session_id))
        return self._handle(session_id).submit(named, expected=expected, after=after, record=keep_open)

    def within(self, session_id: str) -> TenantDocuments:
        """The session's documents, for reading and deleting."""
        return self._parts.documents.for_tenant(self.reached(session_id))

    def reached(self, session_id: str) -> TenantContext:
        """The context that reaches what is attached to the session."""
        self._reach(session_id)
        return self._context.within(session_id)

    def require(self, session_id: str, ids: Sequence[str]) -> None:
        """Raise NotFound unless all of the documents are attached to the session."""
        if not ids:
            return
        if len(ids) > MAX_FILES:
            raise InvalidInput(f"The turns of a call refer to at most {MAX_FILES} documents.", field="files", limit=MAX_FILES)
        with self._database.read(self._context) as session:
            now = self._clock()
            of = [row.id for row in attached_to(session, self._context, session_id, space=self._parts.space, now=now)]
            living = select(col(Document.id)).where(col(Document.id).in_(ids), col(Document.deleted_at).is_(None))
            found = {*session.scalars(living.where(col(Document.collection_id).in_(of)))}
        if not found.issuperset(ids):
            raise NotFound("There is no such document in the session.", field="files")

    def _handle(self, session_id: str) -> TenantDocuments:
        return self._parts.documents.for_tenant(self._context.within(session_id))

    def _reach(self, session_id: str) -> ChatSession:
        with self._database.read(self._context) as session:
            return find(session, self._context, session_id, self._clock())

    def _open(self, session_id: str) -> None:
        _opened(self._reach(session_id))


def _opened(chat: ChatSession) -> ChatSession:
    if chat.state != OPEN:
        raise Conflict(f"The session is {chat.state}: resume it first.", field="state", limit=chat.state)
    return chat
