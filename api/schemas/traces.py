"""Traces, replays and reports of many replays, as they are on the wire."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, Field

from api.problems import Problem
from api.schemas.conversation_traces import ConversationDifferenceOut
from api.schemas.documents import Input, Text
from config.clock import isoformat
from rag.retrieval.question import MAX_COLLECTIONS
from rag.traces.difference import Change, Place, Row
from rag.traces.left import Kind, asked_text, read_body, shown_passage
from rag.traces.regression import MAX_REPLAYED, Report
from rag.traces.replayed import ContextDifference, Otherwise, Replayed
from rag.traces.tables import Trace


class FoundByOut(BaseModel):
    rank: int
    score: float

    @classmethod
    def of(cls, place: Sequence[Any] | None) -> FoundByOut | None:
        return None if place is None else cls(rank=place[0], score=place[1])


class TracedPassageOut(BaseModel):
    id: str
    document_id: str
    collection: str
    version: int
    start: int
    end: int
    score: float
    boost: float
    rerank_score: float | None
    neighbour_of: str | None
    fused: float | None = Field(description="Its score without the support of candidates near it.")
    dense: FoundByOut | None = Field(description="By meaning; null: not found so, or not known.")
    lexical: FoundByOut | None = Field(description="By words.")

    @classmethod
    def of(cls, values: Sequence[Any]) -> TracedPassageOut:
        shown = shown_passage(values)
        del shown["named"]
        return cls(**shown | {leg: FoundByOut.of(shown[leg]) for leg in ("dense", "lexical")})


class RecalledOut(BaseModel):
    id: str
    score: float


class AskedOfOut(BaseModel):
    """A collection as it was when it was asked."""

    generation: int
    profile: str
    tuning: int = Field(description="The active version; 0: it was not tuned.")

    @classmethod
    def each(cls, collections: Mapping[str, Sequence[Any]]) -> dict[str, AskedOfOut]:
        return {name: cls(generation=of[0], profile=of[1], tuning=of[2]) for name, of in collections.items()}


class TraceOut(BaseModel):
    id: str
    at: str
    kind: Kind
    subject: str | None
    session_id: str | None
    contents: str = Field(description="What the plan keeps of it: `full`, `ids` without the question, or `none`.")
    query: str | None = Field(description="The question, of `full` ones.")
    found: int = Field(description="Passages that were answered; of a recall turns.")

    @classmethod
    def of(cls, trace: Trace) -> TraceOut:
        return cls(**_told(trace, read_body(trace.body)))


class FullTraceOut(TraceOut):
    question: dict[str, Any] | None = Field(description="As it was asked; null unless `full`.")
    phrasings: list[str] | None = Field(description="By which it was searched, those of a language model among them.")
    vectors: bool = Field(description="Whether the vectors of the phrasings are kept: then a replay costs no tokens.")
    collections: dict[str, AskedOfOut]
    labels: list[str] | None = Field(description="That the caller held; null: all, or not kept.")
    passages: list[TracedPassageOut] | None = Field(description="Best first; null if not kept.")
    recalled: list[RecalledOut] | None = Field(description="Turns that were recalled; null if not kept.")
    conversation: dict[str, Any] | None = Field(
        description="Of a session's context or a recall: how far it had come, what was found in it and what was shown, by ids."
    )
    context: dict[str, Any] | None = Field(description="Of a packed text: budget, tokens, SHA-256, and which pieces it shows.")
    details: dict[str, Any]
    words: dict[str, Any] | None = Field(description="What else the user said; null unless `full`.")
    budget: dict[str, int] = Field(description="Tokens that it was charged, and those that were known.")
    degraded: list[str]
    cached: bool
    similarity: float | None
    timings_ms: dict[str, float]

    @classmethod
    def of(cls, trace: Trace) -> FullTraceOut:
        body = read_body(trace.body)
        searched, passages, recalled = body.get("searched") or {}, body.get("passages"), body.get("recalled")
        return cls(
            **_told(trace, body),
            **{name: body.get(name) for name in ("question", "labels", "conversation", "context", "words", "similarity")},
            **{name: body.get(name, {}) for name in ("details", "budget", "timings_ms")},
            collections=AskedOfOut.each(body.get("collections", {})),
            phrasings=searched.get("phrasings"),
            vectors=trace.vectors is not None,
            passages=None if passages is None else [*map(TracedPassageOut.of, passages)],
            recalled=[RecalledOut(id=of[0], score=of[1]) for of in recalled] if isinstance(recalled, list) else None,
            degraded=body.get("degraded", []),
            cached=body.get("cached", False),
        )


def _told(trace: Trace, body: dict[str, Any]) -> dict[str, Any]:
    recalled = body["recalled"] if isinstance(body["recalled"], int) else len(body["recalled"])
    found = recalled if trace.kind == "recall" else body.get("found", 0)
    fields = {name: getattr(trace, name) for name in ("id", "kind", "subject", "session_id", "contents")}
    return {**fields, "at": isoformat(trace.at), "query": asked_text(body), "found": found}


class OtherwiseIn(Input):
    """Left out, all is as it was, and set as it is today."""

    profile: Text | None = Field(
        None, description="Search as this profile says: fusion, candidates, reranking. Chunks stay what documents became."
    )
    collections: list[Text] | None = Field(
        None, min_length=1, max_length=MAX_COLLECTIONS, description="Ask these instead: the same documents, chunked otherwise."
    )
    as_of: AwareDatetime | Literal["now"] | None = Field(
        None,
        description="Answer as of then, from versions that the collections keep and from what had been said and was believed. "
        "Left out, of today's documents, and of a conversation as it stood when it was asked; `now`: as it stands today.",
    )
    tuned: bool | None = Field(None, description="Whether what the collections are tuned to is used.")
    fresh_vector: bool = Field(False, description="Embed the question anew, for its tokens; else its stored vector is used.")

    def otherwise(self) -> Otherwise:
        as_of = round(self.as_of.timestamp() * 1000) if isinstance(self.as_of, dt.datetime) else None
        collections = None if self.collections is None else tuple(dict.fromkeys(self.collections))
        return Otherwise(self.profile, collections, as_of, self.as_of == "now", self.tuned, self.fresh_vector)


class ReplaysIn(OtherwiseIn):
    last: int = Field(100, ge=1, le=MAX_REPLAYED, description="So many of the newest, asked in their order.")
    session_id: Text | None = Field(None, description="Only of this session.")
    subject: Text | None = Field(None, description="Only of this subject.")
    kind: Kind | None = None


class ReplayedPlaceOut(BaseModel):
    id: str
    rank: int
    score: float = Field(description="By which it was ordered: reranked where it was, with boosts.")
    start: int
    end: int

    @classmethod
    def of(cls, place: Place | None) -> ReplayedPlaceOut | None:
        return None if place is None else cls(**{name: getattr(place, name) for name in cls.model_fields})


class ReplayRowOut(BaseModel):
    change: Change = Field(description="`overlaps`: another passage of the document, with text of the one that was there.")
    document: str = Field(description="Its external id; of one that is deleted the id.")
    then: ReplayedPlaceOut | None
    now: ReplayedPlaceOut | None
    shared: float = Field(description="Of the characters of both, which part is in both.")
    snippet: str | None = Field(description="The beginning of its text; null for what is not there any more.")

    @classmethod
    def of(cls, row: Row, replayed: Replayed) -> ReplayRowOut:
        shown = row.now or row.then
        return cls(
            change=row.change,
            document="" if shown is None else replayed.names[shown.document],
            then=ReplayedPlaceOut.of(row.then),
            now=ReplayedPlaceOut.of(row.now),
            shared=row.shared,
            snippet=None if shown is None else replayed.snippets.get(shown.id),
        )


class ContextDifferenceOut(BaseModel):
    equal: bool = Field(description="Whether both are the same bytes.")
    tokens_then: int
    tokens_now: int
    of: Literal["text", "outline"] = Field(
        description="What `diff` compares: both texts, or which pieces they show if the text of then cannot be had any more."
    )
    diff: list[str] = Field(description="Unified, at most 400 lines.")

    @classmethod
    def made_of(cls, found: ContextDifference | None) -> ContextDifferenceOut | None:
        if found is None:
            return None
        fields = {name: getattr(found, name) for name in ("equal", "tokens_then", "tokens_now", "of")}
        return cls(**fields, diff=list(found.lines))


class ReplayOut(BaseModel):
    trace_id: str
    at: str
    kind: Kind
    query: str = Field(description="What was asked; empty of a context that nothing was asked for.")
    empty: bool = Field(description="Nothing is other than then: ids, ranks, scores, what was left out, and the context.")
    rows: list[ReplayRowOut] = Field(description="By today's rank; what is gone stands where it was.")
    same: int
    moved: int
    overlapping: int
    came: int
    gone: int
    max_score_difference: float = Field(description="Of passages, turns and memories that are in both.")
    rbo: float = Field(
        description="Rank-biased overlap, p = 0.9: 1 is equal. Like `overlap` the mean of what rankings there are: passages, "
        "recalled turns, memories."
    )
    overlap: dict[int, float] = Field(description="Of the first k, which part is in both.")
    shared: float = Field(description="Of all characters of both answers, which part is in both.")
    context: ContextDifferenceOut | None
    conversation: ConversationDifferenceOut | None = Field(description="Of a session's context, and of a recall.")
    degraded_then: list[str]
    degraded_now: list[str]
    collections_then: dict[str, AskedOfOut]
    collections_now: dict[str, AskedOfOut]
    vector: Literal["stored", "fresh", "none"]
    tokens: int = Field(description="Charged for it.")
    notes: list[str]

    @classmethod
    def of(cls, replayed: Replayed) -> ReplayOut:
        found, answer, body = replayed.difference, replayed.answer, replayed.body
        asked_of = () if answer.searched is None else answer.searched.collections
        return cls(
            trace_id=replayed.trace.id,
            at=isoformat(replayed.trace.at),
            kind=replayed.trace.kind,
            query=replayed.query,
            empty=replayed.is_empty,
            rows=[ReplayRowOut.of(row, replayed) for row in found.rows],
            **{name: found.count(name) for name in ("same", "moved", "came", "gone")},
            overlapping=found.count("overlaps"),
            max_score_difference=replayed.score_difference,
            rbo=replayed.rbo,
            overlap=replayed.overlaps,
            shared=found.shared,
            context=ContextDifferenceOut.made_of(replayed.context),
            conversation=ConversationDifferenceOut.made_of(replayed.conversation),
            degraded_then=body["degraded"],
            degraded_now=list(replayed.degraded),
            collections_then=AskedOfOut.each(body.get("collections", {})),
            collections_now=AskedOfOut.each({each.name: (each.generation, each.profile, each.tuning) for each in asked_of}),
            vector=replayed.vector,
            tokens=replayed.charged,
            notes=list(replayed.notes),
        )


class SkippedOut(BaseModel):
    trace_id: str
    code: str
    detail: str


class LossOut(BaseModel):
    trace_id: str
    query: str
    rbo: float


class ReportOut(BaseModel):
    """What many replays say together: the last line of `POST /v1/traces/replay`."""

    p: float = Field(description="Of the rank-biased overlap.")
    traces: int
    replayed: int
    empty: int = Field(description="In which nothing is other than then.")
    skipped: dict[str, int] = Field(description="By the code of why they could not be replayed.")
    rbo: float = Field(description="Mean.")
    overlap: dict[int, float] = Field(description="Means, by k.")
    max_score_difference: float
    contexts: int
    contexts_equal: int
    useful_marked: int = Field(description="Passages and documents that feedback called useful for these questions.")
    useful_recall_then: float | None = Field(description="Which part of these was in the answers; null: there are none.")
    useful_recall_now: float | None
    tokens: int
    worst: list[LossOut] = Field(description="Of those that changed, the ten with the least overlap.")
    stopped: Problem | None = Field(None, description="Why the remaining ones were not asked.")

    @classmethod
    def of(cls, report: Report, stopped: Problem | None = None) -> ReportOut:
        names = "p", "traces", "replayed", "empty", "skipped", "rbo", "max_score_difference", "contexts", "contexts_equal"
        recalls = [found / report.marked if report.marked else None for found in (report.useful_then, report.useful_now)]
        return cls(
            **{name: getattr(report, name) for name in names},
            overlap=report.overlaps,
            useful_marked=report.marked,
            useful_recall_then=recalls[0],
            useful_recall_now=recalls[1],
            tokens=report.tokens,
            worst=[LossOut(trace_id=loss.trace_id, query=loss.query, rbo=loss.rbo) for loss in report.worst],
            stopped=stopped,
        )
