"""What goes into memories and what comes out of them, and how much of it there may be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rag.memories.tables import MemoryVersion

MAX_TEXT_CHARS, MAX_KEY_CHARS, MAX_REASON_CHARS = 2_000, 100, 500
MAX_TAGS, MAX_TAG_CHARS = 16, 64
MAX_SOURCES = 16  # of one fact
MAX_SHOWN_SOURCES = 100  # of one memory, the newest
MAX_FACTS = 50  # of one request
MAX_HITS = 100
MAX_VERSIONS = 1_000  # of one memory; confirmations beyond are counted only
ADDED, CONFIRMED, UPDATED, SUPERSEDED, DELETED = "added", "confirmed", "updated", "superseded", "deleted"


UNCHANGED: Any = object()


@dataclass(frozen=True, slots=True)
class Source:
    """A turn of a session, or a document."""

    session_id: str | None = None
    seq: int | None = None
    document_id: str | None = None


@dataclass(frozen=True, slots=True)
class Whose:
    """Memories are told apart by this: facts of one agent or session never confirm or supersede another's."""

    subject: str
    agent: str = ""
    session_id: str = ""


@dataclass(frozen=True, slots=True)
class Fact:
    text: str
    key: str | None = None
    tags: tuple[str, ...] = ()
    data: Mapping[str, Any] = field(default_factory=dict)
    valid_from: int | None = None  #: None: from when it is recorded
    valid_to: int | None = None
    expires_at: int | None = None
    sources: tuple[Source, ...] = ()
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which memories are listed or searched."""

    subject: str | None = None
    agent: str | None = None  #: None: of any and of none
    session_id: str | None = None
    key: str | None = None
    tag: str | None = None
    valid_at: int | None = None  #: true at this time; None: at `as_of`
    as_of: int | None = None  #: as was believed then; None: as is believed now
    everything: bool = False  #: also what is not true any more, or not yet


@dataclass(frozen=True, slots=True)
class Memory:
    """One version, with what is known by then of where it comes from."""

    version: MemoryVersion
    sources: tuple[Source, ...] = ()


@dataclass(frozen=True, slots=True)
class Placed:
    """What became of one fact."""

    outcome: str  #: added or confirmed
    memory: Memory
    superseded: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Change:
    """Of a memory; what is UNCHANGED stays as it is."""

    text: str | None = None
    key: Any = UNCHANGED
    tags: tuple[str, ...] | None = None
    data: Mapping[str, Any] | None = None
    valid_from: int | None = None
    valid_to: Any = UNCHANGED
    expires_at: Any = UNCHANGED
    sources: tuple[Source, ...] = ()
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Added:
    placed: tuple[Placed, ...]
    charged: int = 0  #: tokens of the embedding model
    llm_tokens: int = 0
    degraded: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MemoryHit:
    memory: Memory
    score: float  #: 1 would be the best by meaning and by words
    cosine: float | None  #: None: its vector is of another model, or the question has none
    words: float | None  #: BM25; None: no word in common


@dataclass(frozen=True, slots=True)
class Found:
    hits: tuple[MemoryHit, ...]
    charged: int = 0
    degraded: tuple[str, ...] = ()
    vector: Any = None  #: of the question; None: by words alone
    at: int = 0  #: of when it is
