"""Search small, return large: chunks are found by their vectors, and the part of the document around them is returned.

A parent is a run of neighbouring chunks under the same headings. It has no vector and no row: each chunk's place says from
where to where its parent reaches, and what white space parts it from the chunk before.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

import sqlalchemy as sa
from sqlalchemy.orm import Session
from sqlmodel import col

from rag.corpus import Chunk, VersionChunk
from rag.splitting.chunking import Parent, Piece


@dataclass(frozen=True, slots=True)
class ParentKey:
    version_id: str
    start: int


class Found(Protocol):
    """As much of a passage as matters here."""

    @property
    def parent(self) -> ParentKey | None: ...


P = TypeVar("P", bound=Found)


def grouped(text: str, pieces: Iterable[Piece], limit: int, count: Callable[[str], int]) -> Iterator[Piece]:
    """The pieces, each with its parent, of at most `limit` tokens together."""
    run: list[Piece] = []
    tokens = 0
    for piece in pieces:
        more = count(piece.text)
        if run and (tokens + more > limit or piece.headings != run[0].headings):
            yield from _related(text, run)
            run, tokens = [], 0
        run.append(piece)
        tokens += more
    yield from _related(text, run)


def _related(text: str, run: Sequence[Piece]) -> Iterator[Piece]:
    before = run[0].start if run else 0
    for piece in run:
        parent = Parent(run[0].start, run[-1].end, text[before : piece.start])  # nothing where they overlap
        before = piece.end
        yield replace(piece, parent=parent)


def best_of_each(passages: Sequence[P]) -> list[P]:
    """Without those whose parent is an earlier one's too: sorted by score, the best of each remains."""
    seen: set[ParentKey] = set()
    kept = []
    for passage in passages:
        if passage.parent is None or passage.parent not in seen:
            kept.append(passage)
        if passage.parent is not None:
            seen.add(passage.parent)
    return kept


def parents_of(session: Session, passages: Iterable[Found]) -> dict[ParentKey, dict[str, Any]]:
    """Text, offsets and pages of each parent that is there whole, as fields of a passage; no statement where there is none."""
    keys = {passage.parent for passage in passages if passage.parent is not None}
    if not keys:
        return {}
    values = {"versions": [*{key.version_id for key in keys}], "starts": [*{key.start for key in keys}]}
    rows = defaultdict(list)
    for row in session.execute(_PLACES, values):
        rows[ParentKey(row.version_id, row.parent_start)].append(row)
    return {key: fields for key in keys if (fields := _whole(rows[key]))}


_PLACES = (
    sa.select(
        col(VersionChunk.version_id),
        col(VersionChunk.parent_start),
        col(VersionChunk.parent_end),
        col(VersionChunk.start),
        col(VersionChunk.end),
        col(VersionChunk.gap),
        col(VersionChunk.first_page),
        col(VersionChunk.last_page),
        col(Chunk.text),
    )
    .join(Chunk, col(Chunk.id) == col(VersionChunk.chunk_id))
    .where(
        col(VersionChunk.version_id).in_(sa.bindparam("versions", expanding=True)),
        col(VersionChunk.parent_start).in_(sa.bindparam("starts", expanding=True)),
    )
    .order_by(col(VersionChunk.version_id), col(VersionChunk.ordinal))
)


def _whole(rows: Sequence[sa.Row[*tuple[Any, ...]]]) -> dict[str, Any] | None:
    """None where a part is missing: the version was superseded between two statements, and is being collected."""
    if not rows:
        return None
    at = start = rows[0].parent_start
    parts = []
    for row in rows:
        gap = "" if row.start < at else row.gap or ""
        if row.start > at + len(gap):
            return None
        parts += [gap, row.text[max(0, at - row.start) :]]
        at = row.end
    if at != rows[0].parent_end:
        return None
    pages = {"first_page": rows[0].first_page, "last_page": rows[-1].last_page}
    return {"text": "".join(parts), "start": start, "end": at, **pages}
