"""Asking for a session or a subject to be erased: gone from every answer when that returns, and removed by a worker soon."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session
from sqlmodel import col, select

from config.clock import Clock
from config.database import Database
from config.errors import NotFound
from config.ids import new_id
from ingestion.erasing.reach import Whose, count, remove
from ingestion.erasing.vectors import CachedTexts
from ingestion.jobs.tables import Erasure
from rag.corpus import Chunk, Collection, Document, DocumentVersion
from rag.embedding.service import EmbeddingService
from rag.sessions.finding import find
from rag.sessions.tables import ERASED, GONE, ChatSession
from rag.traces.erasing import fence
from tenants.context import TenantContext
from tenants.events import emit
from tenants.idempotency import IdempotencyStore
from tenants.limits.quotas import UNLIMITED

SLICE_S = 2.0  # that a request works itself: nearly every subject is gone from all tables by then


@dataclass(frozen=True, slots=True)
class Erasures:
    database: Database
    clock: Clock
    idempotency: IdempotencyStore
    embedding: EmbeddingService
    forget: Callable[[str, Sequence[str]], None]  #: what this process holds of a tenant's sessions in memory

    def for_tenant(self, context: TenantContext) -> TenantErasures:
        return TenantErasures(self, context)


class TenantErasures:
    def __init__(self, parts: Erasures, context: TenantContext) -> None:
        self._parts, self._context = parts, context

    def of_session(self, session_id: str) -> Erasure:
        """Raise NotFound, also for a session that is being erased."""
        with self._parts.database.read(self._context) as session:
            find(session, self._context, session_id, self._parts.clock())
            before = self._count(session, Whose((session_id,)))
        with self._parts.database.write(self._context) as session:
            chat = find(session, self._context, session_id, self._parts.clock(), lock=True)
            ended = self._end(session, col(ChatSession.id) == chat.id)
            row = self._row("session", chat.subject, before, session_id)
            session.add(row)
            emit(session, self._parts.clock, row.tenant_id, "session.erased", chat.id, erasure_id=row.id)
        self._parts.forget(self._context.tenant_id, ended)
        return row

    def of_subject(self, subject: str) -> Erasure:
        """Whether there is anything of it is not told: the receipt says. Asked again while it runs, the same erasure.

        Raise Forbidden for another subject than the caller's own.
        """
        self._context.speaking_for(subject)
        with self._parts.database.read(self._context) as session:
            before = self._count(session, Whose(None, subject))
        with self._parts.database.write(self._context) as session:
            running = select(Erasure).where(col(Erasure.subject) == subject, col(Erasure.kind) == "subject")
            row = session.scalars(running).first() or self._row("subject", subject, before, None)
            ended = self._end(session, col(ChatSession.subject) == subject)
            fence(session, self._context.tenant_id, row.who, self._parts.clock())
            session.add(row)
        self._parts.forget(self._context.tenant_id, ended)
        CachedTexts(self._parts.database, self._parts.embedding, self._context).forget((), subject)
        # What no session stands for has no mark of being gone: its rows go now.
        remove(self._parts.database, self._context, Whose((), subject), until=time.monotonic() + SLICE_S)
        return row

    def get(self, erasure_id: str) -> Erasure:
        with self._parts.database.read(self._context) as session:
            row = session.get(Erasure, erasure_id)
        own = self._context.subject
        if row is None or (own is not None and row.who != self._context.pseudonym(own)):
            raise NotFound("There is no such erasure.")
        return row

    def _row(self, kind: str, subject: str, before: Mapping[str, int], session_id: str | None) -> Erasure:
        return Erasure(
            id=new_id("era"),
            tenant_id=self._context.tenant_id,
            kind=kind,
            session_id=session_id,
            subject=subject,
            who=self._context.pseudonym(subject),
            before=dict(before),
            requested_at=self._parts.clock(),
        )

    def _count(self, session: Session, whose: Whose) -> dict[str, int]:
        found = count(session, whose)
        found["kept_results"] = self._parts.idempotency.count(self._context.tenant_id, whose.results())
        return found | _outside(session, whose)

    def _end(self, session: Session, which: sa.ColumnElement[bool]) -> Sequence[str]:
        return end_sessions(session, self._context.tenant_id, which, self._parts.clock())


def end_sessions(session: Session, tenant_id: str, which: sa.ColumnElement[bool], now: int) -> Sequence[str]:
    """They are as if they were not there, from this transaction on; return their ids."""
    end = sa.update(ChatSession).where(which, col(ChatSession.state).not_in(GONE)).values(state=ERASED, expires_at=now)
    result = session.execute(end.returning(col(ChatSession.id)), execution_options={"synchronize_session": False})
    ended = result.scalars().all()
    UNLIMITED.count_sessions(session, tenant_id, -len(ended))
    return ended


def _outside(session: Session, whose: Whose) -> dict[str, int]:
    """What lies outside SQL: points of chunks, and files of contents and texts."""
    of = select(col(Collection.id)).where(col(Collection.session_id).in_(whose.ids))
    documents = select(col(Document.id)).where(col(Document.collection_id).in_(of))
    points = select(sa.func.count()).select_from(Chunk).where(col(Chunk.document_id).in_(documents), col(Chunk.indexed))
    names = [col(DocumentVersion.content_blob), col(DocumentVersion.text_blob)]
    versions = sa.select(*names).where(col(DocumentVersion.document_id).in_(documents))
    blobs = {name for row in session.execute(versions) for name in row if name}
    return {"points": session.scalar(points) or 0, "blobs": len(blobs)}
