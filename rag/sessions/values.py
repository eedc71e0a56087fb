"""What is asked for of sessions and turns, and what comes back, between the layers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from rag.sessions.tables import ChatSession, Turn

ROLES = ("user", "assistant", "system", "tool")
WHEN_FULL = ("refuse", "archive")
MAX_TURNS = 100_000  # of a session: a fork of that many copies them in about three seconds
MAX_BATCH = 500  # turns in one call


@dataclass(frozen=True, slots=True)
class NewSession:
    subject: str | None = None  #: None: the caller's own
    title: str | None = None
    tags: Sequence[str] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    idle_ttl_s: int | None = None
    absolute_ttl_s: int | None = None
    max_turns: int | None = None
    max_tokens: int | None = None
    when_full: str = "refuse"
    budget_tokens: int | None = None
    budget_micro_usd: int | None = None


@dataclass(frozen=True, slots=True)
class NewTurn:
    role: str
    content: str
    speaker: str | None = None
    tool_calls: Sequence[Mapping[str, Any]] | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    files: Sequence[str] = ()  #: ids of documents; whether they are there is for the caller to know
    said_at: int | None = None  #: None: now
    idempotency_key: str | None = None

    def digest(self) -> str:
        """Of all that is given, but for the key."""
        given = [getattr(self, each.name) for each in fields(self) if each.name != "idempotency_key"]
        return hashlib.sha256(json.dumps(given, default=_plain, sort_keys=True).encode()).hexdigest()


def _plain(value: object) -> object:
    return dict(value) if isinstance(value, Mapping) else list(value)  # type: ignore[call-overload]


@dataclass(frozen=True, slots=True)
class Appended:
    """`turns` in the order of the call; `new` of them were not there before. `session` is as it is with them."""

    session: ChatSession
    turns: list[Turn]
    new: int
