"""Figures of a ranking of documents against judgments. Pure.

A document's rank is that of its best passage. nDCG has the gain 2^relevance − 1 (Burges et al., 2005); recall is the
fraction of the relevant documents among the first k; MRR is one over the rank of the first relevant one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

Relevant = Mapping[str, int]  #: relevance by the document's external id; 1 and more is relevant
Qrels = Mapping[str, Relevant]  #: by the question's id
FIGURES = ("ndcg10", "recall5", "recall10", "recall100", "mrr10")


def figures_of(ranked: Sequence[str], relevant: Relevant) -> dict[str, float]:
    """Of one question."""
    recalls = {f"recall{k}": recall(ranked, relevant, k) for k in (5, 10, 100)}
    return {"ndcg10": ndcg(ranked, relevant, 10), **recalls, "mrr10": mrr(ranked, relevant, 10)}


def score(rankings: Mapping[str, Sequence[str]], qrels: Qrels) -> dict[str, float]:
    """Means over the questions; 0 where there are none."""
    each = [figures_of(ranked, qrels[question]) for question, ranked in rankings.items()]
    return {name: math.fsum(figures[name] for figures in each) / max(1, len(each)) for name in FIGURES}


def ndcg(ranked: Sequence[str], relevant: Relevant, k: int) -> float:
    ideal = _dcg(sorted(relevant.values(), reverse=True)[:k])
    return _dcg(relevant.get(document, 0) for document in ranked[:k]) / ideal if ideal else 0.0


def _dcg(gains: Iterable[int]) -> float:
    return sum((2.0**gain - 1) / math.log2(rank + 1) for rank, gain in enumerate(gains, 1))


def recall(ranked: Sequence[str], relevant: Relevant, k: int) -> float:
    return len(relevant.keys() & set(ranked[:k])) / len(relevant) if relevant else 0.0


def mrr(ranked: Sequence[str], relevant: Relevant, k: int) -> float:
    return next((1 / rank for rank, document in enumerate(ranked[:k], 1) if document in relevant), 0.0)
