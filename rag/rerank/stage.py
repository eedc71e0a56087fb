"""Reranking as a step of a question: budgeted, bound to a deadline, and left out rather than waited for."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

from config.errors import BudgetExhausted
from rag.arranging.thinning import in_order
from rag.rerank.base import Reranker, RerankFailed
from rag.retrieval.question import Passage
from rag.types import Meter

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Reranked:
    passages: list[Passage]
    charged: int
    done: bool  #: False: the passages are in the order they had


@dataclass(frozen=True, slots=True)
class Reranking:
    reranker: Reranker
    deadline_s: float
    candidates: int  #: passages that are looked at, or `top_k` where that is more

    def apply(self, meter: Meter, query: str, passages: Sequence[Passage], *, charge_id: str) -> Reranked:
        """What the budget does not cover is left out too: the question itself was paid for and is answered."""
        as_it_was = Reranked([*passages], 0, False)
        if not passages:
            return replace(as_it_was, done=True)
        texts = [f"{passage.title}\n\n{passage.text}" if passage.title else passage.text for passage in passages]
        hold_id, tokens = f"{charge_id}:rerank", self.reranker.count_tokens(query, texts)
        try:
            held = meter.hold(hold_id, tokens, started=True)  # False: paid for by the same request before
        except BudgetExhausted:
            return as_it_was
        try:
            scores = self.reranker.scores(query, texts, deadline_s=self.deadline_s)
        except RerankFailed as error:
            log.warning("reranking was left out", extra={"reranker": self.reranker.name, "reason": str(error)})
            charged = meter.settle(hold_id, tokens) if held and error.began else 0
            if held and not error.began:
                meter.release(hold_id)
            return replace(as_it_was, charged=charged)
        except Exception:
            if held:
                meter.release(hold_id)
            raise
        charged = meter.settle(hold_id, tokens) if held else meter.charged(hold_id)
        scored = [replace(passage, rerank_score=score) for passage, score in zip(passages, scores, strict=True)]
        return Reranked(in_order(scored), charged, True)
