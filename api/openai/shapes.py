"""What the shapes of all these routes have in common: lists, times, attributes, and how texts are cut."""

from __future__ import annotations

from typing import Annotated, Any, Generic, Literal, TypeVar

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, Field, model_validator

from api.routing import router
from api.schemas.documents import Input, Text
from ingestion.stores.members import STATUSES
from ingestion.stores.paging import PageWish
from rag.profiles import Chunking

T = TypeVar("T")
Order = Literal["asc", "desc"]
Status = Literal["in_progress", "completed", "failed", "cancelled"]
Attributes = dict[Text, Text | float | bool]
POLL_HEADER, POLL_MS = "openai-poll-after-ms", "500"
MAX_METADATA, MAX_KEY_CHARS, MAX_VALUE_CHARS = 16, 64, 512
Metadata = dict[
    Annotated[Text, Field(min_length=1, max_length=MAX_KEY_CHARS)], Annotated[Text, Field(max_length=MAX_VALUE_CHARS)]
]


def openai_router() -> APIRouter:
    return router("OpenAI")


async def _wish(
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    order: Annotated[Order, Query(description="By the time of creation.")] = "desc",
    after: Annotated[Text | None, Query(description="Id of the object that the page follows.")] = None,
    before: Annotated[Text | None, Query(description="Id of the object that the page precedes.")] = None,
) -> PageWish:
    return PageWish(limit, after, before, order == "desc")


Paged = Annotated[PageWish, Depends(_wish)]


class ListOut(BaseModel, Generic[T]):
    object: Literal["list"] = "list"
    data: list[T]
    first_id: str | None
    last_id: str | None
    has_more: bool

    @classmethod
    def of(cls, data: list[Any], more: bool) -> ListOut[T]:
        ids = [item.id for item in data]
        return cls(data=data, first_id=ids[0] if ids else None, last_id=ids[-1] if ids else None, has_more=more)


class StaticSizes(Input):
    max_chunk_size_tokens: int = Field(ge=100, le=4096)
    chunk_overlap_tokens: int = Field(ge=0, le=2048)

    @model_validator(mode="after")
    def _overlap(self) -> StaticSizes:
        if self.chunk_overlap_tokens > self.max_chunk_size_tokens // 2:
            raise ValueError("`chunk_overlap_tokens` is at most half of `max_chunk_size_tokens`")
        return self


class AutoStrategy(Input):
    type: Literal["auto"]


class StaticStrategy(Input):
    type: Literal["static"]
    static: StaticSizes


Strategy = Annotated[AutoStrategy | StaticStrategy, Field(discriminator="type")]


def sizes_of(strategy: AutoStrategy | StaticStrategy | None) -> tuple[int, int] | None:
    if not isinstance(strategy, StaticStrategy):
        return None
    return strategy.static.max_chunk_size_tokens, strategy.static.chunk_overlap_tokens


class SizesOut(BaseModel):
    max_chunk_size_tokens: int = Field(description="As it is really cut, in tokens of the embedding model.")
    chunk_overlap_tokens: int


class StrategyOut(BaseModel):
    type: Literal["static"] = "static"
    static: SizesOut

    @classmethod
    def of(cls, chunking: Chunking) -> StrategyOut:
        return cls(static=SizesOut(max_chunk_size_tokens=chunking.chunk_tokens, chunk_overlap_tokens=chunking.overlap_tokens))


class FileCounts(BaseModel):
    in_progress: int
    completed: int
    failed: int
    cancelled: int
    total: int

    @classmethod
    def of(cls, counts: Any) -> FileCounts:
        known = {status: counts.get(status, 0) for status in STATUSES}
        return cls(**known, total=sum(known.values()))


def seconds(unix_ms: int) -> int:
    return unix_ms // 1000
