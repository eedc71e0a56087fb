"""Vector stores on the wire: made, shown, changed, and asked."""

from __future__ import annotations

from typing import Any, Literal

from fastapi.exceptions import RequestValidationError
from pydantic import AwareDatetime, BaseModel, Field, ValidationError

from api.openai.filters import FilterIn, native
from api.openai.shapes import MAX_METADATA, FileCounts, Metadata, Strategy, seconds
from api.schemas.arranging import ArrangingIn
from api.schemas.documents import Input, Text
from api.schemas.query import QueryIn, address_of
from config.errors import InvalidInput
from config.profiles import STANDARD, Rewrite
from ingestion.stores.stores import ShownStore
from rag.retrieval.explanation import Mode
from rag.retrieval.question import MAX_PHRASINGS, Answer, Passage, Question

MAX_NAME_CHARS, MAX_DESCRIPTION_CHARS, MAX_FILE_IDS, MAX_RESULTS = 256, 2_000, 500, 50


class StoreExpiry(Input):
    anchor: Literal["last_active_at"]
    days: int = Field(ge=1, le=365)


class StoreOptions(Input):
    """What Carrel knows besides."""

    profile: Text = Field(STANDARD, description="How its files are cut: one of `GET /v1/profiles`.")


class StoreIn(Input):
    name: Text = Field("", max_length=MAX_NAME_CHARS)
    description: Text | None = Field(None, max_length=MAX_DESCRIPTION_CHARS)
    file_ids: list[Text] = Field(default_factory=list, max_length=MAX_FILE_IDS)
    expires_after: StoreExpiry | None = None
    chunking_strategy: Strategy | None = Field(None, description="Of `file_ids`.")
    metadata: Metadata | None = Field(None, max_length=MAX_METADATA)
    carrel: StoreOptions = Field(default_factory=StoreOptions)


class StorePatch(Input):
    name: Text | None = Field(None, max_length=MAX_NAME_CHARS)
    expires_after: StoreExpiry | None = None
    metadata: Metadata | None = Field(None, max_length=MAX_METADATA)

    def changes(self) -> dict[str, Any]:
        """Of what is given; null takes a policy or metadata away."""
        given: dict[str, Any] = {}
        if self.name is not None:
            given["name"] = self.name
        if "expires_after" in self.model_fields_set:
            given["expires_days"] = None if self.expires_after is None else self.expires_after.days
        if "metadata" in self.model_fields_set:
            given["notes"] = self.metadata or {}
        return given


class StoreOut(BaseModel):
    id: str
    object: Literal["vector_store"] = "vector_store"
    created_at: int
    name: str
    description: str | None
    usage_bytes: int
    file_counts: FileCounts
    status: Literal["in_progress", "completed", "expired"]
    expires_after: StoreExpiry | None
    expires_at: int | None
    last_active_at: int
    metadata: dict[str, str]

    @classmethod
    def of(cls, shown: ShownStore) -> StoreOut:
        row = shown.row
        expiry = None if row.expires_days is None else StoreExpiry(anchor="last_active_at", days=row.expires_days)
        return cls(
            id=row.id,
            created_at=seconds(row.created_at),
            name=row.name,
            description=row.description,
            usage_bytes=shown.usage_bytes,
            file_counts=FileCounts.of(shown.counts),
            status=shown.status,
            expires_after=expiry,
            expires_at=None if shown.expires_at is None else seconds(shown.expires_at),
            last_active_at=seconds(row.last_active_at),
            metadata=row.notes,
        )


class StoreDeleted(BaseModel):
    id: str
    object: Literal["vector_store.deleted"] = "vector_store.deleted"
    deleted: Literal[True] = True


class RankingIn(Input):
    ranker: Literal["none", "auto", "default-2024-11-15"] | None = Field(
        None, description="`none` leaves out a configured reranker; else the collection's profile says."
    )
    score_threshold: float | None = Field(None, ge=0, le=1)


