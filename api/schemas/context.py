"""A packed context and a passage in its text, as they are on the wire."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pydantic import BaseModel, Field

from api.schemas.explain import ExplanationOut
from api.schemas.query import CACHED, DEGRADED, SEMANTIC, TRACED, PassageOut, QueryIn, QueryUsage, ReuseOut
from api.schemas.session_contexts import ConversingIn, ConversingOut
from ingestion.intake.passages import Shown
from rag.context.contexts import SessionContext
from rag.packing.counting import TokenizerName
from rag.packing.packing import MAX_BUDGET, Packed
from rag.packing.rendering import Citation
from rag.retrieval.question import MAX_TOP_K, Answer, Question
from rag.tokens import count_tokens

DEFAULT_BUDGET, DEFAULT_TOP_K = 2_000, 20


class ContextIn(ConversingIn, QueryIn):
    top_k: int = Field(DEFAULT_TOP_K, ge=1, le=MAX_TOP_K, description="Passages that are tried, best first.")
    max_tokens: int = Field(DEFAULT_BUDGET, ge=1, le=MAX_BUDGET, description="Of the whole text, which never has more.")
    tokenizer: TokenizerName = Field(
        "o200k_base", description="By which they are counted; `embedding` is that of the loaded embedding model."
    )

    def asking(self, text: str) -> Question:
        """As it says, and if it says no question, this one."""
        asks = self.query is not None or self.queries
        return self.question() if asks else self.model_copy(update={"query": text}).question()


class CitationOut(PassageOut):
    """`text` of the answer, from `context_start` to `context_end`, shows characters `start` to `end` of the document."""

    number: int = Field(description="The `id` of the element in the text.")
    context_start: int
    context_end: int

    @classmethod
    def shown(cls, citation: Citation) -> CitationOut:
        passage = citation.passage
        shown: dict[str, Any] = {"start": citation.start, "end": citation.end}
        shown["text"] = passage.text[citation.start - passage.start : citation.end - passage.start]
        if shown["text"] != passage.text:
            shown["tokens"] = count_tokens(shown["text"])
        places = {name: getattr(citation, name) for name in ("number", "context_start", "context_end")}
        return cls(**(cls.fields_of(passage) | shown | places))


class ContextOut(ConversingOut):
    text: str
    tokens: int = Field(description="Of the text, by `tokenizer`; never more than `max_tokens`.")
    max_tokens: int
    tokenizer: TokenizerName
    citations: list[CitationOut]
    left_out: int = Field(description="Passages that were found and did not fit.")
    usage: QueryUsage
    degraded: list[str] = Field(description=DEGRADED)
    cached: bool = Field(False, description=CACHED)
    semantic_cache: ReuseOut | None = Field(None, description=SEMANTIC)
    timings_ms: dict[str, float]
    explanation: ExplanationOut | None = Field(None, description="With `explain`.")
    trace_id: str | None = Field(None, description=TRACED)

    @classmethod
    def of(cls, packed: Packed, answer: Answer, asked: ContextIn, *, trace_id: str | None = None) -> ContextOut:
        return cls(
            text=packed.text,
            tokens=packed.tokens,
            max_tokens=asked.max_tokens,
            tokenizer=asked.tokenizer,
            citations=[CitationOut.shown(citation) for citation in packed.citations],
            left_out=packed.left_out,
            usage=QueryUsage.of(answer, packed.tokens),
            degraded=list(answer.degraded),
            cached=answer.reused,
            semantic_cache=ReuseOut.of(answer),
            timings_ms=dict(answer.timings_ms),
            explanation=None if answer.explanation is None else ExplanationOut.of(answer.explanation),
            trace_id=trace_id,
        )

    @classmethod
    def of_session(cls, context: SessionContext, asked: ContextIn, *, trace_id: str | None) -> ContextOut:
        packed, answer = context.conversation, context.answer or Answer((), 0, 0, {})
        documents = replace(packed.chosen.documents, text=packed.composed.text, tokens=packed.tokens)
        shown = cls.of(replace(documents, citations=packed.composed.citations), answer, asked, trace_id=trace_id)
        shown.usage.embedding_tokens += context.charged
        shown.usage.llm_tokens += context.llm_tokens
        further = {"question": context.question, "degraded": list(context.degraded)}
        return shown.model_copy(update=ConversingOut.fields_of(packed) | further | {"left_out": packed.left_out["documents"]})


class PassageViewOut(BaseModel):
    passage: PassageOut
    before: str = Field(description="Characters of the document right before the passage.")
    after: str = Field(description="Characters right after it.")

    @classmethod
    def of(cls, shown: Shown) -> PassageViewOut:
        return cls(passage=PassageOut.of(shown.passage), before=shown.before, after=shown.after)
