"""Questions and their answers, as they are on the wire."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import AwareDatetime, BaseModel, Field

from api.schemas.arranging import ArrangingIn
from api.schemas.documents import Input, Text
from api.schemas.explain import ExplanationOut
from api.schemas.times import unix_ms
from config.errors import InvalidInput
from config.profiles import Rewrite
from rag.attached import session_of
from rag.filters import parse
from rag.retrieval.explanation import Mode
from rag.retrieval.question import (
    MAX_COLLECTIONS,
    MAX_PHRASINGS,
    MAX_TOP_K,
    Answer,
    Passage,
    Question,
)
from rag.tokens import count_tokens
from rag.types import MAX_QUESTION_CHARS


class RewriteIn(Input):
    mode: Rewrite


class QueryIn(Input, ArrangingIn):
    query: Text | None = Field(None, min_length=1, max_length=MAX_QUESTION_CHARS, examples=["how long may I keep a book?"])
    queries: list[Text] = Field(
        default_factory=list,
        max_length=MAX_PHRASINGS,
        description="Other phrasings of it, or all of them: a passage counts by the one that it is nearest to.",
    )
    collections: list[Text] = Field(
        default_factory=lambda: ["default"],
        max_length=MAX_COLLECTIONS,
        description="At least one; none, if there is a `session`.",
    )
    session: Text | None = Field(None, description="A session: what is attached to it is searched too.")
    top_k: int = Field(10, ge=1, le=MAX_TOP_K)
    as_of: AwareDatetime | None = Field(
        None,
        description="Answer as of then, from versions that the collections keep: ISO 8601 with its zone, or Unix milliseconds.",
    )
    filter: dict[str, Any] | None = Field(
        None,
        description="Over attributes: `key`, `op` (eq ne in nin exists gt gte lt lte), `value`; `and`, `or`, `not` nest.",
        examples=[{"op": "and", "filters": [{"key": "year", "op": "gte", "value": 2020}]}],
    )

    rewrite: Rewrite | RewriteIn | None = Field(
        None,
        description="Words it anew by the configured language model before the search: `multi_query`, `hyde`, `decompose` "
        "or `none`, also as `mode` of an object; left out, the collections' profiles say.",
    )
    mode: Mode = Field("hybrid", description="By meaning and by words, or by one of them: `lexical` embeds nothing.")
    explain: bool = Field(False, description="Say how the answer came to be.")
    dense_weight: float | None = Field(
        None, ge=0, le=1, description="Of meaning, the rest is that of words; left out, as the first collection is tuned."
    )
    tuned: bool = Field(True, description="Whether what the collections are tuned to is used.")

    def question(self) -> Question:
        phrasings = dict.fromkeys([*([] if self.query is None else [self.query]), *self.queries])
        if not phrasings:
            raise InvalidInput("Give a `query`, or several as `queries`.", field="query")
        first, *others = phrasings
        return Question(
            text=first,
            others=tuple(others),
            collections=tuple(dict.fromkeys(self.collections)),
            top_k=self.top_k,
            filter=None if self.filter is None else parse(self.filter),
            wishes=self.wishes(),
            rerank=self.rerank,
            rewrite=self.rewrite.mode if isinstance(self.rewrite, RewriteIn) else self.rewrite,
            as_of=unix_ms(self.as_of),
            mode=self.mode,
            explain=self.explain,
            dense_weight=self.dense_weight,
            tuned=self.tuned,
            session=self.session,
        )


class PassageOut(BaseModel):
    """`text` is exactly characters `start` to `end` of the document's text."""

    id: str
    score: float
    text: str
    start: int
    end: int
    document_id: str
    external_id: str
    version: int
    collection: str
    title: str
    source: str | None
    headings: list[str]
    first_page: int | None
    last_page: int | None
    attributes: dict[str, Any]
    relevance: float | None = Field(
        None, description="What the score means, 0 to 1: how often such a passage answered, in public sets. Null: not measured."
    )
    boost: float = Field(0.0, description="That was asked for, and is added to the score for the order.")
    rerank_score: float | None = Field(None, description="0 to 1; it goes before the score for the order.")
    neighbour_of: str | None = Field(None, description="Id of the passage beside which it stands, if it was not found itself.")
    warnings: list[str] = Field(default_factory=list, description="Of its document, such as hidden text.")
    url: str = Field(description="Where it is shown inside its text, relative to the service's address.")
    tokens: int = Field(description="Tokens of the text for a language model (o200k).")

    @classmethod
    def of(cls, passage: Passage) -> PassageOut:
        return cls(**cls.fields_of(passage))

    @staticmethod
    def fields_of(passage: Passage) -> dict[str, Any]:
        fields = {name: getattr(passage, name) for name in _OF_PASSAGE}
        return fields | {"url": address_of(passage), "tokens": count_tokens(passage.text)}


