"""A question becomes ranked passages: embed → search → hydrate from SQL → check → answer.

What the engine returns is a proposal. SQL decides: a hit is kept only if its chunk belongs to the live version of a document
that exists, in a collection that was asked for, with labels that the reader holds and attributes that meet the filter.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from sqlalchemy.orm import Session

from config.database import Database
from config.errors import NotFound
from rag.collections import DEFAULT, Collections, numeric_slots
from rag.corpus import Collection
from rag.embedding.service import Embedded, EmbeddingService
from rag.filters import compile_filter
from rag.retrieval.hydration import hydrate
from rag.retrieval.question import Answer, Passage, Question
from rag.store.base import MAX_LIMIT, Search, Vector, VectorStore
from rag.store.conditions import AllOf, AnyOf, Condition, OnlyOf, SomeOf
from rag.types import Meter, Reader

SPARE_HITS = 8  #: asked for beyond top_k, for points that are staged or not yet collected
MAX_ROUNDS = 5  #: of asking for more when too many hits were dropped


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
        names = {row.id: row.name for row in found}
        limit = question.top_k + SPARE_HITS
        for _ in range(MAX_ROUNDS):
            search = Search(vector, limit, tuple(row.id for row in found), condition)
            hits = vectors.search([search])[0]
            with self._parts.database.read(self._scope) as session:
                passages = hydrate(session, self._scope, {hit.id: hit.score for hit in hits}, names, question.filter)
            if len(passages) >= question.top_k or len(hits) < limit or limit == MAX_LIMIT:
                break
            limit = min(limit * 8, MAX_LIMIT)
        return passages[: question.top_k]


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
