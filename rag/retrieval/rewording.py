"""A question is worded anew by a language model before it is searched for. What the model says is only searched for: filter,
labels, collections and the text that passages are reranked by stay as they were asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from config.errors import BudgetExhausted, InvalidInput, Unavailable
from config.profiles import Rewrite
from rag.embedding.runtime import Matrix
from rag.embedding.service import Embedded, EmbeddingService
from rag.llm.rewriting import Rewriting, Rewritten
from rag.profiles import NamedProfile
from rag.retrieval.explanation import ExplainedRewrite
from rag.retrieval.question import MAX_PHRASINGS, Question
from rag.types import Meter, Reader


def mode_of(question: Question, profiles: Sequence[NamedProfile], rewriting: Rewriting | None) -> Rewrite:
    """As the question says, else as the profiles of all its collections do. Raise InvalidInput for what cannot be done."""
    said = question.rewrite
    if said not in (None, "none") and rewriting is None:
        raise InvalidInput("No language model is configured: the operator sets CARREL_LLM_URL.", field="rewrite")
    if said == "hyde" and question.mode == "lexical":
        raise InvalidInput("`hyde` looks for what means the same, and `lexical` for words only.", field="rewrite")
    if said is not None or rewriting is None:
        return said or "none"
    modes = {profile.rewrite for profile in profiles}
    return modes.pop() if len(modes) == 1 and not (modes == {"hyde"} and question.mode == "lexical") else "none"


@dataclass(frozen=True, slots=True)
class Reworded:
    """What is searched for instead, and what it took."""

    question: Question
    embedded: Embedded | None
    explained: ExplainedRewrite | None = None  #: None: it is as it was asked
    tokens: int = 0  #: of the language model, charged
    degraded: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Rewording:
    rewriting: Rewriting
    embedding: EmbeddingService
    scope: Reader
    meter: Meter

    def apply(self, question: Question, embedded: Embedded | None, mode: Rewrite, charge_id: str) -> Reworded:
        """`embedded`: the vectors of its phrasings, None without the dense leg. A late or failing model changes nothing."""
        as_asked, room = Reworded(question, embedded), MAX_PHRASINGS - len(question.phrasings)
        if mode == "none" or (embedded is None if mode == "hyde" else room < 1):
            return as_asked
        rewritten = self.rewriting.apply(self.scope, mode, question.phrasings, room=room, charge_id=charge_id)
        as_asked = replace(as_asked, tokens=rewritten.charged, degraded=() if rewritten.done else ("rewrite",))
        if not rewritten.texts:
            return as_asked
        try:
            more = None if embedded is None else self._embed(rewritten, charge_id)
        except (BudgetExhausted, Unavailable):
            return replace(as_asked, degraded=("rewrite",))
        searched = question if mode == "hyde" else replace(question, others=(*question.others, *rewritten.texts))
        together = None if embedded is None or more is None else _together(embedded, more, mode)
        return replace(as_asked, question=searched, embedded=together, explained=ExplainedRewrite(mode, rewritten.texts))

    def _embed(self, rewritten: Rewritten, charge_id: str) -> Embedded:
        return self.embedding.embed_queries(self.scope, self.meter, rewritten.texts, charge_id=f"{charge_id}:rewrite")


def _together(embedded: Embedded, more: Embedded, mode: Rewrite) -> Embedded:
    return replace(
        embedded,
        vectors=_towards(embedded.vectors, more.vectors) if mode == "hyde" else np.vstack((embedded.vectors, more.vectors)),
        charged=embedded.charged + more.charged,
        cached=embedded.cached + more.cached,
        model_s=embedded.model_s + more.model_s,
    )


def _towards(vectors: Matrix, passage: Matrix) -> Matrix:
    """The first one halfway to the passage that might answer (Gao et al., 2023, who average it with the question too)."""
    moved, middle = vectors.copy(), vectors[0] + passage[0]
    length = float(np.linalg.norm(middle))
    if length > 0:
        moved[0] = middle / length
    return moved
