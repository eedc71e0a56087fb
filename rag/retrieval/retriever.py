"""A question becomes ranked passages: embed and weigh its words → search → fuse → hydrate from SQL → check → arrange → answer.

What the engine returns is a proposal. SQL decides: a hit is kept only if its chunk belongs to the live version of a document
that exists, in a collection that was asked for, with labels that the reader holds and attributes that meet the filter.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from sqlalchemy.orm import Session

from config.clock import Clock, system_clock
from config.database import Database
from config.errors import InvalidInput, NotFound, Unavailable
from config.profiles import Rewrite
from rag.arranging.arranger import Arranger
from rag.arranging.relevance import calibration_of
from rag.arranging.thinning import thinned
from rag.arranging.tuning import Tuning
from rag.attached import attached_to
from rag.attributes import typed
from rag.collections import DEFAULT, Collections, numeric_slots
from rag.corpus import Collection
from rag.embedding.service import Embedded, EmbeddingService
from rag.filters import Filter, compile_filter
from rag.lexical.analysis import has_unspaced
from rag.lexical.counting import TermStatistics
from rag.llm.rewriting import Rewriting
from rag.ranking import SUPPORTED, Fusion, best_of, fuse, supported
from rag.rerank.stage import Reranking
from rag.result_cache import ResultCache
from rag.retrieval.hydration import Hydrator, Moment
from rag.retrieval.legs import Legs, alike
from rag.retrieval.past import require_kept
from rag.retrieval.question import Again, Answer, Passage, Question, Searched
from rag.retrieval.rewording import Reworded, Rewording, mode_of
from rag.retrieval.stopwatch import Stopwatch
from rag.retrieval.telling import Found, explained, known_answer, timings
from rag.retrieval.where import Where, legs_of, tunings_of, uncounted, words_of
from rag.splitting.parents import best_of_each
from rag.store.base import MAX_LIMIT, SparseVector, TenantVectors, VectorStore
from rag.store.conditions import AllOf, AnyOf, Condition, OnlyOf, SomeOf
from rag.types import BookedMeter, Meter, Reader

SPARE_HITS = 8  #: asked for beyond what is wanted, for points that are staged or not yet collected
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
        rewriting: Rewriting | None = None,
        results: ResultCache | None = None,
    ) -> None:
        self.database, self.collections, self.store, self.embedding = database, collections, store, embedding
        self.clock, self.reranking, self.rewriting = clock, reranking, rewriting
        self.results = results or ResultCache(0)
        self.calibration = calibration_of(embedding.model.fingerprint)
        self.statistics = TermStatistics()

    def for_tenant(self, scope: Reader, meter: Meter, llm: BookedMeter | None = None) -> TenantRetriever:
        """`llm`: what pays the language model, if not the tenant alone."""
        return TenantRetriever(self, scope, meter, llm)


class TenantRetriever:
    def __init__(self, retriever: Retriever, scope: Reader, meter: Meter, llm: BookedMeter | None) -> None:
        self._parts, self._scope, self._meter, self._llm = retriever, scope, meter, llm

    def query(self, question: Question, *, charge_id: str) -> Answer:
        watch, now = Stopwatch(), self._parts.clock()
        where = self._where_or_default(question)
        if not where.collections:  # nothing is attached to the session, and nothing else is asked
            return Answer((), 0, 0, {}, timings(watch, None))
        question = replace(question, filter=where.filter)
        mode = mode_of(question, where.profiles, self._parts.rewriting)
        watch.lap("collections")
        asked = self._parts.results.asked(self._scope, question, where.collections)
        if (known := asked.known()) is not None:
            if known.tokens:
                self._meter.saved(known.tokens, 0, len(question.phrasings))
            return known_answer(question, known, None, where, watch)
        words = words_of(question, where.statistics)
        watch.lap("words")
        embedded, degraded = self._embed(question, charge_id, words)
        watch.lap("embedding")
        if embedded is not None and (known := asked.like(embedded.vectors)) is not None:
            return known_answer(question, known, embedded, where, watch)
        reworded = self._reworded(question, embedded, mode, charge_id, watch)
        if reworded.question is not question:
            words = words_of(reworded.question, where.statistics)
        answer = self._searched(question, where, reworded, words, watch, now, charge_id)
        return asked.keep(replace(answer, degraded=degraded + answer.degraded), embedded)

    def again(self, question: Question, once: Again, *, charge_id: str) -> Answer:
        """The same question once more, past everything that is kept of answers. It is not worded anew: `question` has the
        phrasings that it was searched by. With the vectors of then it costs no tokens, but for reranking."""
        watch = Stopwatch()
        where = self._where(question)
        if once.profile is not None:
            where = replace(where, profiles=[self._parts.collections.profiles.get(once.profile)] * len(where.profiles))
        question = replace(question, filter=where.filter)
        watch.lap("collections")
        words = words_of(question, where.statistics)
        watch.lap("words")
        given = None if once.vectors is None else Embedded(once.vectors, 0, 0, 0)
        embedded, degraded = (given, ()) if given is not None else self._embed(question, charge_id, words)
        watch.lap("embedding")
        answer = self._searched(question, where, Reworded(question, embedded), words, watch, once.at, charge_id)
        return replace(answer, degraded=degraded + answer.degraded)

    def _searched(
        self,
        question: Question,
        where: Where,
        reworded: Reworded,
        words: Sequence[Mapping[str, SparseVector]],
        watch: Stopwatch,
        now: int,
        charge_id: str,
    ) -> Answer:
        """From the engine to the answer. `now`: the time that ages are counted from."""
        legs = legs_of(where, reworded.embedded, words)
        tunings = tunings_of(question, where.collections)
        fusion = _fusion(question, where, tunings)
        reranking, spared = self._reranking(question, where)
        vectors = self._parts.store.for_tenant(self._scope, self._parts.embedding.space)
        reranks = reranking.candidates if reranking else 0
        depth = question.wishes.depth(question.top_k, reranks=reranks, tuned=bool(tunings))
        found = Found(limit=max(fusion.candidates, 2 * depth) + SPARE_HITS, now=now)
        self._search(reworded.question, legs, fusion, vectors, depth, tunings, found, watch)
        arranger = Arranger(self._parts.database, self._scope, self._meter)
        arranged = arranger.arrange(question, found.passages, vectors, reranking, charge_id=charge_id)
        watch.lap("arranging")
        unheard = ("lexical",) if question.mode != "dense" and uncounted(where, found.passages) else ()
        parts = reworded.explained, legs, fusion, reworded.embedded, found, arranged, watch
        vectors_asked = None if reworded.embedded is None else reworded.embedded.vectors
        return Answer(
            passages=tuple(arranged.passages),
            charged=reworded.embedded.charged if reworded.embedded else 0,
            cached=reworded.embedded.cached if reworded.embedded else 0,
            generations=where.generations,
            timings_ms=timings(watch, reworded.embedded),
            rerank_tokens=arranged.rerank_tokens,
            llm_tokens=reworded.tokens,
            degraded=unheard + reworded.degraded + spared + arranged.degraded,
            explanation=explained(question, *parts) if question.explain else None,
            searched=Searched(reworded.question.phrasings, vectors_asked, now, tuple(where.settings), tuple(found.ranked)),
        )

    def _reworded(
        self, question: Question, embedded: Embedded | None, mode: Rewrite, charge_id: str, watch: Stopwatch
    ) -> Reworded:
        rewriting, llm = self._parts.rewriting, self._llm
        if mode == "none" or rewriting is None:
            return Reworded(question, embedded)
        if llm is not None:
            rewriting = replace(rewriting, meter_of=lambda _scope: llm)
        rewording = Rewording(rewriting, self._parts.embedding, self._scope, self._meter)
        reworded = rewording.apply(question, embedded, mode, charge_id)
        watch.lap("rewriting")
        return reworded

    def _reranking(self, question: Question, where: Where) -> tuple[Reranking | None, tuple[str, ...]]:
        """If there is a reranker, and the question wants it, or says nothing and every collection's profile does; and what is
        left out because the budget nears its end."""
        if self._parts.reranking is None or question.rerank is False:
            return None, ()
        if not (question.rerank or all(profile.rerank for profile in where.profiles)):
            return None, ()
        return (None, ("budget",)) if self._meter.strained() else (self._parts.reranking, ())

    def _where_or_default(self, question: Question) -> Where:
        try:
            return self._where(question)
        except NotFound:
            if DEFAULT not in question.collections:
                raise
            self._parts.collections.for_tenant(self._scope).ensure_default()
            return self._where(question)

    def _where(self, question: Question) -> Where:
        if question.wishes.min_relevance is not None and self._parts.calibration is None:
            raise InvalidInput("The loaded model's scores were not measured: it has no relevance.", field="min_relevance")
        with self._parts.database.read(self._scope) as session:
            found = self._parts.collections.for_tenant(self._scope).find_all(session, question.collections)
            if question.as_of is not None:
                require_kept(found, question.as_of, self._parts.clock())
            if question.session is not None:
                now, space = self._parts.clock(), self._parts.embedding.space
                found = [*found, *attached_to(session, self._scope, question.session, space=space, now=now)]
            statistics = {} if question.mode == "dense" else self._parts.statistics.of(session, found)
            filter_ = None if question.filter is None else typed(question.filter, [row.attribute_types for row in found])
            profiles = [self._parts.collections.profiles.get(row.profile) for row in found]
            return Where(found, filter_, self._condition(session, filter_, found), statistics, profiles)

    def _condition(self, session: Session, filter_: Filter | None, found: Sequence[Collection]) -> Condition | None:
        parts: list[Condition] = []
        if self._scope.labels is not None:
            parts.append(OnlyOf("labels", tuple(sorted(self._scope.labels))))
        if filter_ is not None:
            # Each collection maps its numeric attributes to slots of its own.
            slots = numeric_slots(session, [row.id for row in found])
            each = (AllOf((AnyOf("collection", (i,)), compile_filter(filter_, slots[i]))) for i in slots)
            parts.append(SomeOf(tuple(each)))
        return AllOf(tuple(parts)) if parts else None

    def _embed(
        self, question: Question, charge_id: str, words: Sequence[Mapping[str, SparseVector]]
    ) -> tuple[Embedded | None, tuple[str, ...]]:
        """Without vectors, words have to do, if there are any."""
        if question.mode == "lexical":
            return None, ()
        try:
            return self._parts.embedding.embed_queries(self._scope, self._meter, question.phrasings, charge_id=charge_id), ()
        except Unavailable:
            if not any(words):
                raise
            return None, ("dense",)

    def _search(
        self,
        question: Question,
        legs: Sequence[Legs],
        fusion: Fusion,
        vectors: TenantVectors,
        depth: int,
        tunings: Mapping[str, Tuning],
        found: Found,
        watch: Stopwatch,
    ) -> None:
        """Ask for more as long as dropped hits leave the answer short and the engine may have others."""
        hydrator = Hydrator(self._scope, legs[0].names, question.filter, self._parts.calibration, Moment(question.as_of))
        unspaced = [has_unspaced(text) for text in question.phrasings]
        while True:
            found.rounds += 1
            found.legs = alike([each.search(vectors, found.limit) for each in legs])
            watch.lap("engine")
            rankings = [fuse(each, fusion, unspaced=script) for each, script in zip(found.legs, unspaced, strict=True)]
            if fusion.support and fusion.method == "score" and all(len(each) > 1 for each in found.legs):
                near = vectors.vectors(sorted({each.id for ranking in rankings for each in ranking[:SUPPORTED]}))
                rankings = [supported(ranking, near, fusion.support) for ranking in rankings]
            found.ranked = best_of(rankings)
            watch.lap("fusion")
            found.dropped = Counter[str]()
            found.passages, enough = self._hydrate(question, hydrator, found, depth, tunings)
            watch.lap("hydration")
            if enough or not self._more(question, found) or found.limit == MAX_LIMIT or found.rounds == MAX_ROUNDS:
                return
            found.limit = min(found.limit * 8, MAX_LIMIT)

    def _more(self, question: Question, found: Found) -> bool:
        """Whether the engine may have others that count: by relevance, none whose cosine is less than that of one too low."""
        least, calibration = question.wishes.min_relevance, self._parts.calibration
        cut_off = [leg for each in found.legs for leg in each if leg.cut_off]
        if least is None or calibration is None:
            return bool(cut_off)
        return any(leg.name == "dense" and calibration.of(leg.hits[-1].score) >= least for leg in cut_off)

    def _hydrate(
        self, question: Question, hydrator: Hydrator, found: Found, depth: int, tunings: Mapping[str, Tuning]
    ) -> tuple[list[Passage], bool]:
        """The best that SQL confirms, thinned, and whether they are `depth` or more, of enough documents. SQL is asked for few
        at first, because as a rule it confirms nearly all."""
        confirmed: list[Passage] = []
        passages: list[Passage] = []
        at, many, enough = 0, depth + SPARE_HITS, False
        with self._parts.database.read(self._scope) as session:
            while at < len(found.ranked) and not enough:
                confirmed += hydrator.passages(session, found.ranked[at : at + many], found.dropped)
                at, many = at + many, many * 4
                passages = thinned(best_of_each(confirmed), question.wishes, found.now, tunings)
                enough = len(passages) >= depth and (not question.wishes.group or _documents(passages) >= question.top_k)
        if len(passages) < len(confirmed):
            found.dropped["thinned"] = len(confirmed) - len(passages)
        return passages, enough


def _documents(passages: Sequence[Passage]) -> int:
    return len({passage.document_id for passage in passages})


def _fusion(question: Question, where: Where, tunings: Mapping[str, Tuning]) -> Fusion:
    first, weight = where.collections[0].name, question.dense_weight
    if weight is None and first in tunings:
        weight = tunings[first].dense_weight
    fusion = where.profiles[0].fusion
    return fusion if weight is None else fusion.weighing(weight)
