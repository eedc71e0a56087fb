"""Fewer passages, the best of each kind: boosts, a threshold, nearly equal texts, and a cap for each document. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from rag.arranging.tuning import Tuning
from rag.arranging.wishes import Wishes
from rag.filters import matches
from rag.retrieval.question import Passage

NOT_TUNED: Mapping[str, Tuning] = MappingProxyType({})
DAY_MS = 24 * 3600 * 1000
#: Shared part of all their shingles from which on two texts are one: a changed number in 100 words leaves 0.94.
NEARLY_EQUAL = 0.85
MAX_COMPARED = 300  # passages that were kept, with which each further one is compared: 2 µs a pair
#: A word, or one character of scripts that put no blanks between words.
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\uac00-\ud7af]|[^\W\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+")

Shingles = frozenset[int]


def in_order(passages: Sequence[Passage]) -> list[Passage]:
    """Best first, ties by id."""
    return sorted(passages, key=lambda passage: (-passage.rank, passage.id))


def thinned(passages: Sequence[Passage], wishes: Wishes, now: int, tunings: Mapping[str, Tuning] = NOT_TUNED) -> list[Passage]:
    """Best first, as the wishes and the tunings of their collections boost them. `now`: Unix milliseconds."""
    if wishes.boosts or wishes.recency or tunings:
        passages = in_order([replace(passage, boost=_boost(passage, wishes, tunings, now)) for passage in passages])
    if (least := wishes.min_relevance) is not None:
        passages = [passage for passage in passages if (passage.relevance or 0.0) >= least]
    if wishes.collapse:
        passages = _collapsed(passages)
    return _capped(passages, wishes.cap) if wishes.cap is not None else [*passages]


def _boost(passage: Passage, wishes: Wishes, tunings: Mapping[str, Tuning], now: int) -> float:
    tuning = tunings.get(passage.collection)
    return _wished(passage, wishes, now) + (_wished(passage, tuning.wishes, now) if tuning else 0.0)


def _wished(passage: Passage, wishes: Wishes, now: int) -> float:
    total = sum(boost.weight for boost in wishes.boosts if matches(boost.filter, passage.attributes))
    if recency := wishes.recency:
        age_days = max(0, now - passage.created_at) / DAY_MS
        total += recency.weight * 0.5 ** (age_days / recency.half_life_days)
    return total


def _capped(passages: Sequence[Passage], cap: int) -> list[Passage]:
    taken: Counter[str] = Counter()
    kept = []
    for passage in passages:
        taken[passage.document_id] += 1
        if taken[passage.document_id] <= cap:
            kept.append(passage)
    return kept


def _collapsed(passages: Sequence[Passage]) -> list[Passage]:
    kept: list[Passage] = []
    known: list[Shingles] = []
    for passage in passages:
        own = shingles(passage.text)
        if not any(similar(own, other) for other in known[:MAX_COMPARED]):
            kept.append(passage)
            known.append(own)
    return kept


def shingles(text: str) -> Shingles:
    """Hashes of each three words in a row; of fewer words, of all of them."""
    words = _WORD.findall(text.casefold())
    if len(words) < 3:
        return frozenset((hash(tuple(words) or text),))
    return frozenset(map(hash, zip(words, words[1:], words[2:], strict=False)))


def similar(one: Shingles, other: Shingles) -> bool:
    """Whether the texts are nearly equal: by Jaccard's measure."""
    few, many = sorted((len(one), len(other)))
    if few < NEARLY_EQUAL * many:
        return False
    shared = len(one & other)
    return shared >= NEARLY_EQUAL * (few + many - shared)
