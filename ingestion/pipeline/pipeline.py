"""What a job does, step by step. Every step may be run again after a kill and then changes nothing twice.

    ingest: read → embed batch 0..n-1 → complete (the last batch, and the switch) → collect, if anything is left over
    by URL: fetch → the same
    delete: collect           a failed ingest: fail → collect

Each transaction begins by asking whether this worker still owns the job (`leases`). Knows nothing of the queue that runs it
(`durable`).
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.orm import Session
from sqlmodel import col, select

from config.clock import Clock
from config.database import Database
from ingestion.blobs import BlobStore
from ingestion.counting import follow
from ingestion.fetch.fetcher import Fetcher
from ingestion.intake import duplicates
from ingestion.intake.catalogue import bump_generation, tombstone
from ingestion.jobs.beats import Beats
from ingestion.jobs.leases import DocumentGone, JobCancelled, Lease, Work, owned, take_up, work
from ingestion.jobs.rows import JobQueue, emit_document, emit_job, release_waiting
from ingestion.jobs.tables import Job
from ingestion.pipeline.batches import BATCH_CHUNKS, Batches
from ingestion.pipeline.fetching import Fetching
from ingestion.pipeline.reading import Reading
from ingestion.removal.collector import Collector, forget_names, is_gone
from ingestion.sandbox import Sandbox
from rag.corpus import Chunk, Document, DocumentVersion, VersionChunk
from rag.embedding.service import EmbeddingService
from rag.lexical.counting import count_version
from rag.splitting.chunkers import Chunkers
from rag.store.base import VectorStore
from tenants.context import TenantContext
from tenants.ledger.budget import Ledger
from tenants.limits.quotas import UNLIMITED, Counts, Quotas

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
        quotas: Quotas = UNLIMITED,
    ) -> None:
        self._fetching, self._quotas = Fetching(database, clock, blobs, fetcher, quotas), quotas
        self._database, self._clock, self._collector, self._queue = database, clock, collector, queue
        beats, count = Beats(database, clock), embedding.count_tokens
        self._reading = Reading(database, clock, blobs, sandbox, chunkers, count, max_chunks=max_chunks, beats=beats)
        self._batches = Batches(database, clock, embedding, store, ledger, beats)

    def take_up(self, context: TenantContext, job_id: str) -> Lease | None:
        return take_up(self._database, self._clock, context, job_id)

    def fetch(self, lease: Lease) -> None:
        """The content of a URL is stored."""
        self._fetching.fetch(lease)

    def read(self, lease: Lease) -> int:
        """Content becomes text and chunks in SQL; return how many batches there are to embed."""
        chunks = self._reading.read(lease)
        with self._database.read(lease.context) as session:  # before anything is paid for; the switch decides
            document = session.get(Document, lease.document_id)
            former = 0 if document is None else document.counted_chunks
            self._quotas.require_room(session, lease.context.tenant_id, Counts(chunks=chunks - former))
        return -(-chunks // BATCH_CHUNKS)

    def embed_batch(self, lease: Lease, number: int) -> None:
        """Embed and index a batch."""
        batch, paid = self._batches.embed(lease, number)
        with self._batches.unless_lost(lease, batch), self._database.write(lease.context) as session:
            self._batches.count(session, lease, work(session, lease), batch, paid)

    def complete(self, lease: Lease, number: int) -> bool | None:
        """Embed the last batch (−1: there is none), and make the version live; return whether there is something to collect.

        None: what it nearly repeats is gone, and it is to be read again.
        """
        batch, paid = self._batches.embed(lease, number) if number >= 0 else (None, None)
        with self._batches.unless_lost(lease, batch), self._database.write(lease.context) as session:
            found = work(session, lease)
            if batch is not None and paid is not None:
                self._batches.count(session, lease, found, batch, paid)
            if found.version.state == "queued" and not duplicates.stands(session, found):
                return None
            return self._switch(session, found)

    def _switch(self, session: Session, found: Work) -> bool:
        """Make the version live, and end the job. An older version never replaces a newer one."""
        version, document, job = found.version, found.document, found.job
        skipped = job.outcome == duplicates.SKIPPED
        if version.state == "queued" and skipped:
            version.state, version.ended_at = "skipped", self._clock()
            emit_document(session, self._clock, "skipped", job, version=version.number)
            session.add(version)
            follow(session, document, self._quotas)
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
            follow(session, document, self._quotas)
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
            document = session.get(Document, lease.document_id, with_for_update=True)  # first, as everybody locks them
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
                if document is not None:
                    follow(session, document)
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


def _require_indexed(session: Session, version_id: str) -> None:
    missing = session.scalar(_WITHOUT_POINTS, {"version": version_id})
    if missing:
        raise RuntimeError(f"version {version_id} has {missing} chunks without points")
