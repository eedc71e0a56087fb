"""An answer that was given is given again while nothing it was computed from has changed, without model, engine or budget.

It is known by tenant, question with all its options, its collections and the reader's labels; and it holds for these as their
rows were before the search, generation and all. Whoever asks has just read those rows: a write that is committed is seen.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from operator import attrgetter

import numpy as np

from rag.corpus import Collection
from rag.embedding.service import Embedded
from rag.result_shelves import Kept, Shelves, States
from rag.retrieval.question import Answer, Passage, Question, Searched
from rag.store.base import Vector
from rag.types import Reader

#: Every column, so that what a setting of a collection changes is never answered by what was before it.
_STATE = attrgetter(*(name for name in sorted(Collection.model_fields) if name not in ("tenant_id", "created_at")))


@dataclass(frozen=True, slots=True)
class Known:
    passages: tuple[Passage, ...]
    tokens: int  #: of the question that it answers
    similarity: float | None = None  #: of the question that was asked before to this one, where they are not equal
    searched: Searched | None = None


class ResultCache:
    """Of one process. `max_bytes` 0: nothing is kept."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._lock, self._shelves = threading.Lock(), Shelves(max_bytes)

    def asked(self, scope: Reader, question: Question, found: Sequence[Collection]) -> Asked:
        """`found`: the collections that were asked for, read just now."""
        return Asked(self, scope, question, found)

    def get(self, tenant_id: str, key: bytes, states: States) -> Kept | None:
        with self._lock:
            shelf = self._shelves.of(tenant_id, states)
            return None if shelf is None else shelf.get(key)

    def nearest(self, tenant_id: str, group: bytes, states: States, vector: Vector, least: float) -> Known | None:
        with self._lock:
            shelf = self._shelves.of(tenant_id, states)
            nearest = None if shelf is None else shelf.nearest(group, vector)
            if shelf is None or nearest is None or nearest[0] < least:
                return None
            kept = shelf.get(nearest[1])
            return None if kept is None else Known(kept.passages, kept.tokens, min(1.0, nearest[0]), kept.searched)

    def put(self, tenant_id: str, key: bytes, kept: Kept) -> None:
        with self._lock:
            self._shelves.put(tenant_id, key, kept)

    def forget(self, tenant_id: str | None) -> None:
        """Of a tenant of which something changed: it may be deleted. None: of every tenant."""
        with self._lock:
            self._shelves.drop(tenant_id)

    def held(self) -> dict[str, int]:
        """Bytes of each tenant's answers."""
        with self._lock:
            return {tenant_id: shelf.bytes for tenant_id, shelf in self._shelves}


class Asked:
    """A question at one moment of its collections."""

    def __init__(self, cache: ResultCache, scope: Reader, question: Question, found: Sequence[Collection]) -> None:
        self._cache, self._tenant_id = cache, scope.tenant_id
        # With recency an answer depends on the time that it is given at, and an explanation tells of a search. What is attached
        # to a session is to be gone with it, and a cache of another process would still hold it.
        tuned = question.tuned and any(row.tuning and row.tuning["parameters"].get("recency") for row in found)
        plain = question.wishes.recency is None and not tuned and question.session is None
        self._cached = cache.max_bytes > 0 and plain and not question.explain
        if not self._cached:
            return
        labels = None if scope.labels is None else sorted(scope.labels)
        self._states = {row.id: _STATE(row) for row in found}
        # By ids too: of a collection that was removed and made anew under its name, nothing would say that it was another.
        asker = labels, [*self._states]
        self._key = _digest(question, asker)
        self._least: float | None = None
        if not question.others and all(row.semantic_cache for row in found):
            self._least = max(row.semantic_threshold for row in found)
            self._group = _digest(replace(question, text="?"), asker)

    def known(self) -> Known | None:
        """The answer to this question."""
        kept = self._cache.get(self._tenant_id, self._key, self._states) if self._cached else None
        return None if kept is None else Known(kept.passages, kept.tokens, searched=kept.searched)

    def like(self, vectors: Vector) -> Known | None:
        """The answer to another question that is near enough to this one, where every collection allows that."""
        if not self._cached or self._least is None:
            return None
        return self._cache.nearest(self._tenant_id, self._group, self._states, _unit(vectors[0]), self._least)

    def keep(self, answer: Answer, embedded: Embedded | None) -> Answer:
        """Unless it is less than what was asked for."""
        if self._cached and not answer.degraded:
            tokens = embedded.tokens if embedded else 0
            group, vector = (self._group, _unit(embedded.vectors[0])) if embedded and self._least is not None else (None, None)
            searched = replace(answer.searched, ranked=()) if answer.searched else None
            self._cache.put(self._tenant_id, self._key, Kept(answer.passages, tokens, self._states, group, vector, searched))
        return answer


def _digest(question: Question, asker: object) -> bytes:
    """Representations, because 1, 1.0 and True are equal and filter differently."""
    return blake2b(repr((question, asker)).encode("utf-8", "surrogatepass"), digest_size=24).digest()


def _unit(vector: Vector) -> Vector:
    length = float(np.linalg.norm(vector))
    return np.asarray(vector / length if length > 0 else vector, np.float32)
