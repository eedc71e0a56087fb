"""Texts become vectors, each paid for once: dedupe → cache → hold → model → settle → cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rag.embedding.cache import VectorCache, as_stored
from rag.embedding.runtime import Embedder, Matrix
from rag.store.base import Vector
from rag.types import Meter, Scope

ESTIMATE_PAGE = 500  # vectors in memory at a time: 0.8 MB of 384 dimensions


@dataclass(frozen=True, slots=True)
class Embedded:
    vectors: Matrix  #: shape (len(texts), dimensions)
    charged: int  #: tokens the model read for this call
    cached: int  #: tokens whose vectors were known
    deduplicated: int  #: tokens of texts that occur more than once in the call
    hits: int = 0  #: texts whose vectors were known; not counted where an earlier run of the same batch paid
    model_s: float = 0.0  #: of a question: how long the model worked on it


@dataclass(frozen=True, slots=True)
class Estimate:
    """Tokens of some texts: what embedding them now would charge, and what it would not."""

    to_embed: int
    cached: int
    deduplicated: int

    @property
    def total(self) -> int:
        return self.to_embed + self.cached + self.deduplicated


@dataclass(frozen=True, slots=True)
class _Plan:
    unique: list[str]
    tokens: dict[str, int]
    known: dict[str, Vector]
    missing: list[str]
    deduplicated: int

    @property
    def to_charge(self) -> int:
        return sum(self.tokens[text] for text in self.missing)

    @property
    def cached(self) -> int:
        return sum(self.tokens[text] for text in self.known)


class EmbeddingService:
    def __init__(self, embedder: Embedder, cache: VectorCache) -> None:
        self.model, self.space = embedder.model, embedder.model.fingerprint.space
        self._cache, self._embedder = cache, embedder

    def close(self) -> None:
        self._embedder.close()
        self._cache.close()

    def embed_query(self, scope: Scope, meter: Meter, text: str, *, charge_id: str) -> Embedded:
        """One text whose tokens are known beforehand: one conditional debit, refunded if the model fails."""
        plan = self._plan(scope, [text])
        if plan.missing:
            meter.debit(charge_id, plan.to_charge)
            try:
                embedding = self._embedder.embed([text], [plan.tokens[text]], urgent=True)
            except Exception:
                meter.refund(charge_id)
                raise
            vector = as_stored(embedding.vectors[0])
            self._cache.put(scope, self.space, {text: vector})
            return Embedded(vector[None], plan.to_charge, 0, 0, model_s=embedding.seconds)
        meter.saved(plan.cached, 0, hits=1)
        return Embedded(np.stack([plan.known[text]]), 0, plan.cached, 0)

    def embed_batch(
        self, scope: Scope, meter: Meter, texts: Sequence[str], *, hold_id: str, tokens: Sequence[int] | None = None
    ) -> Embedded:
        """One batch of a job. `hold_id` is the same whenever the same batch is tried again; `tokens` of each text, if known.

        `charged` is what the ledger says, whichever run paid. Savings are not counted here: the caller does that once it has
        kept the vectors.
        """
        plan = self._plan(scope, texts, tokens)
        cached, hits = plan.cached, len(plan.known)
        if plan.missing:
            charged, vectors = self._metered(meter, plan, hold_id)
            self._cache.put(scope, self.space, vectors)
            plan.known.update(vectors)
        else:
            charged = meter.charged(hold_id)
        matrix = np.stack([plan.known[text] for text in texts])
        return Embedded(matrix, charged, cached, plan.deduplicated, hits if charged == plan.to_charge else 0)

    def _metered(self, meter: Meter, plan: _Plan, hold_id: str) -> tuple[int, dict[str, Vector]]:
        if not meter.hold(hold_id, plan.to_charge, started=True):  # an earlier run paid, and died before it kept the vectors
            return meter.charged(hold_id), self._run_model(plan)
        try:
            vectors = self._run_model(plan)
        except Exception:
            meter.release(hold_id)
            raise
        return meter.settle(hold_id, plan.to_charge), vectors

    def _plan(self, scope: Scope, texts: Sequence[str], counts: Sequence[int] | None = None) -> _Plan:
        unique = list(dict.fromkeys(texts))
        if counts is None:
            tokens = dict(zip(unique, self.model.count_tokens(unique), strict=True))
        else:
            tokens = dict(zip(texts, counts, strict=True))
        found = self._cache.get(scope, self.space, unique)
        known = {text: vector for text, vector in zip(unique, found, strict=True) if vector is not None}
        return _Plan(
            unique=unique,
            tokens=tokens,
            known=known,
            missing=[text for text in unique if text not in known],
            deduplicated=sum(tokens[text] for text in texts) - sum(tokens.values()),
        )

    def _run_model(self, plan: _Plan) -> dict[str, Vector]:
        embedding = self._embedder.embed(plan.missing, [plan.tokens[text] for text in plan.missing])
        return {text: as_stored(vector) for text, vector in zip(plan.missing, embedding.vectors, strict=True)}

    def estimate(self, scope: Scope, texts: Sequence[str], tokens: Sequence[int]) -> Estimate:
        """What embedding these would charge. The model is not asked; the cache is, in pages, for a document's many vectors."""
        counts = dict(zip(texts, tokens, strict=True))
        unique, cached = list(counts), 0
        for at in range(0, len(unique), ESTIMATE_PAGE):
            page = unique[at : at + ESTIMATE_PAGE]
            found = self._cache.get(scope, self.space, page)
            cached += sum(counts[text] for text, vector in zip(page, found, strict=True) if vector is not None)
        total = sum(counts.values())
        return Estimate(total - cached, cached, sum(tokens) - total)
