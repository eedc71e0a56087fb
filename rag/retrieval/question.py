"""What is asked and what is answered: the values that retrieval takes and gives, and their bounds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from config.errors import InvalidInput
from rag.filters import Filter
from rag.ranking import Fusion, Place

MAX_QUESTION_CHARS, MAX_TOP_K, MAX_COLLECTIONS = 8_000, 100, 20

Mode = Literal["hybrid", "dense", "lexical"]


@dataclass(frozen=True, slots=True)
class Question:
    text: str
    collections: tuple[str, ...]
    top_k: int = 10
    filter: Filter | None = None
    mode: Mode = "hybrid"
    explain: bool = False

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
    score: float  #: fused, 0 to 1; of one leg alone: cosine similarity or BM25
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
    degraded: tuple[str, ...] = ()  #: legs that could not take part
    explanation: Explanation | None = None


@dataclass(frozen=True, slots=True)
class ExplainedLeg:
    name: str
    collections: tuple[str, ...]
    features: int  #: of the query in it: dimensions of its vector, or words
    limit: int
    hits: int


@dataclass(frozen=True, slots=True)
class ExplainedPassage:
    id: str
    score: float
    legs: Mapping[str, Place]  #: of those that found it, with ranks from 1 and their own scores


@dataclass(frozen=True, slots=True)
class Explanation:
    """How an answer came to be. Names nothing that the reader may not see: of what was dropped there are only counts."""

    mode: Mode
    fusion: Fusion
    weights: Mapping[str, float]
    legs: tuple[ExplainedLeg, ...]
    rounds: int  #: of asking the engine, each for more
    condition: Mapping[str, Any] | None  #: as the engine was given it
    embedding: str  #: of the question: "cache", "model" or "none"
    candidates: int  #: that the legs found together
    dropped: Mapping[str, int]
    passages: tuple[ExplainedPassage, ...]
    timings_ms: Mapping[str, float]
