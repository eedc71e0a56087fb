"""One question to a language model that the tenant pays for: held before and settled after, and left out where the budget or
the model does not allow it.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from config.errors import BudgetExhausted
from rag.llm.base import CompletionFailed, LanguageModel
from rag.types import Meter

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Asked:
    text: str | None  #: None: there was no answer
    charged: int


def ask(model: LanguageModel, meter: Meter, told: str, text: str, *, max_tokens: int, deadline_s: float, hold_id: str) -> Asked:
    """What it says to `text` when told `told`."""
    most = model.count_tokens([told, text]) + max_tokens
    # What the same request paid before is less than `most`, up to which holding it again would charge.
    paid = meter.charged(hold_id)
    if not paid and meter.strained():  # near its end, the budget is for what cannot be done without
        return Asked(None, 0)
    try:
        held = not paid and meter.hold(hold_id, most, started=True)
    except BudgetExhausted:
        return Asked(None, 0)
    try:
        answer = model.complete(told, text, max_tokens=max_tokens, deadline_s=deadline_s)
    except CompletionFailed as error:
        log.warning("the language model was left out", extra={"model": model.name, "reason": str(error)})
        charged = meter.settle(hold_id, most) if held and error.began else paid
        if held and not error.began:
            meter.release(hold_id)
        return Asked(None, charged)
    except Exception:
        if held:
            meter.release(hold_id)
        raise
    tokens = answer.tokens or model.count_tokens([told, text, answer.text])
    return Asked(answer.text, meter.settle(hold_id, min(most, tokens)) if held else paid)
