"""Memories: what is known of an end user, by the verbs that people know: add, search, get, list, update, delete, history."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from carrel_client._async.transport import AsyncTransport, pages
from carrel_client.exchange import path_of
from carrel_client.memories import KEEP, AddedMemories, FoundMemories, Memory, MemoryVersion


class AsyncMemories:
    """`carrel.memories`. Writing needs the scope `converse`. A token with a subject needs no `subject`, and reaches its own."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def add(
        self,
        text: str | None = None,
        *,
        subject: str | None = None,
        memories: Sequence[Mapping[str, Any]] = (),
        messages: Sequence[Mapping[str, Any]] = (),
        extract: str | None = None,
        agent: str | None = None,
        session_id: str | None = None,
        idempotency_key: str | None = None,
        **fact: Any,
    ) -> AddedMemories:
        """One fact (`text`, with `key`, `tags`, `metadata`, `valid_from`, `valid_to`, `expires_at`, `sources` or `reason`),
        several in `memories`, or `messages` in which a language model finds them (`extract="verbatim"`: as users said it).

        Example: `await carrel.memories.add("Ann is vegetarian.", subject="ann", key="diet")`
        """
        facts = [*memories, *([] if text is None else [{"text": text, **fact}])]
        given = {
            **{"subject": subject, "agent": agent, "session_id": session_id, "extract": extract},
            **{"memories": [dict(each) for each in facts], "messages": [dict(each) for each in messages]},
        }
        body = {name: value for name, value in given.items() if value is not None}
        answer = await self._transport.call("POST", "/v1/memories", json=body, idempotency_key=idempotency_key)
        return AddedMemories.parse(answer)

    async def search(
        self,
        query: str,
        *,
        subject: str | None = None,
        agent: str | None = None,
        session_id: str | None = None,
        key: str | None = None,
        tag: str | None = None,
        as_of: str | None = None,
        valid_at: str | None = None,
        everything: bool | None = None,
        limit: int = 10,
    ) -> FoundMemories:
        """Best first. `as_of`: as was believed then; `valid_at`: what was true then; both RFC 3339.

        Example: `found = (await carrel.memories.search("what does she eat?", subject="ann")).data`
        """
        given = {
            **{"query": query, "subject": subject, "agent": agent, "session_id": session_id, "key": key, "tag": tag},
            **{"as_of": as_of, "valid_at": valid_at, "everything": everything, "limit": limit},
        }
        body = {name: value for name, value in given.items() if value is not None}
        answer = await self._transport.call("POST", "/v1/memories/search", json=body, repeatable=True)
        return FoundMemories.parse(answer)

    async def get(self, memory_id: str, *, as_of: str | None = None) -> Memory:
        """A memory as it is, or as it was believed at `as_of`.

        Example: `memory = await carrel.memories.get(memory.id)`
        """
        params = {} if as_of is None else {"as_of": as_of}
        return Memory.parse(await self._transport.call("GET", path_of("/v1/memories", memory_id), params=params))

    async def list(
        self,
        *,
        subject: str | None = None,
        agent: str | None = None,
        session_id: str | None = None,
        key: str | None = None,
        tag: str | None = None,
        as_of: str | None = None,
        valid_at: str | None = None,
        everything: bool = False,
        page_size: int = 100,
    ) -> AsyncIterator[Memory]:
        """Oldest first; `everything`: also what is not true any more, or not yet.

        Example: `texts = [memory.text async for memory in carrel.memories.list(subject="ann")]`
        """
        given = {
            **{"subject": subject, "agent": agent, "session_id": session_id, "key": key, "tag": tag},
            **{"as_of": as_of, "valid_at": valid_at, "everything": "true" if everything else None},
        }
        async for item in pages(self._transport, "/v1/memories", page_size, **given):
            yield Memory.parse(item)

    async def update(
        self,
        memory_id: str,
        *,
        text: str | None = None,
        key: str | None = KEEP,
        tags: Sequence[str] | None = None,
        metadata: Mapping[str, Any] | None = None,
        valid_from: str | None = None,
        valid_to: str | None = KEEP,
        expires_at: str | None = KEEP,
        sources: Sequence[Mapping[str, Any]] | None = None,
        reason: str | None = None,
    ) -> Memory:
        """A new version with what is given. None takes `key`, `valid_to` and `expires_at` away.

        Example: `await carrel.memories.update(memory.id, text="Ann is vegan.", reason="she said so")`
        """
        given = {
            **{"text": text, "tags": tags, "metadata": metadata, "valid_from": valid_from, "sources": sources},
            "reason": reason,
        }
        body: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        body |= {
            name: value
            for name, value in {"key": key, "valid_to": valid_to, "expires_at": expires_at}.items()
            if value is not KEEP
        }
        return Memory.parse(await self._transport.call("PATCH", path_of("/v1/memories", memory_id), json=body))

    async def delete(self, memory_id: str, *, reason: str | None = None) -> None:
        """With all that its history says.

        Example: `await carrel.memories.delete(memory.id)`
        """
        params = {} if reason is None else {"reason": reason}
        await self._transport.call("DELETE", path_of("/v1/memories", memory_id), params=params)

    async def history(self, memory_id: str, *, page_size: int = 100) -> AsyncIterator[MemoryVersion]:
        """Versions, oldest first: who changed it, when and why.

        Example: `versions = [version async for version in carrel.memories.history(memory.id)]`
        """
        async for item in pages(self._transport, path_of("/v1/memories", memory_id, "history"), page_size):
            yield MemoryVersion.parse(item)
