"""What a job does, step by step. Every step may be run again after a kill and then changes nothing twice.

    ingest: read → embed batch 0..n → switch → collect          delete: collect → purge

Knows nothing of the queue that runs it (`durable`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session
from sqlmodel import col, select
from sqlmodel.sql.expression import SelectOfScalar

from config.clock import Clock
from config.database import Database
from config.errors import CarrelError, UnreadableDocument
from ingestion.blobs import BlobStore
from ingestion.chunk_rows import FilterFields, chunk_row, claim_slots, payload_digest, place_row
from ingestion.collector import Collector
from ingestion.documents import bump_generation
from ingestion.readers.base import Parsed
from ingestion.sandbox import ParserDied, Sandbox
from ingestion.submission import MAX_TITLE_CHARS
from ingestion.tables import Job
from rag.chunking import Chunker, ChunkIdentity, Page, Piece, embedded_text
from rag.collections import numeric_slots
from rag.corpus import Chunk, Document, DocumentVersion, VersionChunk
from rag.embedding.service import EmbeddingService
from rag.store.base import VectorStore
from tenants.budget import Ledger
from tenants.context import TenantContext

log = logging.getLogger(__name__)

BATCH_CHUNKS = 64  # one durable step, one hold and one upsert
MAX_PARSER_DEATHS = 2
MAX_SPLIT_S = 120.0
MAX_READ_STARTS = 10  # of one document, without an end
ROWS = 500  # in one statement


class DocumentGone(CarrelError):
    """The document was deleted while its job ran."""

    code, title = "document_deleted", "The document was deleted"


@dataclass(frozen=True, slots=True)
class Work:
    """A job with what it works on, as it is now."""

    job: Job
    document: Document
    version: DocumentVersion


class Pipeline:
    def __init__(
        self,
        database: Database,
        clock: Clock,
        blobs: BlobStore,
        sandbox: Sandbox,
        chunker: Chunker,
        embedding: EmbeddingService,
        store: VectorStore,
        ledger: Ledger,
        collector: Collector,
        *,
        max_chunks: int,
    ) -> None:
        self._database, self._clock, self._blobs, self._sandbox = database, clock, blobs, sandbox
        self._chunker, self._embedding, self._store, self._ledger = chunker, embedding, store, ledger
        self._collector, self._max_chunks = collector, max_chunks

    def read(self, context: TenantContext, job_id: str) -> int:
        """Content becomes text and chunks in SQL; return how many batches there are to embed."""
        self._stage(context, job_id, "reading")
        with self._database.read(context) as session:
            work = _work(session, job_id)
        if work.version.state != "queued":
            return 0  # run again after its end: nothing is left to do
        self._count_start(context, work.version.id)
        parsed = self._parse(context, work.version)
        title = _title(work.version, parsed)
        pieces = self._split(parsed, title)
        text_blob = self._blobs.put(work.version.id, parsed.text.encode())
        self._write_chunks(context, job_id, pieces)
        with self._database.write(context) as session:
            work = _work(session, job_id)
            work.version.text_blob, work.version.chars = text_blob, len(parsed.text)
            work.version.title, work.version.pages = title, len(parsed.pages)
            work.version.read_starts = 0
            work.job.stage, work.job.chunks_total = "embedding", len(pieces)
            session.add_all([work.version, work.job])
            claim_slots(session, work.version, work.document.collection_id)
        return -(-len(pieces) // BATCH_CHUNKS)

    def _count_start(self, context: TenantContext, version_id: str) -> None:
        """A document that takes the worker down with it whenever it is read must not do so for ever."""
        with self._database.write(context) as session:
            version = session.get(DocumentVersion, version_id, with_for_update=True)
            if version is not None:
                version.read_starts += 1
                session.add(version)
                if version.read_starts <= MAX_READ_STARTS:
                    return
        raise UnreadableDocument(f"Reading the document was begun {MAX_READ_STARTS} times and never ended.")

    def _parse(self, context: TenantContext, version: DocumentVersion) -> Parsed:
        while True:
            try:
                return self._sandbox.read(self._blobs.path(version.content_blob), version.media_type)
            except ParserDied as error:
                deaths = self._count_death(context, version.id)
                log.warning("parser died", extra={"version": version.id, "deaths": deaths, "reason": error.detail})
                if deaths >= MAX_PARSER_DEATHS:
                    raise UnreadableDocument(error.detail) from error

    def _count_death(self, context: TenantContext, version_id: str) -> int:
        with self._database.write(context) as session:
            version = session.get(DocumentVersion, version_id, with_for_update=True)
            if version is None:
                raise DocumentGone("The document was deleted while it was read.")
            version.parser_deaths += 1
            session.add(version)
            return version.parser_deaths

    def _split(self, parsed: Parsed, title: str) -> list[Piece]:
        pages = [Page(number, start) for number, start in enumerate(parsed.pages, 1)]
        pieces, deadline = [], time.monotonic() + MAX_SPLIT_S
        for piece in self._chunker.split(parsed.text, markdown=parsed.markdown, title=title, pages=pages):
            pieces.append(piece)
            if len(pieces) > self._max_chunks:
                raise UnreadableDocument(f"The document has more than {self._max_chunks} chunks; split it.")
            if time.monotonic() > deadline:
                raise UnreadableDocument(f"Splitting the document took longer than {MAX_SPLIT_S:g} s; split it.")
        return pieces

    def _write_chunks(self, context: TenantContext, job_id: str, pieces: Sequence[Piece]) -> None:
        """In pages, each a transaction with nothing but statements in it: on SQLite everybody else's writes wait for one."""
        counts = self._embedding.runtime.count_tokens([piece.embedded for piece in pieces])
        with self._database.write(context) as session:
            work = _work(session, job_id)
            session.execute(sa.delete(VersionChunk).where(col(VersionChunk.version_id) == work.version.id))
        identity = ChunkIdentity(context.tenant_id, work.document.collection_id, work.document.id, payload_digest(work.version))
        rows = list(zip(identity.ids(pieces), pieces, counts, strict=True))
        for at in range(0, len(rows), ROWS):
            page = rows[at : at + ROWS]
            with self._database.write(context) as session:
                version = _work(session, job_id).version
                known = {*session.scalars(select(col(Chunk.id)).where(col(Chunk.id).in_([row[0] for row in page])))}
                if fresh := [chunk_row(version, *row) for row in page if row[0] not in known]:
                    session.execute(sa.insert(Chunk), fresh)
                session.execute(sa.insert(VersionChunk), [place_row(version, row[0], row[1]) for row in page])

    def embed_batch(self, context: TenantContext, job_id: str, batch: int) -> None:
        """Embed and index those chunks of the batch that no earlier version or run has indexed."""
        with self._database.read(context) as session:
            work = _work(session, job_id)
            chunks = session.scalars(_batch_of(work.version.id, batch).where(col(Chunk.indexed).is_(False))).all()
            slots = numeric_slots(session, [work.document.collection_id])[work.document.collection_id]
        meter = self._ledger.for_tenant(context, "ingest")
        hold_id, deduplicated = f"{work.version.id}:{batch}", 0
        if chunks:
            texts = [embedded_text(chunk.context, chunk.text) for chunk in chunks]
            embedded = self._embedding.embed_batch(context, meter, texts, hold_id=hold_id)
            deduplicated = embedded.deduplicated
            vectors = self._store.for_tenant(context, self._embedding.space)
            fields = FilterFields.of(work.version, work.document.collection_id, slots)
            vectors.upsert([fields.point(chunk.id, vector) for chunk, vector in zip(chunks, embedded.vectors, strict=True)])
        # From the ledger, not from this run: an earlier run of the step may have paid and then died.
        charged = meter.charged(hold_id)
        known = max(0, sum(chunk.tokens for chunk in chunks) - charged)
        self._mark_indexed(context, job_id, batch, [chunk.id for chunk in chunks], charged, known)
        if known:
            meter.saved(known - deduplicated, deduplicated)

    def _mark_indexed(
        self, context: TenantContext, job_id: str, batch: int, ids: Sequence[str], charged: int, cached: int
    ) -> None:
        with self._database.write(context) as session:
            session.execute(
                sa.update(Chunk).where(col(Chunk.id).in_(ids)).values(indexed=True),
                execution_options={"synchronize_session": False},
            )
            job = session.get_one(Job, job_id)
            job.chunks_done = min(job.chunks_total, (batch + 1) * BATCH_CHUNKS)
            job.tokens_charged += charged
            job.tokens_cached += cached
            job.updated_at = self._clock()
            session.add(job)

    def switch(self, context: TenantContext, job_id: str) -> None:
        """The one transaction that makes a version live. An older version never replaces a newer one."""
        with self._database.write(context) as session:
            work = _work(session, job_id, lock=True)
            version, document = work.version, work.document
            if version.state == "queued":
                _require_indexed(session, version.id)
                newest = document.live_number < version.number
                if newest and document.live_version_id is not None:
                    replaced = session.get_one(DocumentVersion, document.live_version_id)
                    replaced.state = "superseded"
                    session.add(replaced)
                version.state = "live" if newest else "superseded"
                if newest:
                    document.live_version_id, document.live_number = version.id, version.number
                    bump_generation(session, document.collection_id)
            session.add_all([version, document])

    def collect(self, context: TenantContext, job_id: str) -> None:
        """Remove what no live or waiting version uses; everything, if the document was deleted."""
        with self._database.write(context) as session:
            job = session.get_one(Job, job_id)
            if job.state in ("queued", "running"):
                job.state, job.stage, job.updated_at = "running", "collecting", self._clock()
                session.add(job)
        self._collector.collect(context, job.collection_id, job.document_id, job.version_id)

    def finish(self, context: TenantContext, job_id: str, code: str | None, detail: str | None) -> None:
        """Record how the job ended; a version that never became live ends with it."""
        with self._database.write(context) as session:
            job = session.get_one(Job, job_id)
            job.error_code, job.error_detail, job.updated_at = code, detail, self._clock()
            job.stage = "done"
            if code is None:
                job.state = "succeeded"
            else:
                job.state = "cancelled" if code == DocumentGone.code else "failed"
                version = session.get(DocumentVersion, job.version_id) if job.version_id else None
                if version is not None and version.state == "queued":
                    version.state = job.state
                    session.add(version)
            session.add(job)

    def _stage(self, context: TenantContext, job_id: str, stage: str) -> None:
        with self._database.write(context) as session:
            job = session.get_one(Job, job_id)
            job.state, job.stage, job.updated_at = "running", stage, self._clock()
            session.add(job)


