"""What is asked and what is answered: the values that retrieval takes and gives, and their bounds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from config.errors import InvalidInput
from rag.filters import Filter

MAX_QUESTION_CHARS, MAX_TOP_K, MAX_COLLECTIONS = 8_000, 100, 20


@dataclass(frozen=True, slots=True)
class Question:
    text: str
    collections: tuple[str, ...]
    top_k: int = 10
    filter: Filter | None = None

    def __post_init__(self) -> None:
        if not self.text.strip():
            raise InvalidInput("A query needs text.", field="query")
        if len(self.text) > MAX_QUESTION_CHARS:
            raise InvalidInput(f"A query has at most {MAX_QUESTION_CHARS} characters.", field="query", limit=MAX_QUESTION_CHARS)
        if not 1 <= self.top_k <= MAX_TOP_K:
            raise InvalidInput(f"`top_k` is 1 to {MAX_TOP_K}.", field="top_k", limit=MAX_TOP_K)
        if not 1 <= len(self.collections) <= MAX_COLLECTIONS:
            raise InvalidInput(f"1 to {MAX_COLLECTIONS} collections.", field="collections", limit=MAX_COLLECTIONS)


@dataclass(frozen=True, slots=True)
class Passage:
    """A cited piece of a document: `text` is exactly characters `start` to `end` of the version's text."""

    id: str
    score: float  #: cosine similarity, −1 to 1
    text: str
    start: int
    end: int
    document_id: str
    external_id: str
    version: int
    collection: str
    title: str
    source: str | None
    headings: tuple[str, ...]
    first_page: int | None
    last_page: int | None
    attributes: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    passages: tuple[Passage, ...]
    charged: int
    cached: int
    generations: Mapping[str, int]  #: of each collection, read before the search
    timings_ms: Mapping[str, float] = field(default_factory=dict)
