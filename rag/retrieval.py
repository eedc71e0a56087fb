"""A question becomes ranked passages: embed → search → hydrate from SQL → check → answer.

What the engine returns is a proposal. SQL decides: a hit is kept only if its chunk belongs to the live version of a document
that exists, in a collection that was asked for, with labels that the reader holds and attributes that meet the filter.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session
from sqlmodel import col

from config.database import ROWS_BY_KEY, Database
from config.errors import InvalidInput, NotFound
from rag.collections import DEFAULT, Collections, numeric_slots
from rag.corpus import Chunk, Collection, Document, DocumentVersion, VersionChunk
from rag.embedding.service import Embedded, EmbeddingService
from rag.filters import Filter, compile_filter, matches
from rag.parents import ParentKey, best_of_each, parents_of
from rag.store.base import MAX_LIMIT, Hit, Search, Vector, VectorStore
from rag.store.conditions import AllOf, AnyOf, Condition, OnlyOf, SomeOf
from rag.types import Meter, Reader

MAX_QUESTION_CHARS, MAX_TOP_K, MAX_COLLECTIONS = 8_000, 100, 20
SPARE_HITS = 8  #: asked for beyond top_k, for points that are staged or not yet collected
MAX_ROUNDS = 5  #: of asking for more when too many hits were dropped


@dataclass(frozen=True, slots=True)
class Question:
    text: str
    collections: tuple[str, ...]
    top_k: int = 10
    filter: Filter | None = None

    def __post_init__(self) -> None:
        if not self.text.strip():
            raise InvalidInput("A query needs text.", field="query")
        if len(self.text) > MAX_QUESTION_CHARS:
            raise InvalidInput(f"A query has at most {MAX_QUESTION_CHARS} characters.", field="query", limit=MAX_QUESTION_CHARS)
        if not 1 <= self.top_k <= MAX_TOP_K:
            raise InvalidInput(f"`top_k` is 1 to {MAX_TOP_K}.", field="top_k", limit=MAX_TOP_K)
        if not 1 <= len(self.collections) <= MAX_COLLECTIONS:
            raise InvalidInput(f"1 to {MAX_COLLECTIONS} collections.", field="collections", limit=MAX_COLLECTIONS)


@dataclass(frozen=True, slots=True)
class Passage:
    """A cited piece of a document: `text` is exactly characters `start` to `end` of the version's text."""

    id: str
    score: float  #: cosine similarity, −1 to 1
    text: str
    start: int
    end: int
    document_id: str
    external_id: str
    version: int
    collection: str
    title: str
    source: str | None
    headings: tuple[str, ...]
    first_page: int | None
    last_page: int | None
    attributes: Mapping[str, Any]
    parent: ParentKey | None = None  #: of the chunk that was found, where its profile returns parents


@dataclass(frozen=True, slots=True)
class Answer:
    passages: tuple[Passage, ...]
    charged: int
    cached: int
    generations: Mapping[str, int]  #: of each collection, read before the search
    timings_ms: Mapping[str, float] = field(default_factory=dict)


class Retriever:
    def __init__(self, database: Database, collections: Collections, store: VectorStore, embedding: EmbeddingService) -> None:
        self.database, self.collections, self.store, self.embedding = database, collections, store, embedding

    def for_tenant(self, scope: Reader, meter: Meter) -> TenantRetriever:
        return TenantRetriever(self, scope, meter)


