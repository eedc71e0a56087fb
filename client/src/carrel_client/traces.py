"""What questions left behind, and asking them again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict

from carrel_client.models import Model


class Otherwise(TypedDict, total=False):
    """What a replay does otherwise than then; left out, it asks as it was asked, of what is set today."""

    profile: str | None  #: whose fusion and reranking are used
    collections: Sequence[str] | None  #: to ask instead: the same documents, chunked otherwise
    as_of: str | int | None  #: ISO 8601 with its zone, Unix milliseconds, or "now": of conversations as they stand
    tuned: bool | None
    fresh_vector: bool | None  #: embed the question anew, for its tokens


@dataclass(frozen=True)
class Trace(Model):
    """A question and how it was answered. What `contents` says was not kept is None."""

    id: str
    at: str
    kind: str  #: query, context or recall
    subject: str | None
    session_id: str | None
    contents: str  #: full, ids (without the question) or none
    query: str | None
    found: int  #: passages that were answered; of a recall turns
    question: dict[str, Any] | None = None  #: this and what follows: None or empty in lists
    phrasings: list[str] | None = None
    vectors: bool = False
    collections: dict[str, dict[str, Any]] = field(default_factory=dict)  #: generation, profile and tuning version of each
    labels: list[str] | None = None
    passages: list[dict[str, Any]] | None = None
    recalled: list[dict[str, Any]] | None = None
    conversation: dict[str, Any] | None = None  #: of a session's context or a recall
    context: dict[str, Any] | None = None
    details: dict[str, Any] = field(default_factory=dict)
    words: dict[str, Any] | None = None
    budget: dict[str, int] = field(default_factory=dict)
    degraded: list[str] = field(default_factory=list)
    cached: bool = False
    similarity: float | None = None
    timings_ms: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class ReplayRow(Model):
    """A passage in one of the answers or in both: `then` and `now` have id, rank, score, start and end."""

    change: str  #: same, moved, overlaps, came or gone
    document: str  #: external id
    then: dict[str, Any] | None
    now: dict[str, Any] | None
    shared: float
    snippet: str | None


@dataclass(frozen=True)
class ConversationItem(Model):
    """Something of a conversation that was in the context, or is now: `then` and `now` have rank, score, version and shown."""

    part: str  #: pinned, recap, recent, memory or recalled
    id: str
    change: str  #: same, moved, changed, came or gone
    then: dict[str, Any] | None
    now: dict[str, Any] | None
    session_id: str | None
    seq: int | None
    snippet: str | None
    why: str | None  #: erased, archived, superseded or forgotten


@dataclass(frozen=True)
class ConversationDifference(Model):
    as_of: str  #: then, now or a time
    turns_then: int | None
    turns_now: int | None
    items: list[ConversationItem]
    tokens: dict[str, dict[str, int]]  #: then and now, by part

    @classmethod
    def parse(cls, data: Mapping[str, Any]) -> ConversationDifference:
        return super().parse({**data, "items": [ConversationItem.parse(item) for item in data["items"]]})


@dataclass(frozen=True)
class Replay(Model):
    """A question as it was answered then and now."""

    trace_id: str
    at: str
    kind: str
    query: str  #: empty of a context that nothing was asked for
    empty: bool  #: nothing is other than then
    rows: list[ReplayRow]
    same: int
    moved: int
    overlapping: int
    came: int
    gone: int
    max_score_difference: float
    rbo: float  #: rank-biased overlap, p = 0.9: the mean of passages, recalled turns and memories, as `overlap`
    overlap: dict[str, float]  #: of the first k, by k
    shared: float
    context: dict[str, Any] | None  #: equal, tokens_then, tokens_now, of, diff
    degraded_then: list[str]
    degraded_now: list[str]
    collections_then: dict[str, dict[str, Any]]
    collections_now: dict[str, dict[str, Any]]
    vector: str  #: stored, fresh or none
    tokens: int  #: charged
    notes: list[str] = field(default_factory=list)
    conversation: ConversationDifference | None = None  #: of a session's context, and of a recall

    @classmethod
    def parse(cls, data: Mapping[str, Any]) -> Replay:
        told = data.get("conversation")
        conversation = None if told is None else ConversationDifference.parse(told)
        return super().parse({**data, "rows": [ReplayRow.parse(row) for row in data["rows"]], "conversation": conversation})


@dataclass(frozen=True)
class SkippedReplay(Model):
    """A trace that cannot be asked again."""

    trace_id: str
    code: str
    detail: str


@dataclass(frozen=True)
class ReplayReport(Model):
    """What many replays say together."""

    p: float
    traces: int
    replayed: int
    empty: int
    skipped: dict[str, int]
    rbo: float
    overlap: dict[str, float]
    max_score_difference: float
    contexts: int
    contexts_equal: int
    useful_marked: int
    useful_recall_then: float | None
    useful_recall_now: float | None
    tokens: int
    worst: list[dict[str, Any]]  #: trace_id, query and rbo
    stopped: dict[str, Any] | None = None  #: the problem for which the remaining ones were not asked
