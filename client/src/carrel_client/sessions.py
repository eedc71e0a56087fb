"""Sessions: conversations of your end users, turn by turn."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from carrel_client.models import Model
from carrel_client.recall import RecallsSession
from carrel_client.transport import Transport, pages, path_of

_PATH = "/v1/sessions"
#: Stands for what is left as it is, where None takes a bound away.
_UNCHANGED: Any = object()


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


class Sessions(RecallsSession):
    """`carrel.sessions`. Reading needs the scope `query`, the rest `converse`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(
        self,
        *,
        subject: str | None = None,
        title: str | None = None,
        tags: Sequence[str] = (),
        metadata: Mapping[str, Any] | None = None,
        idle_ttl_seconds: int | None = None,
        absolute_ttl_seconds: int | None = None,
        max_turns: int | None = None,
        max_tokens: int | None = None,
        when_full: str = "refuse",
        budget_tokens: int | None = None,
        budget_micro_usd: int | None = None,
        idempotency_key: str | None = None,
    ) -> Session:
        """`subject`: your name for the end user; with a token of theirs it can be left out."""
        body = {
            "subject": subject,
            "title": title,
            "tags": list(tags),
            "metadata": dict(metadata or {}),
            "idle_ttl_seconds": idle_ttl_seconds,
            "absolute_ttl_seconds": absolute_ttl_seconds,
            "max_turns": max_turns,
            "max_tokens": max_tokens,
            "when_full": when_full,
            "budget_tokens": budget_tokens,
            "budget_micro_usd": budget_micro_usd,
        }
        return Session.parse(self._transport.call("POST", _PATH, json=body, idempotency_key=idempotency_key).json())

    def list(
        self, *, subject: str | None = None, tag: str | None = None, state: str | None = None, page_size: int = 100
    ) -> Iterator[Session]:
        """The newest first, fetched page by page."""
        for item in pages(self._transport, _PATH, page_size, subject=subject, tag=tag, state=state):
            yield Session.parse(item)

    def get(self, session_id: str) -> Session:
        return Session.parse(self._transport.call("GET", path_of(_PATH, session_id)).json())

    def update(
        self,
        session_id: str,
        *,
        title: str | None = _UNCHANGED,
        tags: Sequence[str] = _UNCHANGED,
        metadata: Mapping[str, Any] = _UNCHANGED,
        idle_ttl_seconds: int | None = _UNCHANGED,
        absolute_ttl_seconds: int | None = _UNCHANGED,
        max_turns: int | None = _UNCHANGED,
        max_tokens: int | None = _UNCHANGED,
        when_full: str = _UNCHANGED,
        budget_tokens: int | None = _UNCHANGED,
        budget_micro_usd: int | None = _UNCHANGED,
    ) -> Session:
        """Change what is given; None takes a bound away."""
        given = {
            "title": title,
            "tags": tags if tags is _UNCHANGED else list(tags),
            "metadata": metadata if metadata is _UNCHANGED else dict(metadata),
            "idle_ttl_seconds": idle_ttl_seconds,
            "absolute_ttl_seconds": absolute_ttl_seconds,
            "max_turns": max_turns,
            "max_tokens": max_tokens,
            "when_full": when_full,
            "budget_tokens": budget_tokens,
            "budget_micro_usd": budget_micro_usd,
        }
        body = {name: value for name, value in given.items() if value is not _UNCHANGED}
        return Session.parse(self._transport.call("PATCH", path_of(_PATH, session_id), json=body).json())

    def append(self, session_id: str, turns: Sequence[Mapping[str, Any]]) -> Appended:
        """Append turns, all of them or none: each with `role` and `content`, and if you like `speaker`, `tool_calls`,
        `metadata`, `files`, `said_at` and `idempotency_key`. Those without a key get one of their own for the call's retries.
        """
        named = [{"idempotency_key": uuid.uuid4().hex, **turn} for turn in turns]
        path = path_of(_PATH, session_id, "turns")
        return Appended.parse(self._transport.call("POST", path, json={"turns": named}, repeatable=True).json())

    def say(self, session_id: str, role: str, content: str, **more: Any) -> AppendedTurn:
        """Append one turn; `more` as of `append`."""
        return self.append(session_id, [{"role": role, "content": content, **more}]).turns[0]

    def turns(self, session_id: str, *, order: str = "oldest", page_size: int = 100) -> Iterator[Turn]:
        """All turns, the oldest or the newest first, fetched page by page."""
        for item in pages(self._transport, path_of(_PATH, session_id, "turns"), page_size, order=order):
            yield Turn.parse(item)

    def turn(self, session_id: str, turn_id: str) -> Turn:
        return Turn.parse(self._transport.call("GET", path_of(_PATH, session_id, "turns", turn_id)).json())

    def close(self, session_id: str) -> Session:
        """It takes no turns until it is resumed."""
        return self._become(session_id, "close")

    def archive(self, session_id: str) -> Session:
        """Put it away: as closed, and its idle time does not run."""
        return self._become(session_id, "archive")

    def resume(self, session_id: str) -> Session:
        return self._become(session_id, "resume")

    def _become(self, session_id: str, verb: str) -> Session:
        return Session.parse(self._transport.call("POST", path_of(_PATH, session_id, verb), repeatable=True).json())

    def fork(self, session_id: str, *, turn_id: str | None = None, idempotency_key: str | None = None) -> Session:
        """A new session that begins with this one's turns up to `turn_id`, or with all of them."""
        path = path_of(_PATH, session_id, "fork")
        answer = self._transport.call("POST", path, json={"turn_id": turn_id}, idempotency_key=idempotency_key)
        return Session.parse(answer.json())
