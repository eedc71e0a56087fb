"""A history of LangChain's messages on a session: `carrel_client.langchain` offers it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from langchain_core.chat_history import BaseChatMessageHistory
from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
    message_to_dict,
    messages_from_dict,
)

from carrel_client._async.client import AsyncCarrel
from carrel_client._sync.client import Carrel
from carrel_client.adapting import Clients
from carrel_client.sessions import Session, Turn

BATCH = 100  # turns of one request
OWN = "langchain"  #: under which a turn's metadata keep what of a message is not its text
ROLES = {"human": "user", "ai": "assistant", "system": "system", "tool": "tool", "function": "tool"}


class CarrelChatMessageHistory(BaseChatMessageHistory):
    """The turns of a session as messages. What was said elsewhere, through the API, is shown too.

    `session_id`: of a session that exists, as `CarrelChatMessageHistory.begin` makes one. The other arguments as of
    CarrelVectorStore.

    Example: `history = CarrelChatMessageHistory(session.id, api_key="carrel_key_…")`
    """

    def __init__(
        self,
        session_id: str,
        *,
        client: Carrel | None = None,
        async_client: AsyncCarrel | None = None,
        api_key: str | None = None,
        base_url: str | None = None,
    ) -> None:
        self.session_id = session_id
        self._clients = Clients(client, async_client, api_key=api_key, base_url=base_url)

    @classmethod
    def begin(cls, *, subject: str | None = None, title: str | None = None, **clients: Any) -> CarrelChatMessageHistory:
        """The history of a new session of an end user of yours.

        Example: `history = CarrelChatMessageHistory.begin(subject="ann", api_key="carrel_key_…")`
        """
        history = cls("", **clients)
        history.session_id = history._clients.threads.sessions.create(subject=subject, title=title).id
        return history

    @classmethod
    async def abegin(cls, *, subject: str | None = None, title: str | None = None, **clients: Any) -> CarrelChatMessageHistory:
        """`begin` for an event loop.

        Example: `history = await CarrelChatMessageHistory.abegin(subject="ann", api_key="carrel_key_…")`
        """
        history = cls("", **clients)
        async with history._clients.loop() as carrel:
            history.session_id = (await carrel.sessions.create(subject=subject, title=title)).id
        return history

    @property
    def messages(self) -> list[BaseMessage]:  # type: ignore[override]
        """All of them, the oldest first.

        Example: `print([message.text for message in history.messages])`
        """
        return [_message(turn) for turn in self._clients.threads.sessions.turns(self.session_id)]

    async def aget_messages(self) -> list[BaseMessage]:
        """`messages` for an event loop.

        Example: `messages = await history.aget_messages()`
        """
        async with self._clients.loop() as carrel:
            return [_message(turn) async for turn in carrel.sessions.turns(self.session_id)]

    def add_messages(self, messages: Sequence[BaseMessage]) -> None:
        """Append them, a hundred in one transaction.

        Example: `history.add_messages([HumanMessage("How long may I keep a book?")])`
        """
        for turns in _batches(messages):
            self._clients.threads.sessions.append(self.session_id, turns)

    async def aadd_messages(self, messages: Sequence[BaseMessage]) -> None:
        """`add_messages` for an event loop.

        Example: `await history.aadd_messages([HumanMessage("How long may I keep a book?")])`
        """
        async with self._clients.loop() as carrel:
            for turns in _batches(messages):
                await carrel.sessions.append(self.session_id, turns)

    def clear(self) -> None:
        """Go on in a new session, which is like this one but for its turns; this one is erased.

        Example: `history.clear()`
        """
        sessions = self._clients.threads.sessions
        before, new = self.session_id, sessions.create(**_like(sessions.get(self.session_id)))
        self.session_id = new.id
        self._clients.threads.erasures.session(before)

    async def aclear(self) -> None:
        """`clear` for an event loop.

        Example: `await history.aclear()`
        """
        async with self._clients.loop() as carrel:
            before = await carrel.sessions.get(self.session_id)
            self.session_id = (await carrel.sessions.create(**_like(before))).id
            await carrel.erasures.session(before.id)


def _like(session: Session) -> dict[str, Any]:
    names = ("subject", "title", "tags", "metadata", "idle_ttl_seconds", "absolute_ttl_seconds", "max_turns", "max_tokens")
    return {name: getattr(session, name) for name in (*names, "when_full", "budget_tokens", "budget_micro_usd")}


def _batches(messages: Sequence[BaseMessage]) -> Iterator[list[Mapping[str, Any]]]:
    for start in range(0, len(messages), BATCH):
        yield [_turn(message) for message in messages[start : start + BATCH]]


def _turn(message: BaseMessage) -> dict[str, Any]:
    """The text is the turn's content; the rest of the message is kept beside it."""
    told = message_to_dict(message)
    data = told["data"]
    role = getattr(message, "role", "user") if message.type == "chat" else ROLES.get(message.type, "system")
    turn: dict[str, Any] = {"role": role if role in ROLES.values() else "user", "content": message.text}
    if isinstance(message.content, str):
        del data["content"]
    if calls := data.pop("tool_calls", None):
        turn["tool_calls"] = calls
    kept = {name: value for name, value in data.items() if value not in (None, [], {})}
    return {**turn, "metadata": {OWN: {"type": told["type"], "data": kept}}}


def _message(turn: Turn) -> BaseMessage:
    if (own := turn.metadata.get(OWN)) is not None:
        calls = {"tool_calls": turn.tool_calls} if turn.tool_calls else {}
        data = {"content": turn.content, **calls, **own["data"]}
        [message] = messages_from_dict([{"type": own["type"], "data": data}])
        return message
    if turn.role == "tool":
        return ToolMessage(turn.content, tool_call_id=turn.id)
    if turn.role == "assistant":
        return AIMessage(turn.content)
    return HumanMessage(turn.content) if turn.role == "user" else SystemMessage(turn.content)
