"""BM25 as the dot product of two sparse vectors: the chunk's holds how much of each feature there is, the query's how rare.

A chunk's vector is made once, so nothing in it may depend on other chunks: its length is compared with a fixed one. How
rare a feature is follows from the collection's counts when a question comes.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from rag.lexical.analysis import BESIDE, analyse, runs, term_of
from rag.lexical.languages import STOP_WORDS, hits_of
from rag.lexical.statistics import Statistics, terms_of
from rag.store.base import SparseVector

K1, B = 1.2, 0.75
PIVOT_WORDS = 90.0  #: how long a chunk is whose length changes nothing; of 212 tokens, with its title
TITLE = 2  #: a word of the title or of a heading counts as so many
MAX_FEATURES = 96  #: of a question, the rarest: a long one costs no more than these
MAX_REPEATS = 2  #: of a word in a question, that count
MAX_LANGUAGES = 4  #: of a collection, the commonest


@dataclass(frozen=True, slots=True)
class EncodedChunk:
    sparse: SparseVector
    terms: bytes  #: what it adds to its collection's counts


def encode_chunk(context: str, text: str) -> EncodedChunk:
    """`context`: title and headings, in whatever language the text is."""
    body = analyse(runs(text))
    head = analyse(runs(context), body.language)
    counts = Counter(body.counts)
    for feature, count in head.counts.items():
        counts[feature] += TITLE * count
    terms = terms_of(counts, body.language)
    norm = K1 * (1 - B + B * (len(body.words) + TITLE * len(head.words)) / PIVOT_WORDS)
    values = [count * (K1 + 1) / (count + norm) for count in counts.values()]
    return EncodedChunk(SparseVector(tuple(counts), tuple(values)), terms)


def encode_query(text: str, statistics: Statistics) -> SparseVector:
    """What to search this collection for; empty where it has none of the words.

    A question is too short to tell its language by, so its words are read in each language that the collection has.
    """
    languages = statistics.languages()[:MAX_LANGUAGES]
    wanted = [_wanted(run, repeats, languages) for run, repeats in _content(runs(text)).items()]
    weights = _weigh(wanted, statistics)
    kept = sorted(weights, key=lambda feature: (-weights[feature], feature))[:MAX_FEATURES]
    return SparseVector(tuple(kept), tuple(weights[feature] for feature in kept))


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What one run of a question is looked up by."""

    repeats: int
    words: dict[int, set[int]] = field(default_factory=dict)  #: by place in the run: as each language makes a feature of it
    beside: set[int] = field(default_factory=set)

    @property
    def features(self) -> set[int]:
        return self.beside.union(*self.words.values())


def _wanted(run: str, repeats: int, languages: Sequence[str]) -> _Wanted:
    wanted = _Wanted(repeats)
    for language in languages:
        term = term_of(run, language)
        for place, feature in enumerate(term.words):
            wanted.words.setdefault(place, set()).add(feature)
        wanted.beside.update(term.beside)
    return wanted


def _content(found: Sequence[str]) -> dict[str, int]:
    """How often each word is there, up to MAX_REPEATS; without stop words of the languages that the question may be in.

    Read in any other they would be rare words.
    """
    hits = hits_of(run.lower() for run in found)
    stop = {word for language, count in hits.items() if 2 * count >= max(hits.values()) for word in STOP_WORDS[language]}
    counted = Counter(run for run in found if run.lower() not in stop)
    return {run: min(count, MAX_REPEATS) for run, count in counted.items()}


def _weigh(wanted: Sequence[_Wanted], statistics: Statistics) -> dict[int, float]:
    """Each feature's weight by Robertson's IDF, of those that the collection has."""
    chunks = max(0, statistics.chunks)
    features = sorted({feature for each in wanted for feature in each.features})
    found = dict(zip(features, statistics.frequencies(features).tolist(), strict=True))
    weights: dict[int, float] = {}

    def weigh(feature: int, weight: float) -> None:
        if found[feature] > 0:
            weights[feature] = max(weights.get(feature, 0.0), weight)

    def rarity(count: int) -> float:
        """Counts can be wrong, and below zero, until a repair has been there."""
        known = min(max(count, 0), chunks)
        return math.log1p((chunks - known + 0.5) / (known + 0.5))

    for each in wanted:
        # A word is as rare as its features are together: in a language that few chunks are in, every word is a rare one.
        together = {place: sum(map(found.__getitem__, of)) for place, of in each.words.items()}
        for place, of in each.words.items():
            for feature in of:
                weigh(feature, each.repeats * rarity(together[place]))
        most = rarity(min(filter(None, together.values()), default=0))
        for feature in each.beside:
            weigh(feature, BESIDE * each.repeats * min(most, rarity(found[feature])))
    return weights
