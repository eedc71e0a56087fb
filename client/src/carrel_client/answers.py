"""What is answered to a question: passages, and contexts packed from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from carrel_client.models import Model


@dataclass(frozen=True)
class Passage(Model):
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
    tokens: int
    relevance: float | None = None  #: what the score means, 0 to 1; None for a model that was not measured
    boost: float = 0.0
    rerank_score: float | None = None
    neighbour_of: str | None = None  #: id of the passage beside which it stands, if it was not found itself
    warnings: list[str] = field(default_factory=list)  #: of its document
    url: str = ""  #: where it is shown inside its text, relative to the service's address


@dataclass(frozen=True)
class Group(Model):
    """A document that was found, with the ids of its passages."""

    document_id: str
    external_id: str
    title: str
    collection: str
    score: float
    passages: list[str]


@dataclass(frozen=True)
class QueryResult(Model):
    passages: list[Passage]
    usage: dict[str, int]
    timings_ms: dict[str, float]
    groups: list[Group] | None = None  #: with `group_by`
    degraded: list[str] = field(default_factory=list)  #: what could not take part: dense, lexical, rewrite, rerank
    explanation: dict[str, Any] | None = None  #: how the answer came to be, if that was asked for
    cached: bool = False  #: whether it was answered before, from the same state of the collections
    semantic_cache: dict[str, float] | None = None  #: `similarity` to another question, whose answer this is
    trace_id: str | None = None  #: what it left for `carrel.traces.replay`; None if nothing was kept

    @classmethod
    def parse(cls, data: Mapping[str, Any]) -> QueryResult:
        passages = [Passage.parse(item) for item in data["passages"]]
        groups = None if data.get("groups") is None else [Group.parse(item) for item in data["groups"]]
        return super().parse({**data, "passages": passages, "groups": groups})


@dataclass(frozen=True)
class Citation(Passage):
    """`context.text[context_start:context_end]` shows characters `start` to `end` of the document's text."""

    number: int = 0  #: the `id` of the element in the text
    context_start: int = 0
    context_end: int = 0


@dataclass(frozen=True)
class Context(Model):
    """Passages packed into a budget of tokens."""

    text: str
    tokens: int
    max_tokens: int
    tokenizer: str
    citations: list[Citation]
    left_out: int  #: passages that were found and did not fit
    usage: dict[str, int]
    timings_ms: dict[str, float]
    degraded: list[str] = field(default_factory=list)
    explanation: dict[str, Any] | None = None
    cached: bool = False
    semantic_cache: dict[str, float] | None = None
    trace_id: str | None = None  #: what it left for `carrel.traces.replay`; None if nothing was kept

    @classmethod
    def parse(cls, data: Mapping[str, Any]) -> Context:
        return super().parse({**data, "citations": [Citation.parse(item) for item in data["citations"]]})


@dataclass(frozen=True)
class PassageView(Model):
    """`before + passage.text + after` is a piece of the document's text."""

    passage: Passage
    before: str
    after: str

    @classmethod
    def parse(cls, data: Mapping[str, Any]) -> PassageView:
        return super().parse({**data, "passage": Passage.parse(data["passage"])})
