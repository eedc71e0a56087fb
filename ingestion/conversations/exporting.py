"""A session as lines of JSON, one after the other as they are read: whatever its size, a page of it is in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from sqlmodel import SQLModel, col, select

from config.clock import isoformat
from config.errors import NotFound
from ingestion.conversations.attached import AttachedDocuments
from ingestion.intake.catalogue import Shown
from rag.sessions.archives import restored
from rag.sessions.finding import alive, find
from rag.sessions.tables import ChatSession, Turn
from tenants.context import TenantContext

PAGE = 200  # turns, documents, sessions
TEXT_CHARS = 100_000  # of a text in one line
_OF_VERSION = ("title", "source", "url", "media_type", "attributes", "labels", "bytes", "chars", "pages", "state")
_INTERNAL = {"tenant_id", "content_hash", "compacted_turns"}

Line = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Exports:
    attached: AttachedDocuments

    def for_tenant(self, context: TenantContext) -> TenantExports:
        return TenantExports(self.attached, context)


class TenantExports:
    def __init__(self, attached: AttachedDocuments, context: TenantContext) -> None:
        self._attached, self._context = attached, context
        self._database, self._clock = attached.documents.database, attached.documents.clock

    def of_session(self, session_id: str) -> Iterator[Line]:
        """Its own line, its turns, its documents with their texts, and at last how many there were: without that line the
        export was cut off. Raise NotFound before the first line.
        """
        return self._lines(self._find(session_id))

    def of_subject(self, subject: str) -> Iterator[Line]:
        """The same of every session of the subject, oldest first, and how many have their end. Raise Forbidden before the
        first line."""
        self._context.speaking_for(subject)
        return self._sessions(subject)

    def _sessions(self, subject: str) -> Iterator[Line]:
        after, count = "", 0
        while True:
            living = select(ChatSession).where(col(ChatSession.subject) == subject, *alive(self._clock()))
            page = living.where(col(ChatSession.id) > after).order_by(col(ChatSession.id)).limit(PAGE)
            with self._database.read(self._context) as session:
                chats = session.scalars(page).all()
            for chat in chats:
                with suppress(NotFound):  # one that is over by now is told no further; the others are
                    yield from self._lines(self._find(chat.id))
                    count += 1
            if len(chats) < PAGE:
                break
            after = chats[-1].id
        yield {"type": "subject_end", "subject": subject, "sessions": count}

    def _lines(self, chat: ChatSession) -> Iterator[Line]:
        yield {"type": "session", **_plain(chat)}
        turns = 0
        for line in self._turns(chat.id):
            turns += 1
            yield line
        documents = 0
        for shown in self._documents(chat.id):
            documents += 1
            yield _described(shown)
            yield from self._text(chat.id, shown)
        yield {"type": "session_end", "id": chat.id, "turns": turns, "documents": documents}

    def _turns(self, session_id: str) -> Iterator[Line]:
        after = 0
        while True:
            page = select(Turn).where(col(Turn.session_id) == session_id, col(Turn.seq) > after).order_by(col(Turn.seq))
            with self._database.read(self._context) as session:
                find(session, self._context, session_id, self._clock())  # one that is over by now is told no further
                rows = restored(session, session.scalars(page.limit(PAGE)))
            yield from ({"type": "turn", **_plain(row)} for row in rows)
            if len(rows) < PAGE:
                return
            after = rows[-1].seq

    def _documents(self, session_id: str) -> Iterator[Shown]:
        after: str | None = None
        while True:
            handle = self._attached.for_tenant(self._context).within(session_id)
            page, after = handle.list(collection=None, after=after, limit=PAGE)
            yield from page
            if after is None:
                return

    def _text(self, session_id: str, shown: Shown) -> Iterator[Line]:
        """In parts, each with the place of its first character; none while there is no text yet."""
        handle = self._attached.for_tenant(self._context).within(session_id)
        try:
            text = handle.text(shown.document.id)[1]
        except NotFound:
            return
        for start in range(0, len(text), TEXT_CHARS):
            part = text[start : start + TEXT_CHARS]
            yield {"type": "document_text", "id": shown.document.id, "start": start, "text": part}

    def _find(self, session_id: str) -> ChatSession:
        with self._database.read(self._context) as session:
            return find(session, self._context, session_id, self._clock())


def _described(shown: Shown) -> Line:
    version = {name: getattr(shown.version, name) for name in _OF_VERSION}
    document = {"id": shown.document.id, "external_id": shown.document.external_id, "version": shown.version.number}
    return {"type": "document", **document, **version, "created_at": isoformat(shown.document.created_at)}


def _plain(row: SQLModel) -> Line:
    """As it is on the wire: times as ISO 8601, and the application's own data by its name there."""
    fields: Mapping[str, Any] = row.model_dump(exclude=_INTERNAL)
    named = {("metadata" if name == "data" else name): value for name, value in fields.items()}
    moments = {name: isoformat(value) for name, value in named.items() if name.endswith("_at") and isinstance(value, int)}
    return {**named, **moments}
