"""Sessions: conversations of your end users, turn by turn."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from carrel_client._sync.recall import RecallsSession
from carrel_client._sync.transport import Transport, pages
from carrel_client.exchange import path_of
from carrel_client.sessions import Appended, AppendedTurn, Session, Turn

_PATH = "/v1/sessions"


#: Stands for what is left as it is, where None takes a bound away.
_UNCHANGED: Any = object()


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
        """`subject`: your name for the end user; with a token of theirs it can be left out.

        Example: `session = carrel.sessions.create(subject="ann")`
        """
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
        return Session.parse(self._transport.call("POST", _PATH, json=body, idempotency_key=idempotency_key))

    def list(
        self, *, subject: str | None = None, tag: str | None = None, state: str | None = None, page_size: int = 100
    ) -> Iterator[Session]:
        """The newest first, fetched page by page.

        Example: `open_ones = [session.id for session in carrel.sessions.list(state="open")]`
        """
        for item in pages(self._transport, _PATH, page_size, subject=subject, tag=tag, state=state):
            yield Session.parse(item)

    def get(self, session_id: str) -> Session:
        """A session as it is; NotFoundError for one that is missing, expired or another subject's.

        Example: `print(carrel.sessions.get(session.id).turns)`
        """
        return Session.parse(self._transport.call("GET", path_of(_PATH, session_id)))

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
        """Change what is given; None takes a bound away.

        Example: `carrel.sessions.update(session.id, title="Loans")`
        """
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
        return Session.parse(self._transport.call("PATCH", path_of(_PATH, session_id), json=body))

    def append(self, session_id: str, turns: Sequence[Mapping[str, Any]]) -> Appended:
        """Append turns, all of them or none: each with `role` and `content`, and if you like `speaker`, `tool_calls`,
        `metadata`, `files`, `said_at` and `idempotency_key`. Those without a key get one of their own for the call's retries.

        Example: `carrel.sessions.append(session.id, [{"role": "user", "content": "How long may I keep a book?"}])`
        """
        named = [{"idempotency_key": uuid.uuid4().hex, **turn} for turn in turns]
        path = path_of(_PATH, session_id, "turns")
        return Appended.parse(self._transport.call("POST", path, json={"turns": named}, repeatable=True))

    def say(self, session_id: str, role: str, content: str, **more: Any) -> AppendedTurn:
        """Append one turn; `more` as of `append`.

        Example: `carrel.sessions.say(session.id, "user", "How long may I keep a book?")`
        """
        return self.append(session_id, [{"role": role, "content": content, **more}]).turns[0]

    def turns(self, session_id: str, *, order: str = "oldest", page_size: int = 100) -> Iterator[Turn]:
        """All turns, the oldest or the newest first, fetched page by page.

        Example: `said = [turn.content for turn in carrel.sessions.turns(session.id)]`
        """
        for item in pages(self._transport, path_of(_PATH, session_id, "turns"), page_size, order=order):
            yield Turn.parse(item)

    def turn(self, session_id: str, turn_id: str) -> Turn:
        """One turn of a session.

        Example: `turn = carrel.sessions.turn(session.id, turn.id)`
        """
        return Turn.parse(self._transport.call("GET", path_of(_PATH, session_id, "turns", turn_id)))

    def close(self, session_id: str) -> Session:
        """It takes no turns until it is resumed.

        Example: `carrel.sessions.close(session.id)`
        """
        return self._become(session_id, "close")

    def archive(self, session_id: str) -> Session:
        """Put it away: as closed, and its idle time does not run.

        Example: `carrel.sessions.archive(session.id)`
        """
        return self._become(session_id, "archive")

    def resume(self, session_id: str) -> Session:
        """It takes turns again, and its idle time begins anew.

        Example: `carrel.sessions.resume(session.id)`
        """
        return self._become(session_id, "resume")

    def _become(self, session_id: str, verb: str) -> Session:
        return Session.parse(self._transport.call("POST", path_of(_PATH, session_id, verb), repeatable=True))

    def fork(self, session_id: str, *, turn_id: str | None = None, idempotency_key: str | None = None) -> Session:
        """A new session that begins with this one's turns up to `turn_id`, or with all of them.

        Example: `other = carrel.sessions.fork(session.id, turn_id=turn.id)`
        """
        path = path_of(_PATH, session_id, "fork")
        answer = self._transport.call("POST", path, json={"turn_id": turn_id}, idempotency_key=idempotency_key)
        return Session.parse(answer)
