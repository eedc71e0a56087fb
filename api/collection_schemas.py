"""Collections and profiles as they are shown on the wire."""

from __future__ import annotations

from dataclasses import asdict
from typing import Literal

from pydantic import BaseModel, Field

from config.clock import isoformat
from config.profiles import Splitter
from rag.corpus import Collection
from rag.profiles import NamedProfile


class ChunkingOut(BaseModel):
    """How a text is cut, in tokens of the embedding model."""

    chunk_tokens: int
    context_tokens: int = Field(description="Title and headings, embedded before each chunk.")
    overlap_tokens: int = Field(description="At most, of a chunk with the one before it.")
    splitter: Splitter = Field(description="`auto` goes by the document's format.")
    parent_tokens: int = Field(0, description="Of the passages returned in place of chunks; 0 returns chunks.")


class ProfileOut(BaseModel):
    name: str
    chunking: ChunkingOut
    priority: Literal["high", "normal", "low"] = Field(description="Of its jobs: a higher one is taken first.")
    rerank: bool = Field(description="Recorded, not yet used.")
    rewrite: bool = Field(description="Recorded, not yet used.")

    @classmethod
    def of(cls, profile: NamedProfile) -> ProfileOut:
        return cls.model_validate(asdict(profile))


class ProfilesOut(BaseModel):
    data: list[ProfileOut]


Duplicates = Literal["keep", "link", "skip"]


class CollectionOut(BaseModel):
    id: str
    name: str
    documents: int
    space: str = Field(description="Fingerprint of the embedding model the collection was made with.")
    placement: str
    profile: str
    near_duplicates: Duplicates
    near_threshold: float
    semantic_cache: bool
    semantic_threshold: float
    created_at: str

    @classmethod
    def of(cls, row: Collection, documents: int) -> CollectionOut:
        shown = {**row.model_dump(), "documents": documents, "space": row.space_id, "created_at": isoformat(row.created_at)}
        return cls.model_validate(shown)
