"""Sessions: conversations of your end users, turn by turn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from carrel_client.models import Model


@dataclass(frozen=True)
class Session(Model):
    id: str
    subject: str
    title: str | None
    tags: list[str]
    metadata: dict[str, Any]
    state: str  #: open, closed or archived
    created_at: str
    last_active_at: str
    expires_at: str | None  #: as things stand; None: never
    idle_ttl_seconds: int | None
    absolute_ttl_seconds: int | None
    turns: int
    tokens: int
    archived_turns: int  #: the first so many have left the window
    max_turns: int | None
    max_tokens: int | None
    when_full: str  #: refuse or archive
    budget_tokens: int | None
    budget_micro_usd: int | None
    spent_tokens: int
    spent_micro_usd: int
    forked_from: str | None
    forked_at_seq: int | None


@dataclass(frozen=True)
class Turn(Model):
    id: str
    session_id: str
    seq: int  #: from 1, without gaps
    role: str  #: user, assistant, system or tool
    speaker: str | None
    content: str
    tool_calls: list[dict[str, Any]] | None
    metadata: dict[str, Any]
    tokens: int
    said_at: str
    created_at: str
    idempotency_key: str | None
    files: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class AppendedTurn(Model):
    id: str
    seq: int
    tokens: int
    said_at: str
    created_at: str
    idempotency_key: str | None


@dataclass(frozen=True)
class Appended(Model):
    turns: list[AppendedTurn]  #: in the order of the call
    new: int  #: how many of them were not there before
    session: Session

    @classmethod
    def parse(cls, data: Mapping[str, Any]) -> Appended:
        turns = [AppendedTurn.parse(turn) for turn in data["data"]]
        return cls(turns, data["new"], Session.parse(data["session"]))
