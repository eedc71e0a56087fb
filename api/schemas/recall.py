"""Recalling turns, as it is on the wire."""

from __future__ import annotations

import datetime as dt
from math import isfinite
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, Field

from api.schemas.documents import Input, Text
from api.schemas.query import TRACED
from api.schemas.times import unix_ms
from config.clock import isoformat
from rag.recall.ranking import Weights
from rag.recall.recall import MAX_NEIGHBOURS, MAX_TOP_K, Recalled, RecalledTurn, RecallQuestion, Times
from rag.recall.times import Span
from rag.recall.turns import SaidTurn
from rag.types import MAX_QUESTION_CHARS

MAX_TAGS, MAX_RECENCY = 10, 10.0
Role = Literal["user", "assistant", "system", "tool"]
#: Years before and after these are of no conversation, and have no milliseconds that both databases keep.
_FIRST, _LAST = dt.datetime(1900, 1, 1, tzinfo=dt.UTC), dt.datetime(2200, 1, 1, tzinfo=dt.UTC)
Moment = Annotated[AwareDatetime, Field(ge=_FIRST, le=_LAST)]


class RecallIn(Input):
    query: Text = Field(min_length=1, max_length=MAX_QUESTION_CHARS, examples=["What did Ann say about the shelf last week?"])
    top_k: int = Field(10, ge=1, le=MAX_TOP_K)
    neighbours: int = Field(0, ge=0, le=MAX_NEIGHBOURS, description="Turns to either side that are given with each.")
    roles: list[Role] = Field(default_factory=list, max_length=4, description="Only turns of these; none named, all.")
    said_after: Moment | None = Field(None, description="Only what was said then or later: ISO 8601 with its zone.")
    said_before: Moment | None = Field(None, description="Only what was said earlier.")
    asked_at: Moment | None = Field(
        None, description="What `yesterday` refers to, and in whose zone days begin; left out, now in UTC."
    )
    times: Times = Field(
        "boost",
        description="What a time that the query names does: lift what was said then, leave all else out (`narrow`), or "
        "nothing (`ignore`).",
    )
    recency: float = Field(Weights().recency, ge=0, le=MAX_RECENCY, description="Of the newest; half of it every week before.")
    mode: Literal["hybrid", "lexical"] = Field("hybrid", description="`lexical`: by words alone, which embeds nothing.")
    explain: bool = Field(False, description="Say what each leg added to each score.")

    def question(self, tags: tuple[str, ...] = ()) -> RecallQuestion:
        return RecallQuestion(
            self.query,
            top_k=self.top_k,
            neighbours=self.neighbours,
            roles=frozenset(self.roles),
            tags=tags,
            said_after=unix_ms(self.said_after),
            said_before=unix_ms(self.said_before),
            asked_at=self.asked_at,
            times=self.times,
            recency=self.recency,
            by_words=self.mode == "lexical",
        )


class SubjectRecallIn(RecallIn):
    subject: Text | None = Field(None, min_length=1, max_length=255, description="Whose sessions; a subject's token has one.")
    tags: list[Text] = Field(default_factory=list, max_length=MAX_TAGS, description="Only sessions that have all of these.")


class SaidOut(BaseModel):
    """A turn; `session_id` and `seq` are what to cite it by."""

    id: str
    session_id: str
    seq: int
    role: Role
    speaker: str | None
    content: str
    metadata: dict[str, Any]
    tokens: int
    said_at: str

    @classmethod
    def of(cls, row: SaidTurn) -> SaidOut:
        return cls(**cls.fields_of(row))

    @staticmethod
    def fields_of(row: SaidTurn) -> dict[str, Any]:
        shown = {name: getattr(row, name) for name in ("id", "session_id", "seq", "role", "speaker", "content", "tokens")}
        return shown | {"metadata": row.data, "said_at": isoformat(row.said_at)}


class RecalledTurnOut(SaidOut):
    score: float = Field(description="Good for ordering within this answer only: a sum of standard scores.")
    before: list[SaidOut] = Field(description="With `neighbours`: what was said right before it, oldest first.")
    after: list[SaidOut] = Field(description="With `neighbours`: what was said right after it.")
    legs: dict[str, float] | None = Field(None, description="With `explain`: what each leg added to the score.")

    @classmethod
    def recalled(cls, found: RecalledTurn, *, explain: bool) -> RecalledTurnOut:
        return cls(
            **cls.fields_of(found.turn),
            score=found.score,
            before=[*map(SaidOut.of, found.before)],
            after=[*map(SaidOut.of, found.after)],
            legs=dict(found.legs) if explain else None,
        )


class SpanOut(BaseModel):
    words: str = Field(description="As the query has them.")
    start: str | None = Field(description="None: from the beginning.")
    end: str = Field(description="Not included.")

    @classmethod
    def of(cls, span: Span) -> SpanOut:
        start, end = (isoformat(int(at * 1000)) if isfinite(at) else None for at in (span.start, span.end))
        return cls(words=span.words, start=start, end=end or "")


class RecallUsage(BaseModel):
    embedding_tokens: int = Field(description="Charged for embedding the query.")
    cached_tokens: int


class RecallOut(BaseModel):
    turns: list[RecalledTurnOut] = Field(description="The best first.")
    spans: list[SpanOut] = Field(description="Times that the query names.")
    usage: RecallUsage
    degraded: list[str] = Field(description="`dense`: there was no model or no budget for the query, and words had to do.")
    waiting: int = Field(description="Turns that have no vector yet: so far they are found by their words.")
    timings_ms: dict[str, float] = Field(
        description="`index`, `embedding`, `ranking` and `hydration`, one after the other; `model` is the model's part of "
        "`embedding`."
    )
    trace_id: str | None = Field(None, description=TRACED)

    @classmethod
    def of(cls, found: Recalled, *, explain: bool, trace_id: str | None) -> RecallOut:
        return cls(
            turns=[RecalledTurnOut.recalled(each, explain=explain) for each in found.turns],
            spans=[*map(SpanOut.of, found.spans)],
            usage=RecallUsage(embedding_tokens=found.charged, cached_tokens=found.cached),
            degraded=list(found.degraded),
            waiting=found.waiting,
            timings_ms=dict(found.timings_ms),
            trace_id=trace_id,
        )
