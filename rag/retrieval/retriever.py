"""A question becomes ranked passages: embed → search → hydrate from SQL → check → answer.

What the engine returns is a proposal. SQL decides: a hit is kept only if its chunk belongs to the live version of a document
that exists, in a collection that was asked for, with labels that the reader holds and attributes that meet the filter.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence

from sqlalchemy.orm import Session

from config.clock import Clock, system_clock
from config.database import Database
from config.errors import InvalidInput, NotFound
from rag.arranging.arranger import Arranged, Arranger
from rag.arranging.relevance import calibration_of
from rag.arranging.thinning import thinned
from rag.collections import DEFAULT, Collections, numeric_slots
from rag.corpus import Collection
from rag.embedding.service import Embedded, EmbeddingService
from rag.filters import compile_filter
from rag.rerank.stage import Reranking
from rag.result_cache import Known, ResultCache
from rag.retrieval.hydration import hydrate
from rag.retrieval.question import Answer, Passage, Question
from rag.store.base import MAX_LIMIT, Hit, Search, TenantVectors, Vector, VectorStore
from rag.store.conditions import AllOf, AnyOf, Condition, OnlyOf, SomeOf
from rag.types import Meter, Reader

SPARE_HITS = 8  #: asked for beyond top_k, for points that are staged or not yet collected
MAX_ROUNDS = 5  #: of asking for more when too many hits were dropped


class Retriever:
    def __init__(
        self,
        database: Database,
        collections: Collections,
        store: VectorStore,
        embedding: EmbeddingService,
        *,
        clock: Clock = system_clock,
        reranking: Reranking | None = None,
        results: ResultCache | None = None,
    ) -> None:
        self.database, self.collections, self.store, self.embedding = database, collections, store, embedding
        self.clock, self.reranking = clock, reranking
        self.results = results or ResultCache(0)
        self.calibration = calibration_of(embedding.model.fingerprint)

    def for_tenant(self, scope: Reader, meter: Meter) -> TenantRetriever:
        return TenantRetriever(self, scope, meter)


class TenantRetriever:
    def __init__(self, retriever: Retriever, scope: Reader, meter: Meter) -> None:
        self._parts, self._scope, self._meter = retriever, scope, meter

    def query(self, question: Question, *, charge_id: str) -> Answer:
        if question.wishes.min_relevance is not None and self._parts.calibration is None:
            raise InvalidInput("The loaded model's scores were not measured: it has no relevance.", field="min_relevance")
        clock = [time.perf_counter()]
        try:
            found, condition = self._where(question)
        except NotFound:
            if DEFAULT not in question.collections:
                raise
            self._parts.collections.for_tenant(self._scope).ensure_default()
            found, condition = self._where(question)
        asked = self._parts.results.asked(self._scope, question, found)
        if (known := asked.known()) is not None:
            self._meter.saved(known.tokens, 0, len(question.phrasings))
            return _known_answer(known, None, found, clock)
        clock.append(time.perf_counter())
        embedded = self._parts.embedding.embed_queries(self._scope, self._meter, question.phrasings, charge_id=charge_id)
        clock.append(time.perf_counter())
        if (known := asked.like(embedded.vectors)) is not None:
            return _known_answer(known, embedded, found, clock)
        vectors = self._parts.store.for_tenant(self._scope, self._parts.embedding.space)
        reranking = self._reranking(question, found)
        depth = question.wishes.depth(question.top_k, reranks=reranking.candidates if reranking else 0)
        passages = self._search(question, found, condition, embedded.vectors, vectors, depth)
        arranger = Arranger(self._parts.database, self._scope, self._meter)
        arranged = arranger.arrange(question, passages, vectors, reranking, charge_id=charge_id)
        clock.append(time.perf_counter())
        answer = _answer(arranged, embedded, found, clock)
        return asked.keep(answer, embedded.vectors, embedded.tokens)

    def _reranking(self, question: Question, found: Sequence[Collection]) -> Reranking | None:
        """If there is a reranker, and the question wants it, or says nothing and every collection's profile does."""
        if self._parts.reranking is None or question.rerank is False:
            return None
        profiles = self._parts.collections.profiles
        wanted = question.rerank or all(profiles.get(row.profile).rerank for row in found)
        return self._parts.reranking if wanted else None

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
        self,
        question: Question,
        found: Sequence[Collection],
        condition: Condition | None,
        phrasings: Iterable[Vector],
        vectors: TenantVectors,
        depth: int,
    ) -> list[Passage]:
        """Ask for more as long as dropped hits leave the answer short and the engine may have others."""
        names = {row.id: row.name for row in found}
        limit = depth + SPARE_HITS
        for _ in range(MAX_ROUNDS):
            legs = vectors.search([Search(vector, limit, tuple(names), condition) for vector in phrasings])
            with self._parts.database.read(self._scope) as session:
                scores = best_of(legs)
                passages = hydrate(session, self._scope, scores, names, question.filter, self._parts.calibration)
            passages = thinned(passages, question.wishes, self._parts.clock())
            had = len({passage.document_id for passage in passages}) if question.wishes.group else len(passages)
            if had >= depth or all(len(hits) < limit for hits in legs) or limit == MAX_LIMIT:
                break
            limit = min(limit * 8, MAX_LIMIT)
        return passages


def best_of(legs: Sequence[Sequence[Hit]]) -> dict[str, float]:
    """Each point's best score. Not the sum, by which what is half near to all would pass what answers one."""
    scores: dict[str, float] = {}
    for hit in (hit for leg in legs for hit in leg):
        scores[hit.id] = max(scores.get(hit.id, -math.inf), hit.score)
    return scores


def _known_answer(known: Known, embedded: Embedded | None, found: Sequence[Collection], clock: list[float]) -> Answer:
    """`embedded`: None where the question itself was known, whose tokens cost nothing."""
    clock += [time.perf_counter()] * (4 - len(clock))
    return Answer(
        passages=known.passages,
        charged=embedded.charged if embedded else 0,
        cached=embedded.cached if embedded else known.tokens,
        generations={row.name: row.generation for row in found},
        timings_ms=_timings(clock, embedded.model_s if embedded else 0.0),
        reused=True,
        similarity=known.similarity,
    )


def _timings(clock: Sequence[float], model_s: float) -> dict[str, float]:
    stages = ("collections", "embedding", "search")
    timings = {name: round((clock[i + 1] - clock[i]) * 1000, 3) for i, name in enumerate(stages)}
    return timings | {"model": round(model_s * 1000, 3)}


def _answer(arranged: Arranged, embedded: Embedded, found: Sequence[Collection], clock: list[float]) -> Answer:
    return Answer(
        passages=tuple(arranged.passages),
        charged=embedded.charged,
        cached=embedded.cached,
        generations={row.name: row.generation for row in found},
        timings_ms=_timings(clock, embedded.model_s),
        rerank_tokens=arranged.rerank_tokens,
        degraded=arranged.degraded,
    )
