"""Points and chunk rows against each other: what has no row is deleted, what has no point is embedded and written again.

Nothing here may delete a point that a job just wrote, or leave one that a job just deleted. A chunk row is written before
its point, and goes in the transaction that deletes its point. So both repairs look again inside a transaction that holds
the rows, and call the engine within it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import sqlalchemy as sa
from sqlalchemy.orm import Session
from sqlmodel import col, select

from ingestion.intake.catalogue import bump_generation
from ingestion.pipeline.chunk_rows import INDEXED, FilterFields
from ingestion.repair.parts import PAGE, Parts
from ingestion.repair.report import Finding
from rag.collections import numeric_slots
from rag.corpus import Chunk, Collection, Document, DocumentVersion, VersionChunk
from rag.lexical.encoder import encode_chunk
from rag.splitting.chunking import embedded_text
from rag.store.base import Point, TenantVectors, VectorScope
from rag.types import Scope
from tenants.context import TenantContext

BATCH = 64
_NO_SYNC = {"synchronize_session": False}


@dataclass
class FreeMeter:
    """Satisfies `rag.types.Meter` by shape: charges nobody for a repair, and counts what it took."""

    tokens: int = field(default=0)

    def hold(self, hold_id: str, tokens: int, *, started: bool = False) -> bool:
        return True

    def start(self, hold_id: str) -> None: ...

    def settle(self, hold_id: str, tokens: int) -> int:
        self.tokens += tokens
        return 0

    def settle_part(self, hold_id: str, part_id: str, tokens: int) -> int:
        self.tokens += tokens
        return 0

    def charged(self, entry_id: str) -> int:
        return 0

    def release(self, hold_id: str) -> None: ...

    def debit(self, charge_id: str, tokens: int) -> bool:
        self.tokens += tokens
        return True

    def keep(self, charge_id: str) -> bool:
        return True

    def refund(self, charge_id: str) -> bool:
        return True

    def strained(self) -> bool:
        return False

    def saved(self, cached: int, deduplicated: int, hits: int = 0) -> None: ...


def check_points(parts: Parts, context: TenantContext, repair: bool, meter: FreeMeter, *, quick: bool) -> Iterator[Finding]:
    """`quick`: compare one by one only where the counts differ."""
    if not (quick and _counts_match(parts, context)):
        yield from _orphans(parts, context, repair)
        yield from _missing(parts, context, repair, meter)
    yield from _other_spaces(parts, context)


def check_unknown_tenants(parts: Parts, repair: bool) -> Iterator[Finding]:
    last: str | None = None
    while names := parts.store.tenants(parts.embedding.space, last, PAGE):
        known = parts.registry.known(names)
        for name in names:
            if name not in known:
                yield Finding("points_of_unknown_tenant", name, repair, count=_empty(parts, VectorScope(name), repair))
        last = names[-1]


def _empty(parts: Parts, scope: Scope, repair: bool) -> int:
    vectors = parts.store.for_tenant(scope, parts.embedding.space)
    count, last = vectors.count(), None
    while repair and (page := vectors.page(last, PAGE)):
        vectors.delete_points([point_id for point_id, _ in page])
        last = page[-1][0]
    return count


def _counts_match(parts: Parts, context: TenantContext) -> bool:
    count = select(sa.func.count()).select_from(Chunk).where(col(Chunk.indexed) == sa.true())
    with parts.database.read(context) as session:
        indexed = session.scalar(count)
        left = session.scalars(_unwritten().limit(1)).first() or session.scalars(_wordless().limit(1)).first()
    return left is None and parts.store.for_tenant(context, parts.embedding.space).count() == indexed


def _unwritten() -> sa.Select[str]:
    """Chunks of live versions that are not marked as indexed: before a switch all of them are."""
    live = (
        sa.exists()
        .where(col(VersionChunk.chunk_id) == col(Chunk.id), col(VersionChunk.version_id) == col(DocumentVersion.id))
        .where(col(DocumentVersion.state) == "live", col(Document.live_version_id) == col(DocumentVersion.id))
        .where(col(Document.id) == col(Chunk.document_id), col(Document.deleted_at).is_(None))
    )
    return sa.select(col(Chunk.id)).where(col(Chunk.indexed) == sa.false(), live)


def _wordless() -> sa.Select[str]:
    """Chunks from before there was a lexical leg."""
    return sa.select(col(Chunk.id)).where(col(Chunk.indexed) == sa.true(), col(Chunk.terms).is_(None))


def _orphans(parts: Parts, context: TenantContext, repair: bool) -> Iterator[Finding]:
    vectors = parts.store.for_tenant(context, parts.embedding.space)
    last: str | None = None
    while page := vectors.page(last, PAGE):
        documents = dict(page)
        with parts.database.read(context) as session:
            suspects = _without_row(session, documents)
        # The row goes after the point: what is still there now has not just been collected.
        orphans = sorted(vectors.existing(suspects))
        if orphans and repair:
            orphans = _delete(parts, context, orphans, {documents[point_id] for point_id in orphans})
        if orphans:
            yield Finding("point_without_chunk", context.tenant_id, repair, len(orphans), subject=orphans[0])
        last = page[-1][0]


def _without_row(session: Session, ids: Sequence[str] | dict[str, str]) -> list[str]:
    known = {*session.scalars(select(col(Chunk.id)).where(col(Chunk.id).in_([*ids])))}
    return [point_id for point_id in ids if point_id not in known]


def _delete(parts: Parts, context: TenantContext, ids: list[str], document_ids: set[str]) -> list[str]:
    """Rows of chunks are only added while their document is held; a document without a row has nobody who would."""
    with parts.database.write(context) as session:
        _hold_documents(session, document_ids)
        orphans = _without_row(session, ids)
        parts.brief_store.for_tenant(context, parts.embedding.space).delete_points(orphans)
    return orphans


def _hold_documents(session: Session, document_ids: set[str]) -> set[str]:
    """Lock those that exist, in the order of their ids; return those that are not deleted."""
    statement = select(Document).where(col(Document.id).in_(document_ids)).order_by(col(Document.id)).with_for_update()
    return {document.id for document in session.scalars(statement) if document.deleted_at is None}


def _missing(parts: Parts, context: TenantContext, repair: bool, meter: FreeMeter) -> Iterator[Finding]:
    indexed = sa.select(col(Chunk.id)).where(col(Chunk.indexed) == sa.true())
    vectors = parts.store.for_tenant(context, parts.embedding.space)
    for kind, statement, any_point in (
        ("chunk_without_point", indexed, False),
        ("chunk_without_point", _unwritten(), True),
        ("chunk_without_terms", _wordless(), True),
    ):
        last = ""
        while True:
            with parts.database.read(context) as session:
                page = statement.where(col(Chunk.id) > last).order_by(col(Chunk.id)).limit(PAGE)
                ids = [*session.scalars(page)]
            if not ids:
                break
            suspects = ids if any_point else sorted({*ids} - vectors.existing(ids))
            for at in range(0, len(suspects), BATCH):
                yield from _restore(parts, context, kind, statement, suspects[at : at + BATCH], repair, meter)
            last = ids[-1]


@dataclass(frozen=True, slots=True)
class _Lost:
    """A chunk to be written again, with the filter fields of its point; None where no version places it."""

    chunk: Chunk
    fields: FilterFields | None


def _restore(
    parts: Parts,
    context: TenantContext,
    kind: str,
    statement: sa.Select[str],
    ids: Sequence[str],
    repair: bool,
    meter: FreeMeter,
) -> Iterator[Finding]:
    with parts.database.read(context) as session:
        lost = _lost(session, [*session.scalars(statement.where(col(Chunk.id).in_(ids)))], parts.embedding.space.id)
    if not lost:
        return
    if repair:
        _unmark(parts, context, [each.chunk.id for each in lost if each.fields is None])
        _write(parts, context, [each for each in lost if each.fields is not None], meter)
    yield Finding(kind, context.tenant_id, repair, len(lost), subject=lost[0].chunk.id)


def _lost(session: Session, ids: Sequence[str], space_id: str) -> list[_Lost]:
    """Without what is about to be deleted, and without what another model made."""
    rows = session.execute(
        select(Chunk, Document)
        .join(Document, col(Document.id) == col(Chunk.document_id))
        .join(Collection, col(Collection.id) == col(Document.collection_id))
        .where(col(Chunk.id).in_(ids), col(Document.deleted_at).is_(None), col(Collection.space_id) == space_id)
    ).all()
    collections = {document.id: document.collection_id for _, document in rows}
    slots = numeric_slots(session, [*{*collections.values()}])
    places = session.execute(
        select(col(VersionChunk.chunk_id), DocumentVersion)
        .join(DocumentVersion, col(DocumentVersion.id) == col(VersionChunk.version_id))
        .where(col(VersionChunk.chunk_id).in_([chunk.id for chunk, _ in rows]))
    )
    # Any version will do: labels and attributes are part of a chunk's identity.
    versions = {row[0]: row[1] for row in places}
    return [
        _Lost(chunk, FilterFields.of(versions[chunk.id], document.collection_id, slots[document.collection_id]))
        if chunk.id in versions
        else _Lost(chunk, None)
        for chunk, document in rows
    ]


def _unmark(parts: Parts, context: TenantContext, ids: Sequence[str]) -> None:
    """What no version places is not embedded again; a version that takes it up later will find that it must."""
    if not ids:
        return
    placed = sa.exists().where(col(VersionChunk.chunk_id) == col(Chunk.id))
    unmark = sa.update(Chunk).where(col(Chunk.id).in_(ids), ~placed).values(indexed=False)
    with parts.database.write(context) as session:
        session.execute(unmark, execution_options=_NO_SYNC)


def _write(parts: Parts, context: TenantContext, lost: Sequence[_Lost], meter: FreeMeter) -> None:
    if not lost:
        return
    texts = [embedded_text(each.chunk.context, each.chunk.text) for each in lost]
    embedded = parts.embedding.embed_batch(context, meter, texts, hold_id="repair")
    encoded = {each.chunk.id: encode_chunk(each.chunk.context, each.chunk.text) for each in lost}
    points = {
        each.chunk.id: each.fields.point(each.chunk.id, vector, encoded[each.chunk.id].sparse)
        for each, vector in zip(lost, embedded.vectors, strict=True)
        if each.fields is not None
    }
    vectors = parts.brief_store.for_tenant(context, parts.embedding.space)
    with parts.database.write(context) as session:
        _write_held(session, vectors, points, {chunk_id: each.terms for chunk_id, each in encoded.items()})


def _write_held(session: Session, vectors: TenantVectors, points: dict[str, Point], terms: dict[str, bytes]) -> None:
    """Only what is still there: a chunk collected meanwhile, or of a document deleted meanwhile, must not come back."""
    documents = _hold_documents(session, {point.document for point in points.values()})
    kept = select(col(Chunk.id)).where(col(Chunk.id).in_(points.keys()), col(Chunk.document_id).in_(documents))
    held = [*session.scalars(kept.order_by(col(Chunk.id)).with_for_update())]
    vectors.upsert([points[chunk_id] for chunk_id in held])
    for collection in sorted({points[chunk_id].collection for chunk_id in held}):
        bump_generation(session, collection)  # what was answered without them is answered no more
    for chunk_id in held:
        session.execute(INDEXED, {"chunk": chunk_id, "terms": terms[chunk_id]}, execution_options=_NO_SYNC)


def _other_spaces(parts: Parts, context: TenantContext) -> Iterator[Finding]:
    others = (
        sa.select(col(Collection.id), sa.func.count(col(Chunk.id)))
        .join(Document, col(Document.collection_id) == col(Collection.id))
        .join(Chunk, col(Chunk.document_id) == col(Document.id))
        .where(col(Collection.space_id) != parts.embedding.space.id, col(Document.deleted_at).is_(None))
        .group_by(col(Collection.id))
    )
    with parts.database.read(context) as session:
        found = session.execute(others).all()
    for collection_id, count in found:
        yield Finding("chunk_of_other_space", context.tenant_id, False, count, subject=collection_id)