def _work(session: Session, job_id: str, *, lock: bool = False) -> Work:
    job = session.get_one(Job, job_id)
    document = session.get(Document, job.document_id, with_for_update=lock)
    version = session.get(DocumentVersion, job.version_id or "")
    if document is None or version is None or document.deleted_at is not None:
        raise DocumentGone("The document was deleted while its job ran.")
    return Work(job, document, version)


def _title(version: DocumentVersion, parsed: Parsed) -> str:
    """As it was given, or the content's own, or the last part of its source's name."""
    name = (version.source or "").rstrip("/").rpartition("/")[2]
    return (version.title or parsed.title or name)[:MAX_TITLE_CHARS]


def _batch_of(version_id: str, batch: int) -> SelectOfScalar[Chunk]:
    first = batch * BATCH_CHUNKS
    return (
        select(Chunk)
        .join(VersionChunk, col(VersionChunk.chunk_id) == col(Chunk.id))
        .where(
            col(VersionChunk.version_id) == version_id,
            col(VersionChunk.ordinal) >= first,
            col(VersionChunk.ordinal) < first + BATCH_CHUNKS,
        )
        .order_by(col(VersionChunk.ordinal))
    )


def _require_indexed(session: Session, version_id: str) -> None:
    missing = session.scalar(
        sa.select(sa.func.count())
        .select_from(Chunk)
        .join(VersionChunk, col(VersionChunk.chunk_id) == col(Chunk.id))
        .where(col(VersionChunk.version_id) == version_id, col(Chunk.indexed).is_(False))
    )
    if missing:
        raise RuntimeError(f"version {version_id} has {missing} chunks without points")
