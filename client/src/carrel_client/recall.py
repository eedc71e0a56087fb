"""Turns that were said, found again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict, Unpack

from carrel_client.models import Model
from carrel_client.transport import Transport, path_of


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

    @classmethod
    def parse(cls, data: Mapping[str, Any]) -> Recalled:
        return super().parse({**data, "turns": [RecalledTurn.parse(turn) for turn in data["turns"]]})


class Recalling:
    """What `carrel.sessions` and `carrel` can recall."""

    _transport: Transport

    def _recalled(self, path: str, body: Mapping[str, Any], wishes: RecallWishes) -> Recalled:
        given = {name: value for name, value in {**body, **wishes}.items() if value is not None}
        return Recalled.parse(self._transport.call("POST", path, json=given, repeatable=True).json())


class RecallsSession(Recalling):
    def recall(self, session_id: str, query: str, *, top_k: int = 10, **wishes: Unpack[RecallWishes]) -> Recalled:
        """Find the turns of the session that answer `query`."""
        return self._recalled(path_of("/v1/sessions", session_id, "recall"), {"query": query, "top_k": top_k}, wishes)


class RecallsSubject(Recalling):
    def recall(
        self,
        query: str,
        *,
        subject: str | None = None,
        tags: Sequence[str] = (),
        top_k: int = 10,
        **wishes: Unpack[RecallWishes],
    ) -> Recalled:
        """Find the turns of all sessions of a subject that answer `query`. With a subject's token it need not be named.

        `tags`: only sessions that have all of them.
        """
        body = {"query": query, "subject": subject, "tags": list(tags), "top_k": top_k}
        return self._recalled("/v1/recall", body, wishes)
