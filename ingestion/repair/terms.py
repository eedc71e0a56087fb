"""How many chunks of a collection have each word, against what its live chunks say."""

from __future__ import annotations

from collections.abc import Iterator

import sqlalchemy as sa
from sqlalchemy.orm import Session
from sqlmodel import col, select

from ingestion.intake.catalogue import bump_generation
from ingestion.repair.parts import PAGE, Parts
from ingestion.repair.report import Finding
from rag.corpus import Chunk, Collection, Document, DocumentVersion, VersionChunk
from rag.lexical.counting import delete_counts, read_counts_of, write_counts
from rag.lexical.statistics import CollectionStatistics, Counts, total
from tenants.context import TenantContext

CHUNKS = 2_000  # read at once
TRIES = 3  # at a collection that changes meanwhile; after these the next check finds it

_LIVE = (
    sa.select(col(Chunk.terms))
    .join(VersionChunk, col(VersionChunk.chunk_id) == col(Chunk.id))
    .join(DocumentVersion, col(DocumentVersion.id) == col(VersionChunk.version_id))
    .join(Document, col(Document.id) == col(DocumentVersion.document_id))
    .where(
        col(DocumentVersion.state) == "live",
        col(Document.deleted_at).is_(None),
        col(Document.collection_id) == sa.bindparam("collection"),
    )
)
_NUMBER = _LIVE.with_only_columns(sa.func.count(), sa.func.count(col(Chunk.terms)), maintain_column_froms=True)
_GENERATION = sa.select(col(Collection.generation)).where(col(Collection.id) == sa.bindparam("collection"))


def check_term_counts(parts: Parts, context: TenantContext, repair: bool, *, quick: bool) -> Iterator[Finding]:
    """`quick`: compare how many chunks there are, and the words only where that differs."""
    last = ""
    while True:
        with parts.database.read(context) as session:
            page = select(col(Collection.id)).where(col(Collection.id) > last).order_by(col(Collection.id)).limit(PAGE)
            ids = [*session.scalars(page)]
        if not ids:
            return
        for collection in ids:
            if not (quick and _as_many(parts, context, collection)) and _differs(parts, context, collection, repair):
                yield Finding("term_counts", context.tenant_id, repair, subject=collection)
        last = ids[-1]


def _as_many(parts: Parts, context: TenantContext, collection: str) -> bool:
    with parts.database.read(context) as session:
        stored = CollectionStatistics(tuple(read_counts_of(session, collection).values()))
        [(_, chunks)] = session.execute(_NUMBER, {"collection": collection})
        return chunks == stored.chunks


def _differs(parts: Parts, context: TenantContext, collection: str, repair: bool) -> bool:
    """Whoever changes counts raises the generation: equal before and after, everything read between is of one moment."""
    for _ in range(TRIES):
        with parts.database.read(context) as session:
            before = session.scalar(_GENERATION, {"collection": collection})
            [(chunks, analysed)] = session.execute(_NUMBER, {"collection": collection})
            if analysed < chunks:
                return False  # a finding of its own, and when that is mended there is more to count
            counted = recount(session, collection)
            same = counted == total([*read_counts_of(session, collection).values()])
        with parts.database.write(context) as session:
            if session.scalar(_GENERATION.with_for_update(), {"collection": collection}) != before:
                continue
            if not same and repair:
                _replace(session, context, collection, counted)
            return not same
    return False


def recount(session: Session, collection: str) -> Counts:
    """From the chunks of the collection's live versions."""
    rows = session.scalars(_LIVE, {"collection": collection}, execution_options={"yield_per": CHUNKS})
    counted = Counts.none()
    for page in rows.partitions():
        counted = total([counted, Counts.of_chunks(terms for terms in page if terms is not None)])
    return counted


def _replace(session: Session, context: TenantContext, collection: str, counted: Counts) -> None:
    numbers = sorted(read_counts_of(session, collection))
    bump_generation(session, collection)
    delete_counts(session, collection, numbers)
    write_counts(session, collection, context.tenant_id, counted)
