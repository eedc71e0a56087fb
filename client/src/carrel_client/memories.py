"""Memories: what is known of an end user, by the verbs that people know: add, search, get, list, update, delete, history."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from carrel_client.models import Model

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


@dataclass(frozen=True)
class FoundMemories(Model):
    data: list[FoundMemory]  #: best first
    tokens: int
    degraded: list[str]  #: ["dense"]: words had to do

    @classmethod
    def parse(cls, data: Mapping[str, Any]) -> FoundMemories:
        return super().parse({**data, "data": [FoundMemory.parse(each) for each in data["data"]]})
