"""What is told of a question beside its passages: timings, and how the answer came to be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from rag.arranging.arranger import Arranged
from rag.embedding.service import Embedded
from rag.lexical.analysis import has_unspaced
from rag.ranking import Fusion, Leg, Ranked
from rag.result_cache import Known
from rag.retrieval.explanation import ExplainedPassage, ExplainedRewrite, Explanation
from rag.retrieval.legs import Legs
from rag.retrieval.question import Answer, Passage, Question, Searched
from rag.retrieval.stopwatch import Stopwatch
from rag.retrieval.where import Where
from rag.store.conditions import to_json

STAGES = ("engine", "fusion", "hydration", "arranging")


@dataclass(slots=True)
class Found:
    """What became of a search."""

    passages: list[Passage] = field(default_factory=list)
    legs: Sequence[Sequence[Leg]] = ()  #: of each phrasing
    ranked: Sequence[Ranked] = ()
    dropped: Counter[str] = field(default_factory=Counter)
    limit: int = 0
    rounds: int = 0
    now: int = 0  #: Unix milliseconds that ages are counted from


def known_answer(question: Question, known: Known, embedded: Embedded | None, where: Where, watch: Stopwatch) -> Answer:
    """`embedded`: None where the question itself was known, whose tokens cost nothing."""
    return Answer(
        passages=known.passages,
        charged=embedded.charged if embedded else 0,
        cached=embedded.cached if embedded else known.tokens,
        generations=where.generations,
        timings_ms=timings(watch, embedded),
        reused=True,
        similarity=known.similarity,
        searched=_searched(question, known, embedded),
    )


def _searched(question: Question, known: Known, embedded: Embedded | None) -> Searched | None:
    """Where it is another question's answer, with this one's own words and vectors."""
    if known.searched is None or embedded is None:
        return known.searched
    return replace(known.searched, phrasings=question.phrasings, vectors=embedded.vectors)


def timings(watch: Stopwatch, embedded: Embedded | None) -> dict[str, float]:
    taken = watch.total(collections=("collections", "words"), embedding=("embedding",), search=STAGES)
    rewriting = watch.each().get("rewriting")
    taken |= {} if rewriting is None else {"rewriting": rewriting}
    return {**taken, "model": round(embedded.model_s * 1000, 3) if embedded else 0.0}


def explained(
    question: Question,
    rewrite: ExplainedRewrite | None,
    legs: Sequence[Legs],
    fusion: Fusion,
    embedded: Embedded | None,
    found: Found,
    arranged: Arranged,
    watch: Stopwatch,
) -> Explanation:
    dense, lexical = fusion.weights(unspaced=has_unspaced(question.text))
    ranked = {each.id: each for each in found.ranked}
    answered = [passage for passage in arranged.passages if passage.id in ranked and passage.neighbour_of is None]
    first = found.legs[0]
    return Explanation(
        mode=question.mode,
        fusion=fusion,
        weights={"dense": dense, "lexical": lexical} if len(first) > 1 else {leg.name: 1.0 for leg in first},
        legs=tuple(part for own, of in zip(legs, found.legs, strict=True) for part in own.explained(of, found.limit)),
        rounds=found.rounds,
        condition=None if legs[0].condition is None else to_json(legs[0].condition),
        embedding="none" if embedded is None else "cache" if embedded.cached else "model",
        candidates=len(found.ranked),
        dropped={**found.dropped, "beyond_top_k": len(found.ranked) - len(answered) - found.dropped.total()},
        passages=tuple(ExplainedPassage(one.id, one.score, ranked[one.id].places, ranked[one.id].fused) for one in answered),
        timings_ms=watch.each(),
        rewrite=rewrite,
    )
