"""What a job does, step by step. Every step may be run again after a kill and then changes nothing twice.

    ingest: read → embed batch 0..n-1 → complete (the last batch, and the switch) → collect, if anything is left over
    by URL: fetch → the same
    delete: collect           a failed ingest: fail → collect

Each transaction begins by asking whether this worker still owns the job (`leases`). Knows nothing of the queue that runs it
(`durable`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import sqlalchemy as sa
from sqlalchemy.orm import Session
from sqlmodel import col, select

from config.clock import Clock
from config.database import Database
from config.errors import LeaseLost
from ingestion import duplicates
from ingestion.beats import Beats
from ingestion.blobs import BlobStore
from ingestion.catalogue import bump_generation, tombstone
from ingestion.chunk_rows import INDEXED, FilterFields, numbers_of
from ingestion.collector import Collector, forget_names, is_gone
from ingestion.fetch.fetcher import Fetcher
from ingestion.fetching import Fetching
from ingestion.job_rows import JobQueue, emit_document, emit_job, release_waiting
from ingestion.leases import DocumentGone, JobCancelled, Lease, Work, owned, take_up, work
from ingestion.reading import Reading
from ingestion.sandbox import Sandbox
from ingestion.tables import Job
from rag.chunkers import Chunkers
from rag.chunking import embedded_text
from rag.collections import numeric_slots
from rag.corpus import Chunk, Document, DocumentVersion, VersionChunk
from rag.embedding.service import Embedded, EmbeddingService
from rag.lexical.counting import count_version
from rag.lexical.encoder import encode_chunk
from rag.store.base import VectorStore
from tenants.budget import Ledger
from tenants.context import TenantContext

BATCH_CHUNKS = 64  # one step, one hold and one upsert
_NO_SYNC = {"synchronize_session": False}


@dataclass(frozen=True, slots=True)
class Staged:
    """What embedding needs of a chunk."""

    id: str
    context: str
    text: str
    tokens: int
    indexed: bool


@dataclass(frozen=True, slots=True)
class Batch:
    """Chunks of one step: all of them, and those that no earlier version or run has indexed."""

    number: int
    tokens: int
    missing: Sequence[Staged]
    fields: FilterFields
    terms: Mapping[str, bytes] = field(default_factory=dict)  #: lexical, of those that were missing, once they are indexed

    @property
    def done(self) -> int:
        """Chunks of the version that are done with this batch, unless it is the last, shorter one."""
        return (self.number + 1) * BATCH_CHUNKS


@dataclass(frozen=True, slots=True)
class Paid:
    charged: int
    cached: int
    deduplicated: int
    hits: int = 0


#: Statements of every document, made once: building one costs more than SQLite takes for it.
_PLACED = (
    sa.select(col(Chunk.id), col(Chunk.context), col(Chunk.text), col(Chunk.tokens), col(Chunk.indexed))
    .join(VersionChunk, col(VersionChunk.chunk_id) == col(Chunk.id))
    .where(
        col(VersionChunk.version_id) == sa.bindparam("version"),
        col(VersionChunk.ordinal) >= sa.bindparam("first"),
        col(VersionChunk.ordinal) < sa.bindparam("end"),
    )
    .order_by(col(VersionChunk.ordinal))
)
_WITHOUT_POINTS = (
    select(sa.func.count())
    .select_from(Chunk)
    .join(VersionChunk, col(VersionChunk.chunk_id) == col(Chunk.id))
    .where(col(VersionChunk.version_id) == sa.bindparam("version"), col(Chunk.indexed).is_(False))
)


class Pipeline:
    def __init__(
        self,
        database: Database,
        clock: Clock,
        blobs: BlobStore,
        sandbox: Sandbox,
        chunkers: Chunkers,
        embedding: EmbeddingService,
        store: VectorStore,
        ledger: Ledger,
        collector: Collector,
        queue: JobQueue,
        *,
        max_chunks: int,
        fetcher: Fetcher | None = None,
    ) -> None:
        self._fetching = Fetching(database, clock, blobs, fetcher)
        self._database, self._clock, self._embedding, self._store = database, clock, embedding, store
        self._ledger, self._collector, self._queue = ledger, collector, queue
        self._beats = Beats(database, clock)
        count = embedding.count_tokens
        self._reading = Reading(database, clock, blobs, sandbox, chunkers, count, max_chunks=max_chunks, beats=self._beats)

    def take_up(self, context: TenantContext, job_id: str) -> Lease | None:
        return take_up(self._database, self._clock, context, job_id)

    def fetch(self, lease: Lease) -> None:
        """The content of a URL is stored."""
        self._fetching.fetch(lease)

    def read(self, lease: Lease) -> int:
        """Content becomes text and chunks in SQL; return how many batches there are to embed."""
        return -(-self._reading.read(lease) // BATCH_CHUNKS)

    def embed_batch(self, lease: Lease, number: int) -> None:
        """Embed and index a batch."""
        batch, paid = self._embed(lease, number)
        with self._unless_lost(lease, batch), self._database.write(lease.context) as session:
            self._count(session, work(session, lease), batch, paid)

    def complete(self, lease: Lease, number: int) -> bool | None:
        """Embed the last batch (−1: there is none), and make the version live; return whether there is something to collect.

        None: what it nearly repeats is gone, and it is to be read again.
        """
        batch, paid = self._embed(lease, number) if number >= 0 else (None, None)
        with self._unless_lost(lease, batch), self._database.write(lease.context) as session:
            found = work(session, lease)
            if batch is not None and paid is not None:
                self._count(session, found, batch, paid)
            if found.version.state == "queued" and not duplicates.stands(session, found):
                return None
            return self._switch(session, found)

    def _embed(self, lease: Lease, number: int) -> tuple[Batch, Paid]:
        batch, hold_id = self._batch(lease, number), f"{lease.version_id}:{number}"
        meter = self._ledger.for_tenant(lease.context, "ingest", epoch=lease.epoch)
        if not batch.missing:  # an earlier run may have paid, and died before it was counted
            return batch, Paid(meter.charged(hold_id), 0, 0)
        texts = [embedded_text(chunk.context, chunk.text) for chunk in batch.missing]
        tokens = [chunk.tokens for chunk in batch.missing]
        embedded: Embedded = self._embedding.embed_batch(
            lease.context, meter, texts, hold_id=hold_id, tokens=tokens, note=lambda done: self._beats.tokens(lease, done)
        )
        encoded = {chunk.id: encode_chunk(chunk.context, chunk.text) for chunk in batch.missing}
        pairs = zip(batch.missing, embedded.vectors, strict=True)
        vectors = self._store.for_tenant(lease.context, self._embedding.space)
        vectors.upsert([batch.fields.point(chunk.id, vector, encoded[chunk.id].sparse) for chunk, vector in pairs])
        batch = replace(batch, terms={chunk_id: each.terms for chunk_id, each in encoded.items()})
        known = max(0, sum(tokens) - embedded.charged)
        return batch, Paid(embedded.charged, known, embedded.deduplicated, embedded.hits)

    @contextmanager
    def _unless_lost(self, lease: Lease, batch: Batch | None) -> Iterator[None]:
        """Of a deleted document the last of its jobs erases what was embedded meanwhile; but whoever took this one over may
        have done that before this batch was written."""
        try:
            yield
        except LeaseLost:
            texts = [embedded_text(chunk.context, chunk.text) for chunk in (batch.missing if batch else ())]
            with self._database.read(lease.context) as session:
                document = session.get(Document, lease.document_id)
            if document is None or document.deleted_at is not None:
                self._embedding.forget(lease.context, self._embedding.cache_keys(lease.context, texts))
            raise

    def _batch(self, lease: Lease, number: int) -> Batch:
        first = number * BATCH_CHUNKS
        inside = {"version": lease.version_id, "first": first, "end": first + BATCH_CHUNKS}
        with self._database.read(lease.context) as session:
            version = _version(session, lease)
            chunks = [Staged(*row) for row in session.execute(_PLACED, inside)]
            slots = numeric_slots(session, [lease.collection_id])[lease.collection_id] if numbers_of(version) else {}
        return Batch(
            number=number,
            tokens=sum(chunk.tokens for chunk in chunks),
            missing=[chunk for chunk in chunks if not chunk.indexed],
            fields=FilterFields.of(version, lease.collection_id, slots),
        )

    def _count(self, session: Session, found: Work, batch: Batch, paid: Paid) -> None:
        """Mark the batch's chunks as indexed, and count it once, however often its step is run."""
        job = found.job
        for chunk_id, terms in batch.terms.items():
            session.execute(INDEXED, {"chunk": chunk_id, "terms": terms}, execution_options=_NO_SYNC)
        done = min(job.chunks_total, batch.done)
        if job.chunks_done >= done:
            return
        job.chunks_done, job.tokens_done, job.tokens_ahead = done, job.tokens_done + batch.tokens, 0
        job.tokens_charged += paid.charged
        job.tokens_cached += paid.cached
        job.updated_at = self._clock()
        session.add(job)
        if paid.cached or paid.deduplicated:
            meter = self._ledger.for_tenant(found.document, "ingest")
            meter.count_saved(session, paid.cached - paid.deduplicated, paid.deduplicated, paid.hits)

    def _switch(self, session: Session, found: Work) -> bool:
        """Make the version live, and end the job. An older version never replaces a newer one."""
        version, document, job = found.version, found.document, found.job
        skipped = job.outcome == duplicates.SKIPPED
        if version.state == "queued" and skipped:
            version.state, version.ended_at = "skipped", self._clock()
            emit_document(session, self._clock, "skipped", job, version=version.number)
            session.add(version)
        elif version.state == "queued":
            _require_indexed(session, version.id)
            newest, former = document.live_number < version.number, document.live_version_id
            now = self._clock()
            if newest and former is not None:
                replaced = session.get_one(DocumentVersion, former)
                replaced.state, replaced.live_until = "superseded", now
                session.add(replaced)
            version.state = "live" if newest else "superseded"
            if newest:
                version.live_from = now
                document.live_version_id, document.live_number = version.id, version.number
                bump_generation(session, document.collection_id)
                count_version(session, document.collection_id, tenant=document.tenant_id, live=version.id, ended=former)
                emit_document(session, self._clock, "live", job, version=version.number)
                duplicates.note_late(session, self._clock, found)
            session.add_all([version, document])
        # What other versions left, and the content of one that is skipped; of a first one there is nothing.
        leftovers = document.last_number > 1 or skipped
        self._end(session, job, "succeeded", collected=not leftovers)
        return leftovers

    def collect(self, lease: Lease) -> None:
        """Remove what no live or waiting version uses; everything, if the document was deleted."""
        with self._database.write(lease.context) as session:
            document = session.get(Document, lease.document_id, with_for_update=True)
            job = owned(session, lease)
            if lease.kind == "delete" and job.state == "running" and document is not None:
                tombstone(session, self._clock, document, job)  # of one that waited for other jobs
            if job.stage != "done":
                job.stage, job.updated_at = "collecting", self._clock()
                session.add(job)
        while not self._collected(lease):
            pass

    def _collected(self, lease: Lease) -> bool:
        """Collect, and end the job; False if the document was deleted meanwhile. Its delete left names of texts to the last job
        that may embed them, which has to look again: what was collected of a living document was not all.
        """
        gone = self._collector.collect(lease.context, lease.collection_id, lease.document_id, lease.version_id or None)
        with self._database.write(lease.context) as session:
            document = session.get(Document, lease.document_id, with_for_update=True)
            if is_gone(document) and not gone:
                return False
            if gone:
                forget_names(session, lease.document_id, lease.job_id)
            job = owned(session, lease)
            if lease.kind == "delete" and job.state == "running":
                emit_document(session, self._clock, "purged", job)
                self._end(session, job, "succeeded", collected=True)
            job.stage, job.finished_at = "done", job.finished_at or self._clock()
            session.add(job)
            return True

    def fail(self, lease: Lease, code: str, detail: str | None) -> None:
        """Record why the job ended; a version that never became live ends with it."""
        with self._database.write(lease.context) as session:
            job = owned(session, lease)
            if job.state != "running" or code == JobCancelled.code:
                return
            state = "cancelled" if code == DocumentGone.code else "failed"
            job.error_code, job.error_detail = code, detail
            version = session.get(DocumentVersion, lease.version_id)
            if version is not None and version.state == "queued":
                version.state, version.ended_at = state, self._clock()
                session.add(version)
                emit_document(session, self._clock, state, job, version=version.number)
            self._end(session, job, state, collected=False)

    def _end(self, session: Session, job: Job, state: str, *, collected: bool) -> None:
        if job.state == "running":
            job.state = state
            emit_job(session, self._clock, state, job)
            release_waiting(session, self._queue, job)
        if job.stage != "done":
            now = self._clock()
            job.stage, job.updated_at = "done" if collected else "collecting", now
            job.finished_at = now if collected else None
        session.add(job)


def _version(session: Session, lease: Lease) -> DocumentVersion:
    """The version, for reading only; raise DocumentGone or JobCancelled. Whether the lease stands is asked when writing."""
    version = session.get(DocumentVersion, lease.version_id)
    if version is None:
        raise DocumentGone("The document was deleted while its job ran.")
    if version.state == "cancelled":
        raise JobCancelled("The job was cancelled.")
    return version


def _require_indexed(session: Session, version_id: str) -> None:
    missing = session.scalar(_WITHOUT_POINTS, {"version": version_id})
    if missing:
        raise RuntimeError(f"version {version_id} has {missing} chunks without points")
