"""Rewriting as a step of a question: budgeted, bound to a deadline, and left out rather than waited for."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from config.errors import BudgetExhausted
from config.profiles import Rewrite
from rag.llm.base import CompletionFailed, LanguageModel
from rag.llm.wording import MAX_ANSWER_TOKENS, MAX_REWRITES, NotUnderstood, instruction, texts_of
from rag.types import Meter, Scope

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Rewritten:
    texts: tuple[str, ...]  #: further phrasings; of `hyde` a passage that might answer
    charged: int  #: tokens of the language model
    done: bool  #: False: there was no answer, or none that can be used


@dataclass(frozen=True, slots=True)
class Rewriting:
    model: LanguageModel
    deadline_s: float
    meter_of: Callable[[Scope], Meter]  #: of a tenant, for what the language model costs

    def apply(self, scope: Scope, mode: Rewrite, asked: tuple[str, ...], *, room: int, charge_id: str) -> Rewritten:
        """Of the first of the phrasings that were asked. Held before and settled after; what the budget does not cover is left
        out."""
        meter, hold_id, count = self.meter_of(scope), f"{charge_id}:llm", 1 if mode == "hyde" else min(room, MAX_REWRITES)
        told = instruction(mode, count)
        most = self.model.count_tokens([told, asked[0]]) + MAX_ANSWER_TOKENS
        # What the same request paid before is less than `most`, up to which holding it again would charge.
        paid = meter.charged(hold_id)
        if not paid and meter.strained():  # near its end, the budget is for what cannot be done without
            return Rewritten((), 0, False)
        try:
            held = not paid and meter.hold(hold_id, most, started=True)
        except BudgetExhausted:
            return Rewritten((), 0, False)
        try:
            answer = self.model.complete(told, asked[0], max_tokens=MAX_ANSWER_TOKENS, deadline_s=self.deadline_s)
        except CompletionFailed as error:
            log.warning("rewriting was left out", extra={"model": self.model.name, "reason": str(error)})
            charged = meter.settle(hold_id, most) if held and error.began else paid
            if held and not error.began:
                meter.release(hold_id)
            return Rewritten((), charged, False)
        except Exception:
            if held:
                meter.release(hold_id)
            raise
        tokens = answer.tokens or self.model.count_tokens([told, asked[0], answer.text])
        charged = meter.settle(hold_id, min(most, tokens)) if held else paid
        try:
            return Rewritten(texts_of(mode, answer.text, asked=asked, count=count), charged, True)
        except NotUnderstood as error:
            log.warning("rewriting was left out", extra={"model": self.model.name, "reason": f"not understood: {error}"})
            return Rewritten((), charged, False)
