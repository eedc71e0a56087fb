"""What is asked and what is answered: the values that retrieval takes and gives, and their bounds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from config.errors import InvalidInput
from config.profiles import Rewrite
from rag.arranging.wishes import NONE, Wishes
from rag.embedding.runtime import Matrix
from rag.filters import Filter
from rag.ranking import Ranked
from rag.retrieval.explanation import Explanation, Mode
from rag.splitting.parents import ParentKey
from rag.types import MAX_QUESTION_CHARS

MAX_TOP_K, MAX_COLLECTIONS, MAX_PHRASINGS = 100, 20, 5


@dataclass(frozen=True, slots=True)
class Question:
    text: str
    collections: tuple[str, ...]
    top_k: int = 10
    filter: Filter | None = None
    others: tuple[str, ...] = ()  #: further phrasings; a passage counts by the one that it is nearest to
    wishes: Wishes = NONE
    rerank: bool | None = None  #: None: as the profiles of the collections say
    rewrite: Rewrite | None = None  #: by a language model, before it is searched for; None: as the profiles say
    mode: Mode = "hybrid"
    explain: bool = False
    as_of: int | None = None  #: answer as of then, Unix milliseconds; None: now
    dense_weight: float | None = None  #: of fusion; None: as the first collection is tuned, or its profile says
    tuned: bool = True  #: whether what the collections are tuned to is used
    session: str | None = None  #: what is attached to it is searched too, and then no collection needs to be

    def __post_init__(self) -> None:
        if not all(text.strip() for text in self.phrasings):
            raise InvalidInput("A query needs text.", field="query")
        if max(map(len, self.phrasings)) > MAX_QUESTION_CHARS:
            raise InvalidInput(f"A query has at most {MAX_QUESTION_CHARS} characters.", field="query", limit=MAX_QUESTION_CHARS)
        if len(self.phrasings) > MAX_PHRASINGS:
            raise InvalidInput(f"At most {MAX_PHRASINGS} phrasings.", field="queries", limit=MAX_PHRASINGS)
        if not 1 <= self.top_k <= MAX_TOP_K:
            raise InvalidInput(f"`top_k` is 1 to {MAX_TOP_K}.", field="top_k", limit=MAX_TOP_K)
        least = 1 if self.session is None else 0
        if not least <= len(self.collections) <= MAX_COLLECTIONS:
            raise InvalidInput(f"1 to {MAX_COLLECTIONS} collections.", field="collections", limit=MAX_COLLECTIONS)

    @property
    def phrasings(self) -> tuple[str, ...]:
        return (self.text, *self.others)


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
    version_id: str = ""
    ordinal: int = 0  #: its place among the version's chunks
    created_at: int = 0  #: when its version was brought, Unix milliseconds
    warnings: tuple[str, ...] = ()  #: of its document, such as hidden text
    former: bool = False  #: whether its version was replaced since
    relevance: float | None = None  #: what the score means, 0 to 1; None for a model that was not measured
    boost: float = 0.0  #: that was asked for
    rerank_score: float | None = None
    parent: ParentKey | None = None  #: of the chunk that was found, where its profile returns parents
    neighbour_of: str | None = None  #: id of the passage beside which it stands, if it was not found itself

    @property
    def rank(self) -> float:
        """By which passages are ordered."""
        return (self.score if self.rerank_score is None else self.rerank_score) + self.boost


@dataclass(frozen=True, slots=True)
class AskedOf:
    """A collection as it was when it was asked."""

    name: str
    generation: int
    profile: str
    tuning: int  #: the active version; 0: it was not tuned


@dataclass(frozen=True, slots=True)
class Searched:
    """What was searched for in the end, and of what: enough to do it again."""

    phrasings: tuple[str, ...]  #: with those of a language model
    vectors: Matrix | None  #: of each phrasing; None: without the dense leg
    at: int  #: Unix milliseconds that ages were counted from
    collections: tuple[AskedOf, ...]
    ranked: tuple[Ranked, ...] = ()  #: all that the legs found, with their places; of an answer that is given again, none


@dataclass(frozen=True, slots=True)
class Again:
    """How a question is asked once more."""

    vectors: Matrix | None  #: those of then; None: it is embedded anew
    at: int  #: Unix milliseconds that ages are counted from
    profile: str | None = None  #: to search as this one says; None: as the collections' do


@dataclass(frozen=True, slots=True)
class Answer:
    passages: tuple[Passage, ...]
    charged: int
    cached: int
    generations: Mapping[str, int]  #: of each collection, read before the search
    timings_ms: Mapping[str, float] = field(default_factory=dict)
    rerank_tokens: int = 0  #: charged for reranking
    llm_tokens: int = 0  #: of a language model, charged for rewriting
    degraded: tuple[str, ...] = ()  #: legs and steps that were wanted and left out
    explanation: Explanation | None = None
    reused: bool = False  #: whether it was computed before, from the same collections at the same generations
    similarity: float | None = None  #: where it answered another question then: the cosine of the two
    searched: Searched | None = None
