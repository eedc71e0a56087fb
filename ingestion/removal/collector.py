"""Removes points, chunks and blobs that nothing uses any more, without ever removing one that a newer version took up.

A chunk row is what a new version looks at to know whether its point exists. So a point is deleted only inside a transaction
that holds its row, and only if the row was marked as not indexed in an earlier one: whatever instant this dies at, a row
that says `indexed` has its point.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session
from sqlmodel import col, select
from sqlmodel.sql.expression import SelectOfScalar

from config.clock import Clock
from config.database import Database
from ingestion.blobs import BlobStore
from ingestion.intake import duplicates
from ingestion.jobs.rows import JobQueue
from ingestion.jobs.tables import Job
from rag.corpus import Chunk, Collection, Document, DocumentVersion, FormerText, SpaceRow, VersionChunk
from rag.embedding.service import EmbeddingService
from rag.evaluation.tables import Feedback
from rag.splitting.chunking import embedded_text
from rag.store.base import Space, TenantVectors, VectorStore
from tenants.context import TenantContext

PAGE = 500
LINKED_PAGE = 50  # documents that were linked to one that is gone, in one look
DAY_MS = 24 * 3600 * 1000


class Collector:
    """`keep_failed_days`: how long the content of a failed or cancelled version is kept, so that its job can be retried."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        blobs: BlobStore,
        store: VectorStore,
        embedding: EmbeddingService,
        queue: JobQueue,
        *,
        keep_failed_days: float,
    ) -> None:
        self._database, self._clock, self._blobs, self._store = database, clock, blobs, store
        self._embedding, self._queue = embedding, queue
        self._keep_ms = int(keep_failed_days * DAY_MS)

    def kept(self) -> sa.ColumnElement[bool]:
        """Of a version joined with its document: it was live, and its collection's questions may still reach back to it."""
        days = sa.select(col(Collection.keep_versions_days)).where(col(Collection.id) == col(Document.collection_id))
        kept_ms = sa.cast(days.correlate(Document).scalar_subquery(), sa.BigInteger) * DAY_MS
        until = col(DocumentVersion.live_until)
        return sa.and_(col(DocumentVersion.state) == "superseded", until.is_not(None), until + kept_ms > self._clock())

    def given_up(self) -> sa.ColumnElement[bool]:
        """Of a version joined with its document: nobody will ask for its content any more."""
        ended = col(DocumentVersion.state).in_(("failed", "cancelled"))
        replaced = col(DocumentVersion.number) < col(Document.last_number)
        old = sa.func.coalesce(col(DocumentVersion.ended_at), 0) < self._clock() - self._keep_ms
        gone = sa.or_(
            col(DocumentVersion.state) == "skipped", sa.and_(col(DocumentVersion.state) == "superseded", sa.not_(self.kept()))
        )
        return sa.or_(gone, sa.and_(ended, sa.or_(replaced, old)))

    def collect(self, context: TenantContext, collection_id: str, document_id: str, version_id: str | None) -> bool:
        """Return whether the document is gone. `version_id`: the job's own, whose blobs go with a deleted document even if its
        row is gone already.
        """
        with self._database.read(context) as session:
            document = session.get(Document, document_id)
            vectors = self._store.for_tenant(context, _space_of(session, collection_id))
            at_work = session.scalars(_at_work(document_id, version_id)).first() is not None
        gone = is_gone(document)
        if gone:
            vectors.delete_document(document_id)
            self._forget_vectors(context, document_id)
            self._purge(context, document_id, keep_names=at_work)
            self._blobs.delete_owned(version_id or "")
        else:
            self._drop_dead_versions(context, document_id)
            self._drop_unused_chunks(context, document_id, vectors)
        self._release_linked(context, document_id)
        return gone

    def _release_linked(self, context: TenantContext, document_id: str) -> None:
        """What was found through the document's former version is read again: a transaction and a job for each."""
        while True:
            with self._database.read(context) as session:
                ids = session.scalars(duplicates.dangling(document_id).limit(LINKED_PAGE)).all()
            for version_id in ids:
                with self._database.write(context) as session:
                    duplicates.release(session, self._clock, self._queue, version_id)
            if not ids:
                return

    def _forget_vectors(self, context: TenantContext, document_id: str) -> None:
        """Of the document's texts, from the cache, while SQL still knows them. Another document that has one keeps its point;
        only embedding that text anew costs something again."""
        after = ""
        while chunks := self._page(context, _TEXTS.where(col(Chunk.document_id) == document_id, col(Chunk.id) > after)):
            texts = [embedded_text(chunk_context, text) for _, chunk_context, text in chunks]
            self._embedding.forget(context, self._embedding.cache_keys(context, texts))
            after = chunks[-1][0]
        former = sa.select(col(FormerText.key)).where(col(FormerText.document_id) == document_id).order_by(col(FormerText.key))
        last = b""
        while keys := [row[0] for row in self._page(context, former.where(col(FormerText.key) > last).limit(PAGE))]:
            self._embedding.forget(context, keys)
            last = keys[-1]

    def forget_gone(self, context: TenantContext, document_id: str) -> bool:
        """Of a document that is gone, and that no job works on: what its names lead to in the cache, and the names. Return
        whether there were any.
        """
        self._forget_vectors(context, document_id)
        with self._database.write(context) as session:
            return _delete_names(session, document_id) > 0

    def _page(self, context: TenantContext, statement: sa.Executable) -> Sequence[Any]:
        with self._database.read(context) as session:
            return session.execute(statement).all()

    def _purge(self, context: TenantContext, document_id: str, *, keep_names: bool) -> None:
        """`keep_names`: another job of the document may yet put a vector into the cache, and die before it can erase it. It is
        collected after that, and finds there what to erase.
        """
        with self._database.write(context) as session:
            session.get(Document, document_id, with_for_update=True)
            versions = session.scalars(select(DocumentVersion).where(col(DocumentVersion.document_id) == document_id)).all()
            ids = [version.id for version in versions]
            duplicates.forget_sketches(session, select(col(DocumentVersion.id)).where(col(DocumentVersion.id).in_(ids)))
            session.execute(sa.delete(VersionChunk).where(col(VersionChunk.version_id).in_(ids)), execution_options=_NO_SYNC)
            if keep_names:
                chunks = session.scalars(select(col(Chunk.id)).where(col(Chunk.document_id) == document_id)).all()
                for at in range(0, len(chunks), PAGE):
                    self._note_former(session, context, document_id, chunks[at : at + PAGE])
            for table in (Chunk, Feedback) if keep_names else (Chunk, FormerText, Feedback):
                session.execute(sa.delete(table).where(col(table.document_id) == document_id), execution_options=_NO_SYNC)
            session.execute(
                sa.delete(DocumentVersion).where(col(DocumentVersion.document_id) == document_id),
                execution_options=_NO_SYNC,
            )
            session.execute(sa.delete(Document).where(col(Document.id) == document_id), execution_options=_NO_SYNC)
            # Inside the transaction: should this die between, the rows that name the blobs are still there.
            self._delete_blobs(versions)

    def _drop_dead_versions(self, context: TenantContext, document_id: str) -> None:
        """Places and texts of versions that ended; their contents as well, once these are given up."""
        with self._database.write(context) as session:
            session.get(Document, document_id, with_for_update=True)
            duplicates.forget_sketches(
                session,
                select(col(DocumentVersion.id)).where(
                    col(DocumentVersion.document_id) == document_id, col(DocumentVersion.state).in_(ENDED)
                ),
            )
            dead = session.execute(
                select(DocumentVersion, self.given_up())
                .join(Document, col(Document.id) == col(DocumentVersion.document_id))
                .where(col(DocumentVersion.document_id) == document_id, col(DocumentVersion.state).in_(ENDED), _has_remains())
                .where(sa.not_(self.kept()))
                .with_for_update()
            ).all()
            for version, given_up in dead:
                placed = sa.delete(VersionChunk).where(col(VersionChunk.version_id) == version.id)
                session.execute(placed, execution_options=_NO_SYNC)
                if given_up:
                    self._blobs.delete_owned(version.id)
                    version.content_blob = ""
                elif version.text_blob is not None and version.text_blob != version.content_blob:  # equal bytes are one blob
                    self._blobs.delete(version.text_blob)
                version.text_blob = None
                session.add(version)

    def _drop_unused_chunks(self, context: TenantContext, document_id: str, vectors: TenantVectors) -> None:
        with self._database.write(context) as session:
            session.get(Document, document_id, with_for_update=True)
            session.execute(sa.update(Chunk).where(*_unused(document_id)).values(indexed=False), execution_options=_NO_SYNC)
        page = select(col(Chunk.id)).where(*_unused(document_id), col(Chunk.indexed).is_(False)).limit(PAGE)
        while True:
            with self._database.write(context) as session:
                # Held by whoever places chunks too: a chunk that is unused now stays so until this transaction ends.
                session.get(Document, document_id, with_for_update=True)
                ids = [*session.scalars(page.with_for_update())]
                if not ids:
                    return
                vectors.delete_points(ids)
                self._note_former(session, context, document_id, ids)
                session.execute(sa.delete(Chunk).where(col(Chunk.id).in_(ids)), execution_options=_NO_SYNC)

    def _note_former(self, session: Session, context: TenantContext, document_id: str, ids: Sequence[str]) -> None:
        """Their vectors stay in the cache, for the day that a version has the text again, but not longer than the document."""
        texts = [embedded_text(row[1], row[2]) for row in session.execute(_TEXTS.where(col(Chunk.id).in_(ids)))]
        keys = set(self._embedding.cache_keys(context, texts))
        noted = sa.select(col(FormerText.key)).where(col(FormerText.document_id) == document_id, col(FormerText.key).in_(keys))
        fresh = sorted(keys.difference(session.scalars(noted)))
        session.add_all(FormerText(tenant_id=context.tenant_id, document_id=document_id, key=key) for key in fresh)

    def _delete_blobs(self, versions: Sequence[DocumentVersion]) -> None:
        for version in versions:
            self._blobs.delete_owned(version.id)