class SearchOptions(Input, ArrangingIn):
    """What a native query can ask for besides."""

    as_of: AwareDatetime | None = None
    mode: Mode = "hybrid"
    dense_weight: float | None = Field(None, ge=0, le=1)
    tuned: bool = True
    rewrite: Rewrite | None = None


class SearchIn(Input):
    query: Text | list[Text] = Field(description=f"One, or up to {MAX_PHRASINGS} phrasings.")
    filters: FilterIn | None = Field(None, examples=[{"type": "gte", "key": "year", "value": 2020}])
    max_num_results: int = Field(10, ge=1, le=MAX_RESULTS)
    ranking_options: RankingIn = Field(default_factory=RankingIn)
    rewrite_query: bool | None = Field(None, description="By the configured language model, if there is one.")
    carrel: SearchOptions = Field(default_factory=SearchOptions)

    @property
    def queries(self) -> list[str]:
        return [self.query] if isinstance(self.query, str) else list(dict.fromkeys(self.query))

    @property
    def threshold(self) -> float:
        return self.ranking_options.score_threshold or 0.0

    def question(self, store_id: str, *, rewrites: bool) -> Question:
        """`rewrites`: whether there is a language model to word questions anew."""
        if not 1 <= len(self.queries) <= MAX_PHRASINGS:
            raise InvalidInput(f"1 to {MAX_PHRASINGS} queries.", field="query", limit=MAX_PHRASINGS)
        asked = self.carrel.model_dump(exclude_unset=True)
        if self.ranking_options.ranker == "none":
            asked["rerank"] = False
        if self.rewrite_query is not None and "rewrite" not in asked:
            asked["rewrite"] = "multi_query" if self.rewrite_query and rewrites else "none"
        asked |= {"queries": self.queries, "collections": [store_id], "top_k": self.max_num_results}
        asked["filter"] = None if self.filters is None else native(self.filters)
        try:
            return QueryIn.model_validate(asked).question()
        except ValidationError as error:
            raise RequestValidationError(error.errors()) from error


class ContentOut(BaseModel):
    type: Literal["text"] = "text"
    text: str


class ResultOut(BaseModel):
    """`text` is exactly characters `start` to `end` of the document's text."""

    file_id: str
    filename: str
    score: float
    attributes: dict[str, Any]
    content: list[ContentOut]
    chunk_id: str
    document_id: str
    version: int
    start: int
    end: int
    page: int | None
    last_page: int | None
    title: str
    headings: list[str]
    relevance: float | None
    url: str = Field(description="Where the passage is shown inside its text, relative to the service's address.")

    @classmethod
    def of(cls, passage: Passage, names: dict[str, str]) -> ResultOut:
        """What was brought by the native API has no file: its document stands for it."""
        is_file = passage.external_id in names
        return cls(
            file_id=passage.external_id if is_file else passage.document_id,
            filename=names.get(passage.external_id, passage.source or passage.title),
            score=score_of(passage),
            attributes=dict(passage.attributes),
            content=[ContentOut(text=passage.text)],
            chunk_id=passage.id,
            document_id=passage.document_id,
            version=passage.version,
            start=passage.start,
            end=passage.end,
            page=passage.first_page,
            last_page=passage.last_page,
            title=passage.title,
            headings=list(passage.headings),
            relevance=passage.relevance,
            url=address_of(passage),
        )


def score_of(passage: Passage) -> float:
    return passage.score if passage.rerank_score is None else passage.rerank_score


class SearchUsage(BaseModel):
    embedding_tokens: int
    cached_tokens: int
    degraded: list[str]


class SearchOut(BaseModel):
    object: Literal["vector_store.search_results.page"] = "vector_store.search_results.page"
    search_query: list[str]
    data: list[ResultOut]
    has_more: Literal[False] = False
    next_page: None = None
    carrel: SearchUsage

    @classmethod
    def of(cls, body: SearchIn, answer: Answer, passages: list[Passage], names: dict[str, str]) -> SearchOut:
        usage = SearchUsage(embedding_tokens=answer.charged, cached_tokens=answer.cached, degraded=list(answer.degraded))
        return cls(search_query=body.queries, data=[ResultOut.of(one, names) for one in passages], carrel=usage)
