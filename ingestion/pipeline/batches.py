"""The batches of a version's chunks: embedded, indexed, and counted once, however often their step is run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import sqlalchemy as sa
from sqlalchemy.orm import Session
from sqlmodel import col

from config.clock import Clock
from config.database import Database
from config.errors import LeaseLost
from ingestion.conversations import transcripts
from ingestion.jobs.beats import Beats
from ingestion.jobs.leases import DocumentGone, JobCancelled, Lease, Work
from ingestion.pipeline.chunk_rows import INDEXED, FilterFields
from rag.collections import numeric_slots
from rag.corpus import Chunk, Document, DocumentVersion, VersionChunk
from rag.embedding.service import NONE, Embedded, EmbeddingService
from rag.filters import ordered
from rag.lexical.encoder import encode_chunk
from rag.splitting.chunking import embedded_text
from rag.store.base import TenantVectors, Vector, VectorStore
from tenants.ledger.budget import Ledger, TenantMeter

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
    copied_from: str | None = None  #: what the version was made of
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


class Batches:
    def __init__(
        self, database: Database, clock: Clock, embedding: EmbeddingService, store: VectorStore, ledger: Ledger, beats: Beats
    ) -> None:
        self._database, self._clock, self._embedding, self._store = database, clock, embedding, store
        self._ledger, self._beats = ledger, beats

    def embed(self, lease: Lease, number: int) -> tuple[Batch, Paid]:
        batch, hold_id = self._batch(lease, number), f"{lease.version_id}:{number}"
        meter = self._meter(lease)
        if not batch.missing:  # an earlier run may have paid, and died before it was counted
            return batch, Paid(meter.charged(hold_id), 0, 0)
        texts = [embedded_text(chunk.context, chunk.text) for chunk in batch.missing]
        tokens = [chunk.tokens for chunk in batch.missing]
        vectors = self._store.for_tenant(lease.context, self._embedding.space)
        taken = self._taken_over(lease, batch, vectors) if batch.copied_from else NONE
        embedded: Embedded = self._embedding.embed_batch(
            lease.context,
            meter,
            texts,
            hold_id=hold_id,
            tokens=tokens,
            note=lambda done: self._beats.tokens(lease, done),
            taken=taken,
        )
        encoded = {chunk.id: encode_chunk(chunk.context, chunk.text) for chunk in batch.missing}
        pairs = zip(batch.missing, embedded.vectors, strict=True)
        vectors.upsert([batch.fields.point(chunk.id, vector, encoded[chunk.id].sparse) for chunk, vector in pairs])
        batch = replace(batch, terms={chunk_id: each.terms for chunk_id, each in encoded.items()})
        known = max(0, sum(tokens) - embedded.charged)
        return batch, Paid(embedded.charged, known, embedded.deduplicated, embedded.hits)

    def _taken_over(self, lease: Lease, batch: Batch, vectors: TenantVectors) -> Mapping[str, Vector]:
        """By text, what the engine has of the same place of the version that this one was made of, or recall of turns."""
        first = batch.number * BATCH_CHUNKS
        there: dict[str, object] = {"version": batch.copied_from, "first": first, "end": first + BATCH_CHUNKS}
        with self._database.read(lease.context) as session:
            if str(batch.copied_from).startswith("ses_"):
                there["version"] = lease.version_id
                return transcripts.vectors_of(session, str(batch.copied_from), self._embedding.space, there)
            texts = {row.id: embedded_text(row.context, row.text) for row in session.execute(_PLACED, there)}
        return {texts[chunk]: vector for chunk, vector in vectors.vectors([*texts]).items()}

    @contextmanager
    def unless_lost(self, lease: Lease, batch: Batch | None) -> Iterator[None]:
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
            slots = numeric_slots(session, [lease.collection_id])[lease.collection_id] if ordered(version.attributes) else {}
        return Batch(
            number=number,
            tokens=sum(chunk.tokens for chunk in chunks),
            missing=[chunk for chunk in chunks if not chunk.indexed],
            fields=FilterFields.of(version, lease.collection_id, slots),
            copied_from=version.copied_from,
        )

    def _meter(self, lease: Lease) -> TenantMeter:
        return self._ledger.for_tenant(lease.context, "ingest", epoch=lease.epoch, key=lease.key, collection=lease.collection)

    def count(self, session: Session, lease: Lease, found: Work, batch: Batch, paid: Paid) -> None:
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
            self._meter(lease).count_saved(session, paid.cached - paid.deduplicated, paid.deduplicated, paid.hits)


def _version(session: Session, lease: Lease) -> DocumentVersion:
    """The version, for reading only; raise DocumentGone or JobCancelled. Whether the lease stands is asked when writing."""
    version = session.get(DocumentVersion, lease.version_id)
    if version is None:
        raise DocumentGone("The document was deleted while its job ran.")
    if version.state == "cancelled":
        raise JobCancelled("The job was cancelled.")
    return version
