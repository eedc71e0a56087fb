"""Removes sessions that are over, whether their time was up or somebody erased them, and finishes what was asked to be erased.

    documents and what they have outside SQL → every row, children first → the session itself → the receipt

How far it is follows from what is still there. So it may die at any instant, and be done by two at once. What is over is in
no answer all the while.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

import sqlalchemy as sa
from sqlalchemy.orm import Session
from sqlmodel import col, select

from config.clock import Clock
from config.database import Database
from ingestion.blobs import BlobStore
from ingestion.counting import follow
from ingestion.erasing.reach import Whose, count, remove
from ingestion.erasing.requests import end_sessions
from ingestion.erasing.vectors import CachedTexts
from ingestion.jobs.tables import Erasure, Job
from ingestion.removal.collector import Collector
from rag.corpus import Collection, Document, DocumentVersion, SpaceRow
from rag.embedding.service import EmbeddingService
from rag.sessions.tables import IS_GONE, ChatSession
from rag.store.base import Space, VectorStore
from tenants.context import TenantContext
from tenants.events import emit
from tenants.idempotency import IdempotencyStore
from tenants.registry import TenantRegistry

log = logging.getLogger(__name__)

PAGE = 100  # sessions, documents, erasures
SLICE_S = 3.0  # of one call: others are looked after in between
#: Requests that were let in before a session was over end in this time, or find nothing to write to.
GRACE_MS = 5_000


class Erasing:
    def __init__(
        self,
        database: Database,
        clock: Clock,
        registry: TenantRegistry,
        idempotency: IdempotencyStore,
        blobs: BlobStore,
        store: VectorStore,
        collector: Collector,
        embedding: EmbeddingService,
        *,
        grace_ms: int = GRACE_MS,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._database, self._clock, self._registry, self._idempotency = database, clock, registry, idempotency
        self._blobs, self._store, self._collector, self._grace_ms = blobs, store, collector, grace_ms
        self._embedding, self._pause = embedding, pause

    def run_once(self) -> None:
        """Go on for SLICE_S, or for as long as a hundred sessions take."""
        until = time.monotonic() + SLICE_S
        removed = self._remove_gone(until)
        finished = [self._finish(erasure, until) for erasure in self._running()]
        if any(finished) or (removed and time.monotonic() < until):  # else there is more to come
            self._database.checkpoint()

    def _remove_gone(self, until: float) -> int:
        removed, after = 0, (-1, "")
        while (page := self._gone(after)) and time.monotonic() < until:
            for tenant_id in dict.fromkeys(row.tenant_id for row in page):
                ids = [row.id for row in page if row.tenant_id == tenant_id]
                removed += self._remove(self._registry.context_of_job(tenant_id, "erasing"), ids, until)
            after = page[-1].expires_at or 0, page[-1].id
        return removed

    def _gone(self, after: tuple[int, str]) -> Sequence[sa.Row[str, str, int | None]]:
        """Those that ended first come first."""
        place = col(ChatSession.expires_at), col(ChatSession.id)
        rows = sa.select(col(ChatSession.id), col(ChatSession.tenant_id), col(ChatSession.expires_at)).where(
            IS_GONE, place[0] <= self._clock() - self._grace_ms, sa.tuple_(*place) > sa.tuple_(*map(sa.literal, after))
        )
        with self._database.system_read() as session:
            return session.execute(rows.order_by(*place).limit(PAGE)).all()

    def _remove(self, context: TenantContext, ids: Sequence[str], until: float) -> int:
        """Of those that nothing outside SQL is left of; return how many."""
        held = self._still_held(context, ids, until)
        free = [session_id for session_id in ids if session_id not in held]
        if not free:
            return 0
        self._forget_results(context, Whose(free))
        CachedTexts(self._database, self._embedding, context, self._pause).forget(free)
        # Time of its own: a session whose texts take longer than a slice would never begin to go.
        own = max(until, time.monotonic() + SLICE_S)
        return len(free) if remove(self._database, context, Whose(free), until=own, pause=self._pause) else 0

    def _forget_results(self, context: TenantContext, whose: Whose) -> None:
        while self._idempotency.forget(context.tenant_id, whose.results()):
            pass

    def _still_held(self, context: TenantContext, ids: Sequence[str], until: float) -> set[str]:
        """Sessions of which a document is left, or a job that may yet write something."""
        with self._database.read(context) as session:
            found = session.scalars(select(Collection).where(col(Collection.session_id).in_(ids))).all()
            spaces = {row.id: Space(row.id, row.dimensions) for row in session.scalars(select(SpaceRow))}
            held = _copied_from(session, ids)
        for collection in found:
            for document in self._documents(context, collection.id):
                if time.monotonic() < until:
                    self._collect(context, collection, document, spaces[collection.space_id])
            if time.monotonic() > until or self._has_work(context, collection.id):
                held.add(str(collection.session_id))
        return held

    def _documents(self, context: TenantContext, collection_id: str) -> Sequence[Document]:
        """A page of them, live no more: no job makes one so from here on, and each finds its document gone."""
        page = select(Document).where(col(Document.collection_id) == collection_id).order_by(col(Document.id)).limit(PAGE)
        with self._database.write(context) as session:
            documents = session.scalars(page.with_for_update()).all()
            for document in documents:
                if document.deleted_at is None:
                    document.deleted_at, document.live_version_id = self._clock(), None
                    session.add(document)
                    follow(session, document)
        return documents

    def _collect(self, context: TenantContext, collection: Collection, document: Document, space: Space) -> None:
        versions = select(DocumentVersion).where(col(DocumentVersion.document_id) == document.id)
        with self._database.read(context) as session:
            found = session.scalars(versions).all()
            if _copied_from(session, [version.id for version in found]):
                return
        self._collector.collect(context, collection.id, document.id, None)
        names = {name for version in found for name in (version.content_blob, version.text_blob) if name}
        left = {
            "points": len(self._store.for_tenant(context, space).ids(document.id)),
            "blobs": sum(self._blobs.path(name).exists() for name in names),
        }
        if any(left.values()):
            self._note_left(context, str(collection.session_id), left)

    def _note_left(self, context: TenantContext, session_id: str, left: dict[str, int]) -> None:
        """What is there although its rows are gone: nothing that is looked at in the end could name it."""
        log.error("something of an erased document is left", extra={"session": session_id, "left": left})
        of = select(col(ChatSession.subject)).where(col(ChatSession.id) == session_id).scalar_subquery()
        named = sa.or_(col(Erasure.session_id) == session_id, col(Erasure.subject) == of)
        with self._database.write(context) as session:
            for row in session.scalars(select(Erasure).where(named, col(Erasure.state) == "running").with_for_update()):
                row.after = {name: row.after.get(name, 0) + many for name, many in left.items()}
                session.add(row)

    def _has_work(self, context: TenantContext, collection_id: str) -> bool:
        left = select(col(Document.id)).where(col(Document.collection_id) == collection_id).limit(1)
        jobs = select(col(Job.id)).where(col(Job.collection_id) == collection_id, col(Job.finished_at).is_(None)).limit(1)
        with self._database.read(context) as session:
            return session.scalar(left) is not None or session.scalar(jobs) is not None

    def _running(self) -> Sequence[Erasure]:
        running = select(Erasure).where(
            col(Erasure.state) == "running", col(Erasure.requested_at) <= self._clock() - self._grace_ms
        )
        with self._database.system_read() as session:
            return session.scalars(running.order_by(col(Erasure.id)).limit(PAGE)).all()

    def _finish(self, erasure: Erasure, until: float) -> bool:
        """Unless something is left, or came in between: then the next call goes on."""
        context, subject = self._registry.context_of_job(erasure.tenant_id, erasure.id), erasure.subject
        whose = Whose((str(erasure.session_id),)) if erasure.kind == "session" else Whose(None, subject)
        if erasure.kind == "subject" and subject is not None:
            with self._database.write(context) as session:
                end_sessions(session, context.tenant_id, col(ChatSession.subject) == subject, self._clock())
            CachedTexts(self._database, self._embedding, context, self._pause).forget((), subject)
            if not remove(self._database, context, Whose((), subject), until=until, pause=self._pause):
                return False
            self._forget_results(context, Whose((), subject))
        with self._database.read(context) as session:
            found = count(session, whose)
        found["kept_results"] = self._idempotency.count(context.tenant_id, whose.results())
        if any(found.values()) or not self._database.checkpoint():
            return False
        with self._database.write(context) as session:
            row = session.get_one(Erasure, erasure.id, with_for_update=True)
            row.after = {**found, "points": 0, "blobs": 0, **row.after}
            row.state, row.subject, row.finished_at = "done", None, self._clock()
            session.add(row)
            emit(session, self._clock, row.tenant_id, "erasure.done", row.id, kind=row.kind)
        return True


def _copied_from(session: Session, ids: Sequence[str]) -> set[str]:
    """Those of these versions, or sessions, whose vectors something that was promoted of them still needs."""
    waiting = col(DocumentVersion.copied_from).in_(ids), col(DocumentVersion.state) == "queued"
    return {str(name) for name in session.scalars(select(col(DocumentVersion.copied_from)).where(*waiting).distinct())}
