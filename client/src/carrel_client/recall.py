"""Turns that were said, found again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

from carrel_client.models import Model


class RecallWishes(TypedDict, total=False):
    """What can be asked for besides the words; what is None is left to the service."""

    neighbours: int | None  #: turns to either side that are given with each
    roles: Sequence[str] | None
    said_after: str | None  #: ISO 8601 with its zone
    said_before: str | None
    asked_at: str | None  #: what "yesterday" refers to, and in whose zone days begin; now in UTC, if left out
    times: str | None  #: what a time that the query names does: boost (default), narrow or ignore
    recency: float | None
    mode: str | None  #: hybrid (default) or lexical
    explain: bool | None  #: say what each leg added to each score


@dataclass(frozen=True)
class SaidTurn(Model):
    """A turn; `session_id` and `seq` are what to cite it by."""

    id: str
    session_id: str
    seq: int
    role: str
    speaker: str | None
    content: str
    metadata: dict[str, Any]
    tokens: int
    said_at: str


@dataclass(frozen=True)
class RecalledTurn(SaidTurn):
    score: float
    before: list[SaidTurn]  #: with `neighbours`, oldest first
    after: list[SaidTurn]
    legs: dict[str, float] | None = None  #: with `explain`

    @classmethod
    def parse(cls, data: Mapping[str, Any]) -> RecalledTurn:
        beside = {name: [SaidTurn.parse(turn) for turn in data[name]] for name in ("before", "after")}
        return super().parse({**data, **beside})


@dataclass(frozen=True)
class Recalled(Model):
    turns: list[RecalledTurn]  #: the best first
    spans: list[dict[str, Any]]  #: times that the query names, each with `words`, `start` and `end`
    usage: dict[str, int]
    degraded: list[str]  #: ["dense"]: words had to do
    waiting: int  #: turns that have no vector yet: so far they are found by their words
    timings_ms: dict[str, float]
    trace_id: str | None = None

    @classmethod
    def parse(cls, data: Mapping[str, Any]) -> Recalled:
        return super().parse({**data, "turns": [RecalledTurn.parse(turn) for turn in data["turns"]]})