def address_of(passage: Passage) -> str:
    """Where it is shown inside its text, by the version and the session that it is of."""
    session = session_of(passage.collection)
    asked = [f"version={passage.version}"] * passage.former + ([] if session is None else [f"session={session}"])
    return f"/v1/passages/{passage.id}" + ("?" + "&".join(asked) if asked else "")


_OF_PASSAGE = tuple(name for name in PassageOut.model_fields if name not in ("tokens", "url"))


class GroupOut(BaseModel):
    document_id: str
    external_id: str
    title: str
    collection: str
    score: float = Field(description="Of its best passage.")
    passages: list[str] = Field(description="Ids, best first; neighbours that were asked for stand behind their passage.")


class QueryUsage(BaseModel):
    embedding_tokens: int = Field(description="Charged for embedding the query.")
    cached_tokens: int
    context_tokens: int = Field(description="Tokens of what is answered: of all passages (o200k), or of the packed text.")
    rerank_tokens: int = Field(0, description="Charged for reranking.")
    llm_tokens: int = Field(0, description="Of the language model, charged for rewriting.")

    @classmethod
    def of(cls, answer: Answer, context_tokens: int) -> QueryUsage:
        return cls(
            embedding_tokens=answer.charged,
            cached_tokens=answer.cached,
            context_tokens=context_tokens,
            rerank_tokens=answer.rerank_tokens,
            llm_tokens=answer.llm_tokens,
        )


class ReuseOut(BaseModel):
    similarity: float = Field(description="Cosine of this question and the one that was answered.")

    @classmethod
    def of(cls, answer: Answer) -> ReuseOut | None:
        return None if answer.similarity is None else cls(similarity=answer.similarity)


DEGRADED = "What could not take part: `dense`, `lexical`, `rewrite`, `rerank`; `budget`: no reranking, near the end of it."
CACHED = "Whether this was answered before, from the same state of the collections; it is what a search would find."
TRACED = "Id of what this left for `POST /v1/traces/{trace_id}/replay`; null if the plan's sampling kept none."
SEMANTIC = "Set where another question's answer was given, because the collections' `semantic_cache` allows it."


class QueryOut(BaseModel):
    passages: list[PassageOut]
    groups: list[GroupOut] | None = Field(None, description="With `group_by`: the documents, best first.")
    usage: QueryUsage
    degraded: list[str] = Field(default_factory=list, description=DEGRADED)
    cached: bool = Field(False, description=CACHED)
    semantic_cache: ReuseOut | None = Field(None, description=SEMANTIC)
    timings_ms: dict[str, float] = Field(
        description="`collections`, `embedding` and `search`, one after the other; `model` is the model's part of `embedding`. "
        "With rewriting also `rewriting`."
    )
    explanation: ExplanationOut | None = Field(None, description="With `explain`.")
    trace_id: str | None = Field(None, description=TRACED)

    @classmethod
    def of(cls, answer: Answer, *, grouped: bool = False, trace_id: str | None = None) -> QueryOut:
        passages = [PassageOut.of(passage) for passage in answer.passages]
        total = sum(passage.tokens for passage in passages)
        return cls(
            passages=passages,
            groups=_groups(passages) if grouped else None,
            usage=QueryUsage.of(answer, total),
            degraded=list(answer.degraded),
            cached=answer.reused,
            semantic_cache=ReuseOut.of(answer),
            timings_ms=dict(answer.timings_ms),
            explanation=None if answer.explanation is None else ExplanationOut.of(answer.explanation),
            trace_id=trace_id,
        )


def _groups(passages: Sequence[PassageOut]) -> list[GroupOut]:
    groups: dict[str, GroupOut] = {}
    for passage in passages:
        described = passage.model_dump(include={"document_id", "external_id", "title", "collection", "score"})
        groups.setdefault(passage.document_id, GroupOut(**described, passages=[])).passages.append(passage.id)
    return [*groups.values()]
