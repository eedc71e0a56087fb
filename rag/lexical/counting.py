"""The counts of collections in SQL: changed in the transaction that makes a version live or ends it, and read for questions.

Each change is one more row, and rows of about the same size are merged when there are some: a counter for each feature would
rewrite a page of the database for each word of a document. Whoever changes counts has raised the collection's generation
in the same transaction before, which makes others of the collection wait.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session
from sqlmodel import col

from rag.corpus import Chunk, Collection, TermCounts, VersionChunk
from rag.lexical.statistics import CollectionStatistics, Counts, total

MERGED = 4  #: rows of a size that become one
CACHE_BYTES = 64 * 1024 * 1024
_NO_SYNC = {"synchronize_session": False}

_TERMS = (
    sa.select(col(Chunk.terms))
    .join(VersionChunk, col(VersionChunk.chunk_id) == col(Chunk.id))
    .where(col(VersionChunk.version_id) == sa.bindparam("version"), col(Chunk.terms).is_not(None))
)
_SIZES = sa.select(col(TermCounts.number), sa.func.length(col(TermCounts.counts)).label("size")).where(
    col(TermCounts.collection_id) == sa.bindparam("collection")
)
_OF_COLLECTIONS = sa.select(col(TermCounts.collection_id), col(TermCounts.number)).where(
    col(TermCounts.collection_id).in_(sa.bindparam("collections", expanding=True))
)
_NAMED = (
    col(TermCounts.collection_id) == sa.bindparam("collection"),
    col(TermCounts.number).in_(sa.bindparam("numbers", expanding=True)),
)
_GENERATION = sa.select(col(Collection.generation)).where(col(Collection.id) == sa.bindparam("collection"))
_ROWS = sa.select(col(TermCounts.number), col(TermCounts.counts)).where(*_NAMED)
_DELETE = sa.delete(TermCounts).where(*_NAMED)


def count_version(session: Session, collection: str, *, tenant: str, live: str | None, ended: str | None) -> None:
    """One version of a document becomes live, or another ends being so, or both."""
    parts = [] if live is None else [_of_version(session, live)]
    if ended is not None:
        parts.append(_of_version(session, ended).negative())
    change = total(parts)
    if len(change.features):
        add_counts(session, collection, tenant, change)


def _of_version(session: Session, version_id: str) -> Counts:
    terms: Iterable[bytes | None] = session.scalars(_TERMS, {"version": version_id})
    return Counts.of_chunks(each for each in terms if each is not None)


def add_counts(session: Session, collection: str, tenant: str, change: Counts) -> None:
    """Merge rows that are no larger with it while there are enough of them, so that a collection has few, mostly small."""
    sizes: dict[int, int] = {row.number: row.size for row in session.execute(_SIZES, {"collection": collection})}
    absorbed = set[int]()
    while len(peers := [each for each in sizes if _tier(sizes[each]) <= _tier(change.bytes)]) >= MERGED - 1:
        change = total([change, *read_counts(session, collection, peers).values()])
        absorbed.update(peers)
        for each in peers:
            del sizes[each]
    if absorbed:
        delete_counts(session, collection, sorted(absorbed))
    write_counts(session, collection, tenant, change)


def write_counts(session: Session, collection: str, tenant: str, counts: Counts) -> None:
    generation = session.scalar(_GENERATION, {"collection": collection})
    row = {"tenant_id": tenant, "collection_id": collection, "number": generation, "counts": counts.pack()}
    session.execute(sa.insert(TermCounts), [row])


def delete_counts(session: Session, collection: str, numbers: Sequence[int]) -> None:
    session.execute(_DELETE, {"collection": collection, "numbers": list(numbers)}, execution_options=_NO_SYNC)


def read_counts(session: Session, collection: str, numbers: Sequence[int]) -> dict[int, Counts]:
    rows = session.execute(_ROWS, {"collection": collection, "numbers": list(numbers)})
    return {number: Counts.unpack(packed) for number, packed in rows}


def numbers_of(session: Session, collections: Sequence[str]) -> dict[str, list[int]]:
    """Of each collection, the numbers of its rows."""
    numbers: dict[str, list[int]] = {collection: [] for collection in collections}
    for collection, number in session.execute(_OF_COLLECTIONS, {"collections": list(collections)}):
        numbers[collection].append(number)
    return numbers


def _tier(size: int) -> int:
    return size.bit_length() // 2


@dataclass(frozen=True, slots=True)
class _Known:
    generation: int
    parts: Mapping[int, Counts]

    @property
    def bytes(self) -> int:
        return sum(part.bytes for part in self.parts.values())


class TermStatistics:
    """Counts as questions need them, kept as long as the collection's generation stands: of a changed one only new rows
    are read. Any thread may ask."""

    def __init__(self, max_bytes: int = CACHE_BYTES) -> None:
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._lock, self._max_bytes, self._bytes = threading.Lock(), max_bytes, 0

    def of(self, session: Session, collections: Sequence[Collection]) -> dict[str, CollectionStatistics]:
        """By id of the collection, as the session sees it."""
        with self._lock:
            known = {row.id: self._known[row.id] for row in collections if row.id in self._known}
        stale = [row for row in collections if row.id not in known or known[row.id].generation != row.generation]
        for collection, numbers in numbers_of(session, [row.id for row in stale]).items() if stale else ():
            generation = next(row.generation for row in stale if row.id == collection)
            known[collection] = self._read(session, collection, generation, numbers, known.get(collection))
            self._keep(collection, known[collection])
        return {row.id: CollectionStatistics(tuple(known[row.id].parts.values())) for row in collections}

    @staticmethod
    def _read(session: Session, collection: str, generation: int, numbers: list[int], former: _Known | None) -> _Known:
        kept = {} if former is None else {number: former.parts[number] for number in numbers if number in former.parts}
        if fresh := [number for number in numbers if number not in kept]:
            read = read_counts(session, collection, fresh)
            if len(read) < len(fresh):  # merged between the two statements: once more, in one
                kept, read = {}, read_counts_of(session, collection)
            kept |= read
        return _Known(generation, kept)

    def _keep(self, collection: str, known: _Known) -> None:
        with self._lock:
            former = self._known.pop(collection, None)
            self._bytes += known.bytes - (0 if former is None else former.bytes)
            self._known[collection] = known
            while self._known and self._bytes > self._max_bytes:
                self._bytes -= self._known.popitem(last=False)[1].bytes


_ALL = sa.select(col(TermCounts.number), col(TermCounts.counts)).where(
    col(TermCounts.collection_id) == sa.bindparam("collection")
)


def read_counts_of(session: Session, collection: str) -> dict[int, Counts]:
    """All rows of a collection, in one statement."""
    return {number: Counts.unpack(packed) for number, packed in session.execute(_ALL, {"collection": collection})}
