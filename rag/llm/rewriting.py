"""Rewriting as a step of a question: budgeted, bound to a deadline, and left out rather than waited for."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from config.profiles import Rewrite
from rag.llm.asking import ask
from rag.llm.base import LanguageModel
from rag.llm.wording import MAX_ANSWER_TOKENS, MAX_REWRITES, NotUnderstood, instruction, texts_of
from rag.types import BookedMeter, Scope

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
    meter_of: Callable[[Scope], BookedMeter]  #: of a tenant, for what the language model costs

    def apply(self, scope: Scope, mode: Rewrite, asked: tuple[str, ...], *, room: int, charge_id: str) -> Rewritten:
        """Of the first of the phrasings that were asked. Held before and settled after; what the budget does not cover is left
        out."""
        meter, hold_id, count = self.meter_of(scope), f"{charge_id}:llm", 1 if mode == "hyde" else min(room, MAX_REWRITES)
        told = instruction(mode, count)
        answer = ask(
            self.model, meter, told, asked[0], max_tokens=MAX_ANSWER_TOKENS, deadline_s=self.deadline_s, hold_id=hold_id
        )
        if answer.text is None:
            return Rewritten((), answer.charged, False)
        try:
            return Rewritten(texts_of(mode, answer.text, asked=asked, count=count), answer.charged, True)
        except NotUnderstood as error:
            log.warning("rewriting was left out", extra={"model": self.model.name, "reason": f"not understood: {error}"})
            return Rewritten((), answer.charged, False)
