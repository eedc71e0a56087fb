"""A question becomes ranked passages: embed and weigh its words → search → fuse → hydrate from SQL → check → answer.

What the engine returns is a proposal. SQL decides: a hit is kept only if its chunk belongs to the live version of a document
that exists, in a collection that was asked for, with labels that the reader holds and attributes that meet the filter.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy.orm import Session

from config.database import Database
from config.errors import NotFound, Unavailable
from rag.collections import DEFAULT, Collections, numeric_slots
from rag.corpus import Collection
from rag.embedding.service import Embedded, EmbeddingService
from rag.filters import compile_filter
from rag.lexical.analysis import has_unspaced
from rag.lexical.counting import TermStatistics
from rag.lexical.encoder import encode_query
from rag.lexical.statistics import CollectionStatistics
from rag.ranking import Fusion, Leg, Ranked, fuse
from rag.retrieval.hydration import Hydrator
from rag.retrieval.legs import Legs
from rag.retrieval.question import Answer, ExplainedPassage, Explanation, Passage, Question
from rag.retrieval.stopwatch import Stopwatch
from rag.store.base import MAX_LIMIT, SparseVector, VectorStore
from rag.store.conditions import AllOf, AnyOf, Condition, OnlyOf, SomeOf, to_json
from rag.types import Meter, Reader

SPARE_HITS = 8  #: asked for beyond top_k, for points that are staged or not yet collected
MAX_ROUNDS = 5  #: of asking for more when too many hits were dropped


class Retriever:
    def __init__(self, database: Database, collections: Collections, store: VectorStore, embedding: EmbeddingService) -> None:
        self.database, self.collections, self.store, self.embedding = database, collections, store, embedding
        self.statistics = TermStatistics()

    def for_tenant(self, scope: Reader, meter: Meter) -> TenantRetriever:
        return TenantRetriever(self, scope, meter)


@dataclass(frozen=True, slots=True)
class _Where:
    """What a question is asked of, as it was at one moment."""

    collections: Sequence[Collection]
    condition: Condition | None
    statistics: Mapping[str, CollectionStatistics]  #: by collection; of questions that need none there are none

    @property
    def names(self) -> dict[str, str]:
        return {row.id: row.name for row in self.collections}


@dataclass(slots=True)
class _Found:
    """What became of a search."""

    passages: list[Passage] = field(default_factory=list)
    legs: Sequence[Leg] = ()
    ranked: Sequence[Ranked] = ()
    dropped: Counter[str] = field(default_factory=Counter)
    limit: int = 0
    rounds: int = 0


class TenantRetriever:
    def __init__(self, retriever: Retriever, scope: Reader, meter: Meter) -> None:
        self._parts, self._scope, self._meter = retriever, scope, meter

    def query(self, question: Question, *, charge_id: str) -> Answer:
        watch = Stopwatch()
        where = self._where_or_default(question)
        watch.lap("collections")
        words = {} if question.mode == "dense" else _words(question, where.statistics)
        watch.lap("words")
        embedded, degraded = self._embed(question, charge_id, words)
        watch.lap("embedding")
        vector = None if embedded is None else embedded.vectors[0]
        legs = Legs(where.names, where.condition, vector, words)
        fusion = self._parts.collections.profiles.get(where.collections[0].profile).fusion
        found = self._search(question, legs, fusion, watch)
        if question.mode != "dense" and _uncounted(where, found):
            degraded += ("lexical",)
        return Answer(
            passages=tuple(found.passages),
            charged=embedded.charged if embedded else 0,
            cached=embedded.cached if embedded else 0,
            generations={row.name: row.generation for row in where.collections},
            timings_ms=_timings(watch, embedded),
            degraded=degraded,
            explanation=_explained(question, legs, fusion, embedded, found, watch) if question.explain else None,
        )

    def _where_or_default(self, question: Question) -> _Where:
        try:
            return self._where(question)
        except NotFound:
            if DEFAULT not in question.collections:
                raise
            self._parts.collections.for_tenant(self._scope).ensure_default()
            return self._where(question)

    def _where(self, question: Question) -> _Where:
        with self._parts.database.read(self._scope) as session:
            found = self._parts.collections.for_tenant(self._scope).find_all(session, question.collections)
            statistics = {} if question.mode == "dense" else self._parts.statistics.of(session, found)
            return _Where(found, self._condition(session, question, found), statistics)

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

    def _embed(
        self, question: Question, charge_id: str, words: Mapping[str, object]
    ) -> tuple[Embedded | None, tuple[str, ...]]:
        """Without a vector, words have to do, if there are any."""
        if question.mode == "lexical":
            return None, ()
        try:
            return self._parts.embedding.embed_query(self._scope, self._meter, question.text, charge_id=charge_id), ()
        except Unavailable:
            if not words:
                raise
            return None, ("dense",)

    def _search(self, question: Question, legs: Legs, fusion: Fusion, watch: Stopwatch) -> _Found:
        """Ask for more as long as dropped hits leave the answer short and the engine may have others."""
        vectors = self._parts.store.for_tenant(self._scope, self._parts.embedding.space)
        hydrator = Hydrator(self._scope, legs.names, question.filter)
        unspaced = has_unspaced(question.text)
        found = _Found(limit=max(fusion.candidates, 2 * question.top_k) + SPARE_HITS)
        while True:
            found.rounds += 1
            found.legs = legs.search(vectors, found.limit)
            watch.lap("engine")
            found.ranked = fuse(found.legs, fusion, unspaced=unspaced)
            watch.lap("fusion")
            found.dropped = Counter[str]()
            found.passages = self._hydrate(hydrator, found.ranked, question.top_k, found.dropped)
            watch.lap("hydration")
            enough = len(found.passages) >= question.top_k or not any(leg.cut_off for leg in found.legs)
            if enough or found.limit == MAX_LIMIT or found.rounds == MAX_ROUNDS:
                return found
            found.limit = min(found.limit * 8, MAX_LIMIT)

    def _hydrate(self, hydrator: Hydrator, ranked: Sequence[Ranked], top_k: int, dropped: Counter[str]) -> list[Passage]:
        """The best `top_k` that SQL confirms; it is asked for few at first, because as a rule it confirms nearly all."""
        passages: list[Passage] = []
        at, many = 0, top_k + SPARE_HITS
        with self._parts.database.read(self._scope) as session:
            while at < len(ranked) and len(passages) < top_k:
                passages += hydrator.passages(session, ranked[at : at + many], dropped)
                at, many = at + many, many * 4
        return passages[:top_k]


def _words(question: Question, statistics: Mapping[str, CollectionStatistics]) -> dict[str, SparseVector]:
    encoded = {collection: encode_query(question.text, of) for collection, of in statistics.items()}
    return {collection: query for collection, query in encoded.items() if query.indices}


def _uncounted(where: _Where, found: _Found) -> bool:
    """Whether there are chunks that were indexed before their words were counted."""
    empty = {row.name for row in where.collections if not where.statistics[row.id].chunks}
    return any(passage.collection in empty for passage in found.passages)


def _timings(watch: Stopwatch, embedded: Embedded | None) -> dict[str, float]:
    timings = watch.total(collections=("collections", "words"), embedding=("embedding",), search=STAGES)
    return {**timings, "model": round(embedded.model_s * 1000, 3) if embedded else 0.0}


STAGES = ("engine", "fusion", "hydration")


def _explained(
    question: Question, legs: Legs, fusion: Fusion, embedded: Embedded | None, found: _Found, watch: Stopwatch
) -> Explanation:
    dense, lexical = fusion.weights(unspaced=has_unspaced(question.text))
    places = {ranked.id: ranked.places for ranked in found.ranked}
    return Explanation(
        mode=question.mode,
        fusion=fusion,
        weights={"dense": dense, "lexical": lexical} if len(found.legs) > 1 else {leg.name: 1.0 for leg in found.legs},
        legs=legs.explained(found.legs, found.limit),
        rounds=found.rounds,
        condition=None if legs.condition is None else to_json(legs.condition),
        embedding="none" if embedded is None else "cache" if embedded.cached else "model",
        candidates=len(found.ranked),
        dropped={**found.dropped, "beyond_top_k": len(found.ranked) - len(found.passages) - found.dropped.total()},
        passages=tuple(ExplainedPassage(one.id, one.score, places[one.id]) for one in found.passages),
        timings_ms=watch.each(),
    )
