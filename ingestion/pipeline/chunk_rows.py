"""What the pipeline writes of a version: rows of chunks and places, and the filter fields of its points."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session
from sqlmodel import col

from rag.attributes import kind_of
from rag.collections import add_slots, numeric_slots
from rag.corpus import PIPELINE_VERSION, Chunk, Collection, DocumentVersion
from rag.filters import numbers, terms
from rag.splitting.chunking import Piece
from rag.store.base import Point, SparseVector, Vector

#: One chunk's point is in the engine, and its words are known. Made once: building it costs more than SQLite takes for it.
INDEXED = sa.update(Chunk).where(col(Chunk.id) == sa.bindparam("chunk")).values(indexed=True, terms=sa.bindparam("terms"))


@dataclass(frozen=True, slots=True)
class ChunkRow:
    id: str
    piece: Piece
    tokens: int


def chunk_row(version: DocumentVersion, row: ChunkRow) -> dict[str, object]:
    return {
        "id": row.id,
        "tenant_id": version.tenant_id,
        "document_id": version.document_id,
        "context": row.piece.context,
        "text": row.piece.text,
        "tokens": row.tokens,
        "pipeline_version": PIPELINE_VERSION,
        "indexed": False,
    }


def place_row(version: DocumentVersion, row: ChunkRow) -> dict[str, object]:
    piece = row.piece
    return {
        "tenant_id": version.tenant_id,
        "version_id": version.id,
        "ordinal": piece.ordinal,
        "chunk_id": row.id,
        "start": piece.start,
        "end": piece.end,
        "first_page": piece.first_page,
        "last_page": piece.last_page,
        "headings": list(piece.headings),
        "parent_start": piece.parent and piece.parent.start,
        "parent_end": piece.parent and piece.parent.end,
        "gap": piece.parent and piece.parent.gap,
    }


def payload_digest(version: DocumentVersion) -> str:
    """Part of a point's identity: other labels or attributes make another point."""
    return f"{sorted(version.labels)}{sorted(version.attributes.items())}"


def numbers_of(version: DocumentVersion) -> set[str]:
    """Its attributes that are numbers."""
    return {key for key, value in version.attributes.items() if kind_of(value) == "number"}


def claim_slots(session: Session, version: DocumentVersion, collection_id: str) -> None:
    """Give numeric attributes a slot while there are any; without one, ranges are checked on the stored value alone."""
    numeric = numbers_of(version)
    if not numeric or numeric <= numeric_slots(session, [collection_id])[collection_id].keys():
        return
    # One document at a time: two would take the same slot. Rows that only refer to the collection do not wait for this.
    session.get_one(Collection, collection_id, with_for_update={"key_share": True})
    taken = numeric_slots(session, [collection_id])[collection_id]
    add_slots(session, version.tenant_id, collection_id, taken, [(key, "number") for key in sorted(numeric - taken.keys())])


@dataclass(frozen=True, slots=True)
class FilterFields:
    """What all points of a version share."""

    collection: str
    document: str
    labels: tuple[str, ...]
    terms: tuple[str, ...]
    numbers: tuple[tuple[int, float], ...]

    @classmethod
    def of(cls, version: DocumentVersion, collection_id: str, slots: Mapping[str, int]) -> FilterFields:
        return cls(
            collection=collection_id,
            document=version.document_id,
            labels=tuple(version.labels),
            terms=terms(version.attributes),
            numbers=numbers(version.attributes, slots),
        )

    def point(self, chunk_id: str, dense: Vector, sparse: SparseVector) -> Point:
        return Point(
            id=chunk_id,
            collection=self.collection,
            document=self.document,
            dense=dense,
            sparse=sparse,
            labels=self.labels,
            terms=self.terms,
            numbers=self.numbers,
        )
