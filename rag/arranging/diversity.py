"""Maximal marginal relevance (Carbonell and Goldstein, 1998): each next passage is good, and unlike those before it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from rag.retrieval.question import Passage
from rag.store.base import Vector


def diverse(passages: Sequence[Passage], vectors: Mapping[str, Vector], balance: float, limit: int) -> list[Passage]:
    """`limit` of the passages, which come best first. `balance` 1: by rank alone; 0: by unlikeness alone.

    Ranks count from 0 for the last to 1 for the first candidate, so that they weigh alike whatever scores they come from.
    One whose vector is not known counts as unlike all others.
    """
    if not passages:
        return []
    ranks = np.array([passage.rank for passage in passages])
    spread = float(np.ptp(ranks))
    good = (ranks - ranks.min()) / spread if spread > 0 else np.ones(len(passages))
    likeness = _likeness(passages, vectors)
    nearest, left, chosen = np.zeros(len(passages)), np.ones(len(passages), bool), []
    for _ in range(min(limit, len(passages))):
        value = np.where(left, balance * good - (1 - balance) * nearest, -np.inf)
        best = int(np.argmax(value))  # of equals the first: ties are by rank, then by id
        chosen.append(passages[best])
        left[best] = False
        nearest = np.maximum(nearest, likeness[best])
    return chosen


def _likeness(passages: Sequence[Passage], vectors: Mapping[str, Vector]) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Cosines of each with each, shape (len(passages), len(passages))."""
    width = max((len(vector) for vector in vectors.values()), default=1)
    rows = np.stack([vectors.get(passage.id, np.zeros(width, np.float32)) for passage in passages]).astype(np.float64)
    return rows @ rows.T
