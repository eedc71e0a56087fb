"""Two rankings become one: of scores that mean different things, or of ranks alone. Pure; ties go by id."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from rag.store.base import Hit, Vector

RRF_K = 60  # of Cormack, Clarke and Büttcher, 2009
SUPPORTED, NEIGHBOURS = 30, 5  # candidates whose neighbours among them are looked at; 20 lost 0.003, 50 gained nothing


@dataclass(frozen=True, slots=True)
class Fusion:
    method: Literal["score", "rrf"] = "score"
    dense_weight: float = 0.7  #: of 1; the rest is the lexical leg's
    #: For questions in scripts without blanks between words, which embedding models know less well.
    unspaced_dense_weight: float = 0.5
    candidates: int = 50  #: of each leg, at least; twice as many passages as are wanted, if that is more
    support: float = 0.2  #: of 1, of two legs fused by score: what a candidate's nearest other candidates have of its score

    def weighing(self, dense_weight: float) -> Fusion:
        """The same with this weight for questions in any script."""
        return replace(self, dense_weight=dense_weight, unspaced_dense_weight=dense_weight)

    def weights(self, *, unspaced: bool) -> tuple[float, float]:
        dense = self.unspaced_dense_weight if unspaced else self.dense_weight
        return dense, 1 - dense


@dataclass(frozen=True, slots=True)
class Leg:
    """What one way of searching found, best first."""

    name: Literal["dense", "lexical"]
    hits: Sequence[Hit]
    cut_off: bool  #: whether there may be more


@dataclass(frozen=True, slots=True)
class Place:
    """Of a chunk in one leg."""

    rank: int  #: 1 is the best
    score: float


@dataclass(frozen=True, slots=True)
class Ranked:
    id: str
    score: float
    places: dict[str, Place]  #: by leg, of those that found it
    fused: float | None = None  #: its score without the support of others, where it has some


def fuse(legs: Sequence[Leg], fusion: Fusion, *, unspaced: bool = False) -> list[Ranked]:
    """Best first. One leg alone keeps its scores."""
    places: dict[str, dict[str, Place]] = {}
    for leg in legs:
        for rank, hit in enumerate(leg.hits, 1):
            places.setdefault(hit.id, {})[leg.name] = Place(rank, hit.score)
    if len(legs) < 2:
        scores = {chunk: of[legs[0].name].score for chunk, of in places.items()}
    else:
        dense, lexical = sorted(legs, key=lambda leg: leg.name)
        rule = _by_ranks if fusion.method == "rrf" else _by_scores
        scores = rule(dense, lexical, places, fusion.weights(unspaced=unspaced))
    ranked = (Ranked(chunk, scores[chunk], of) for chunk, of in places.items())
    return sorted(ranked, key=lambda each: (-each.score, each.id))


def best_of(rankings: Sequence[Sequence[Ranked]]) -> Sequence[Ranked]:
    """Of several phrasings: each chunk by the one that it is best for, best first. Not by the sum, in which what is half near
    to all would pass what answers one."""
    if len(rankings) == 1:
        return rankings[0]
    best: dict[str, Ranked] = {}
    for hit in (hit for ranking in rankings for hit in ranking):
        if hit.id not in best or best[hit.id].score < hit.score:
            best[hit.id] = hit
    return sorted(best.values(), key=lambda each: (-each.score, each.id))


def supported(ranked: Sequence[Ranked], vectors: Mapping[str, Vector], weight: float) -> list[Ranked]:
    """What lies among good candidates is good: `(1 − w)·score + w·mean score of the nearest candidates, by cos³`.

    `vectors`: of the first SUPPORTED at least; those without one, and all that follow, keep their scores (Diaz, 2005,
    on regularising scores by what is near).
    """
    known = [each for each in ranked[:SUPPORTED] if each.id in vectors]
    if len(known) < 2:
        return [*ranked]
    rows = np.stack([vectors[each.id] for each in known]).astype(np.float64)
    likeness = rows @ rows.T
    np.fill_diagonal(likeness, -np.inf)
    nearest = np.argsort(-likeness, axis=1, kind="stable")[:, : min(NEIGHBOURS, len(known) - 1)]
    weights = np.maximum(np.take_along_axis(likeness, nearest, 1), 1e-3) ** 3
    scores = np.array([each.score for each in known])
    means = (weights * scores[nearest]).sum(1) / weights.sum(1)
    moved = dict(zip((each.id for each in known), ((1 - weight) * scores + weight * means).tolist(), strict=True))
    found = (replace(each, score=moved[each.id], fused=each.score) if each.id in moved else each for each in ranked)
    return sorted(found, key=lambda each: (-each.score, each.id))


Places = dict[str, dict[str, Place]]


def _by_scores(dense: Leg, lexical: Leg, places: Places, weights: tuple[float, float]) -> dict[str, float]:
    """`w·(cos + 1)/(best cos + 1) + (1 − w)·lexical/best lexical`: a leg that finds everything alike decides little.

    What one leg did not find counts there as its last hit, the most that it can have; its own score is not asked for.
    """
    best = 1 + (dense.hits[0].score if dense.hits else 0.0)
    lowest = 1 + (dense.hits[-1].score if dense.hits and dense.cut_off else -1.0)
    most = lexical.hits[0].score if lexical.hits else 1.0
    least = lexical.hits[-1].score if lexical.hits and lexical.cut_off else 0.0
    scores = {}
    for chunk, of in places.items():
        cosine = 1 + of["dense"].score if "dense" in of else lowest
        words = of["lexical"].score if "lexical" in of else least
        scores[chunk] = weights[0] * cosine / max(best, 1e-6) + weights[1] * words / most
    return scores


def _by_ranks(dense: Leg, lexical: Leg, places: Places, weights: tuple[float, float]) -> dict[str, float]:
    """Weighted reciprocal ranks, 1 for what is first in both."""
    of_legs = ((dense.name, weights[0]), (lexical.name, weights[1]))
    return {
        chunk: sum(weight * (RRF_K + 1) / (RRF_K + of[name].rank) for name, weight in of_legs if name in of)
        for chunk, of in places.items()
    }