class TenantRetriever:
    def __init__(self, retriever: Retriever, scope: Reader, meter: Meter) -> None:
        self._parts, self._scope, self._meter = retriever, scope, meter

    def query(self, question: Question, *, charge_id: str) -> Answer:
        clock = [time.perf_counter()]
        try:
            found, condition = self._where(question)
        except NotFound:
            if DEFAULT not in question.collections:
                raise
            self._parts.collections.for_tenant(self._scope).ensure_default()
            found, condition = self._where(question)
        clock.append(time.perf_counter())
        embedded = self._parts.embedding.embed_query(self._scope, self._meter, question.text, charge_id=charge_id)
        clock.append(time.perf_counter())
        passages = self._search(question, found, condition, embedded.vectors[0])
        clock.append(time.perf_counter())
        return _answer(passages, embedded, found, clock)

    def _where(self, question: Question) -> tuple[Sequence[Collection], Condition | None]:
        with self._parts.database.read(self._scope) as session:
            found = self._parts.collections.for_tenant(self._scope).find_all(session, question.collections)
            return found, self._condition(session, question, found)

    def _condition(self, session: Session, question: Question, found: Sequence[Collection]) -> Condition | None:
        parts: list[Condition] = []
        if self._scope.labels is not None:
            parts.append(OnlyOf("labels", tuple(sorted(self._scope.labels))))
        if question.filter is not None:
            # Each collection maps its numeric attributes to slots of its own.
            slots = numeric_slots(session, [row.id for row in found])
            each = (AllOf((AnyOf("collection", (i,)), compile_filter(question.filter, slots[i]))) for i in slots)
            parts.append(SomeOf(tuple(each)))
        return AllOf(tuple(parts)) if parts else None

    def _search(
        self, question: Question, found: Sequence[Collection], condition: Condition | None, vector: Vector
    ) -> list[Passage]:
        """Ask for more as long as dropped hits leave the answer short and the engine may have others."""
        vectors = self._parts.store.for_tenant(self._scope, self._parts.embedding.space)
        limit = question.top_k + SPARE_HITS
        for _ in range(MAX_ROUNDS):
            search = Search(vector, limit, tuple(row.id for row in found), condition)
            hits = vectors.search([search])[0]
            passages = self._hydrate(hits, found, question)
            if len(passages) >= question.top_k or len(hits) < limit or limit == MAX_LIMIT:
                break
            limit = min(limit * 8, MAX_LIMIT)
        return self._large(passages[: question.top_k])

    def _hydrate(self, hits: Sequence[Hit], found: Sequence[Collection], question: Question) -> list[Passage]:
        names = {row.id: row.name for row in found}
        scores = {hit.id: hit.score for hit in hits}
        passages = []
        ids = list(scores)
        with self._parts.database.read(self._scope) as session:
            for page in (ids[at : at + 500] for at in range(0, len(ids), 500)):
                for row in session.execute(_LIVE_CHUNKS, {"ids": page}):
                    if row.collection_id in names and self._may_see(row, question.filter):
                        passages.append(_passage(row, names[row.collection_id], scores[row.id]))
        return best_of_each(sorted(passages, key=lambda passage: (-passage.score, passage.id)))

    def _large(self, passages: list[Passage]) -> list[Passage]:
        """With the parent's text in place of the chunk's, where there is one."""
        if all(passage.parent is None for passage in passages):
            return passages
        with self._parts.database.read(self._scope) as session:
            parents = parents_of(session, passages)
        return [replace(passage, **parents.get(passage.parent, {})) if passage.parent else passage for passage in passages]

    def _may_see(self, row: sa.Row[*tuple[Any, ...]], filter_: Filter | None) -> bool:
        held = self._scope.labels
        labelled = held is None or held.issuperset(row.labels)
        return labelled and (filter_ is None or matches(filter_, row.attributes))


#: Chunks as the live versions of existing documents place them. The session adds the tenant's condition to each table.
#: Columns, because the four entities of a hit cost 40 µs more than their values.
_LIVE_CHUNKS = (
    sa.select(
        col(Chunk.id),
        col(Chunk.text),
        col(VersionChunk.start),
        col(VersionChunk.end),
        col(VersionChunk.headings),
        col(VersionChunk.version_id),
        col(VersionChunk.parent_start),
        col(VersionChunk.first_page),
        col(VersionChunk.last_page),
        col(DocumentVersion.number),
        col(DocumentVersion.title),
        col(DocumentVersion.source),
        col(DocumentVersion.labels),
        col(DocumentVersion.attributes),
        col(Document.id).label("document_id"),
        col(Document.external_id),
        col(Document.collection_id),
    )
    .join(VersionChunk, col(VersionChunk.chunk_id) == col(Chunk.id))
    .join(DocumentVersion, col(DocumentVersion.id) == col(VersionChunk.version_id))
    .join(Document, col(Document.id) == col(DocumentVersion.document_id))
    .where(
        col(Chunk.id).in_(sa.bindparam("ids", expanding=True)),
        col(Document.live_version_id) == col(DocumentVersion.id),
        col(Document.deleted_at).is_(None),
    )
    .execution_options(**ROWS_BY_KEY)
)


def _passage(row: sa.Row[*tuple[Any, ...]], collection: str, score: float) -> Passage:
    return Passage(
        id=row.id,
        score=score,
        text=row.text,
        start=row.start,
        end=row.end,
        document_id=row.document_id,
        external_id=row.external_id,
        version=row.number,
        collection=collection,
        title=row.title,
        source=row.source,
        headings=tuple(row.headings),
        first_page=row.first_page,
        last_page=row.last_page,
        attributes=row.attributes,
        parent=None if row.parent_start is None else ParentKey(row.version_id, row.parent_start),
    )


def _answer(passages: list[Passage], embedded: Embedded, found: Sequence[Collection], clock: list[float]) -> Answer:
    stages = ("collections", "embedding", "search")
    timings = {name: round((clock[i + 1] - clock[i]) * 1000, 3) for i, name in enumerate(stages)}
    timings["model"] = round(embedded.model_s * 1000, 3)
    return Answer(
        passages=tuple(passages),
        charged=embedded.charged,
        cached=embedded.cached,
        generations={row.name: row.generation for row in found},
        timings_ms=timings,
    )