ENDED = ("superseded", "failed", "cancelled", "skipped")
_TEXTS = sa.select(col(Chunk.id), col(Chunk.context), col(Chunk.text)).order_by(col(Chunk.id)).limit(PAGE)
_NO_SYNC = {"synchronize_session": False}


def is_gone(document: Document | None) -> bool:
    return document is None or document.deleted_at is not None


def _delete_names(session: Session, document_id: str) -> int:
    names = sa.delete(FormerText).where(col(FormerText.document_id) == document_id)
    count: int = session.execute(names, execution_options=_NO_SYNC).rowcount  # type: ignore[attr-defined]
    return count


def _at_work(document_id: str, version_id: str | None) -> SelectOfScalar[str]:
    """Jobs of other versions that have not come to their end, and may be embedding something."""
    others = (col(Job.version_id) != (version_id or ""), col(Job.kind) == "ingest", col(Job.stage) != "done")
    return select(col(Job.id)).where(col(Job.document_id) == document_id, *others).limit(1)


def forget_names(session: Session, document_id: str, job_id: str) -> None:
    """In the transaction that ends a job of a document that is gone: the names of its texts, if no other job is left.

    All of them are held first, in one order: of two that end at once the later one sees the other's end.
    """
    jobs = select(Job).where(col(Job.document_id) == document_id).order_by(col(Job.id)).with_for_update()
    found = session.scalars(jobs.execution_options(populate_existing=True)).all()
    if all(job.id == job_id or job.kind != "ingest" or job.stage == "done" for job in found):
        _delete_names(session, document_id)


def _has_remains() -> sa.ColumnElement[bool]:
    return sa.or_(col(DocumentVersion.content_blob) != "", col(DocumentVersion.text_blob).is_not(None))


def _unused(document_id: str) -> tuple[sa.ColumnElement[bool], ...]:
    used = sa.exists().where(col(VersionChunk.chunk_id) == col(Chunk.id))
    return (col(Chunk.document_id) == document_id, ~used)


def _space_of(session: Session, collection_id: str) -> Space:
    collection = session.get_one(Collection, collection_id)
    row = session.get_one(SpaceRow, collection.space_id)
    return Space(row.id, row.dimensions)
