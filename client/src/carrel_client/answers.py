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
class ShownTurn(Model):
    """`context.text[context_start:context_end]` shows it, delimiters included."""

    place: str  #: pinned, recent or recalled
    session_id: str
    seq: int
    role: str
    speaker: str | None
    said_at: str
    context_start: int
    context_end: int


@dataclass(frozen=True)
class ShownRecap(Model):
    """What the turns `from_seq` to `to_seq` came to."""

    from_seq: int
    to_seq: int
    method: str  #: extractive, or the language model that wrote it
    context_start: int
    context_end: int


@dataclass(frozen=True)
class ShownMemory(Model):
    id: str
    context_start: int
    context_end: int


@dataclass(frozen=True)
class Context(Model):
    """Passages, and what was said in a session, packed into a budget of tokens."""

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
    messages: list[dict[str, str]] | None = None  #: with a session: role and content, as any SDK takes them
    message_tokens: int | None = None  #: of the messages, with 4 for the form of each and 3 more
    question: str | None = None  #: what was asked of documents, memories and former turns
    turns: list[ShownTurn] = field(default_factory=list)
    recaps: list[ShownRecap] = field(default_factory=list)
    memories: list[ShownMemory] = field(default_factory=list)

    @classmethod
    def parse(cls, data: Mapping[str, Any]) -> Context:
        kinds: dict[str, type[Model]] = {
            **{"citations": Citation, "turns": ShownTurn},
            **{"recaps": ShownRecap, "memories": ShownMemory},
        }
        lists = {name: [kind.parse(item) for item in data.get(name) or ()] for name, kind in kinds.items()}
        return super().parse({**data, **lists})


@dataclass(frozen=True)
class PassageView(Model):
    """`before + passage.text + after` is a piece of the document's text."""

    passage: Passage
    before: str
    after: str

    @classmethod
    def parse(cls, data: Mapping[str, Any]) -> PassageView:
        return super().parse({**data, "passage": Passage.parse(data["passage"])})
