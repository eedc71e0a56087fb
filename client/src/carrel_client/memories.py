"""Memories: what is known of an end user, by the verbs that people know: add, search, get, list, update, delete, history."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from carrel_client.models import Model
from carrel_client.transport import Transport, pages, path_of

KEEP: Any = object()  #: of an update: leave it as it is


@dataclass(frozen=True)
class Memory(Model):
    id: str
    version: int
    subject: str
    agent: str | None
    session_id: str | None
    key: str | None
    text: str
    tags: list[str]
    metadata: dict[str, Any]
    valid_from: str
    valid_to: str | None  #: from when on it is not true any more
    superseded_by: str | None
    conflicts_with: list[str]  #: memories that it may contradict
    confirmations: int
    confirmed_at: str | None
    expires_at: str | None
    created_at: str
    recorded_at: str
    sources: list[dict[str, Any]] = field(default_factory=list)  #: session_id and seq, or document_id


@dataclass(frozen=True)
class MemoryVersion(Memory):
    action: str = ""  #: added, confirmed, updated, superseded or deleted
    reason: str | None = None
    changed_by: str = ""
    replaced_at: str | None = None  #: None: the latest


@dataclass(frozen=True)
class PlacedMemory(Model):
    outcome: str  #: added, or confirmed: it was known
    memory: Memory
    superseded: list[str]

    @classmethod
    def parse(cls, data: Mapping[str, Any]) -> PlacedMemory:
        return cls(data["outcome"], Memory.parse(data["memory"]), data["superseded"])


@dataclass(frozen=True)
class AddedMemories(Model):
    """In the order of the facts."""

    data: list[PlacedMemory]
    tokens: int
    llm_tokens: int
    degraded: list[str]

    @classmethod
    def parse(cls, data: Mapping[str, Any]) -> AddedMemories:
        return super().parse({**data, "data": [PlacedMemory.parse(each) for each in data["data"]]})


@dataclass(frozen=True)
class FoundMemory(Model):
    memory: Memory
    score: float
    cosine: float | None
    words: float | None

    @classmethod
    def parse(cls, data: Mapping[str, Any]) -> FoundMemory:
        return super().parse({**data, "memory": Memory.parse(data["memory"])})


class Memories:
    """`carrel.memories`. Writing needs the scope `converse`. A token with a subject needs no `subject`, and reaches its own."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def add(
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
        """
        facts = [*memories, *([] if text is None else [{"text": text, **fact}])]
        given = {
            **{"subject": subject, "agent": agent, "session_id": session_id, "extract": extract},
            **{"memories": [dict(each) for each in facts], "messages": [dict(each) for each in messages]},
        }
        body = {name: value for name, value in given.items() if value is not None}
        answer = self._transport.call("POST", "/v1/memories", json=body, idempotency_key=idempotency_key)
        return AddedMemories.parse(answer.json())

    def search(
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
    ) -> list[FoundMemory]:
        """Best first. `as_of`: as was believed then; `valid_at`: what was true then; both RFC 3339."""
        given = {
            **{"query": query, "subject": subject, "agent": agent, "session_id": session_id, "key": key, "tag": tag},
            **{"as_of": as_of, "valid_at": valid_at, "everything": everything, "limit": limit},
        }
        body = {name: value for name, value in given.items() if value is not None}
        answer = self._transport.call("POST", "/v1/memories/search", json=body, repeatable=True).json()
        return [FoundMemory.parse(each) for each in answer["data"]]

    def get(self, memory_id: str, *, as_of: str | None = None) -> Memory:
        params = {} if as_of is None else {"as_of": as_of}
        return Memory.parse(self._transport.call("GET", path_of("/v1/memories", memory_id), params=params).json())

    def list(
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
    ) -> Iterator[Memory]:
        """Oldest first; `everything`: also what is not true any more, or not yet."""
        given = {
            **{"subject": subject, "agent": agent, "session_id": session_id, "key": key, "tag": tag},
            **{"as_of": as_of, "valid_at": valid_at, "everything": "true" if everything else None},
        }
        for item in pages(self._transport, "/v1/memories", page_size, **given):
            yield Memory.parse(item)

    def update(
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
        """A new version with what is given. None takes `key`, `valid_to` and `expires_at` away."""
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
        return Memory.parse(self._transport.call("PATCH", path_of("/v1/memories", memory_id), json=body).json())

    def delete(self, memory_id: str, *, reason: str | None = None) -> None:
        """With all that its history says."""
        params = {} if reason is None else {"reason": reason}
        self._transport.call("DELETE", path_of("/v1/memories", memory_id), params=params)

    def history(self, memory_id: str, *, page_size: int = 100) -> Iterator[MemoryVersion]:
        """Versions, oldest first: who changed it, when and why."""
        for item in pages(self._transport, path_of("/v1/memories", memory_id, "history"), page_size):
            yield MemoryVersion.parse(item)
