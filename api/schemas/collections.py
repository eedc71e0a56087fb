"""Collections and profiles as they are shown on the wire."""

from __future__ import annotations

from dataclasses import asdict
from typing import Literal

from pydantic import BaseModel, Field

from config.clock import isoformat
from config.profiles import Rewrite, Splitter
from ingestion.placement import Placed
from rag.corpus import Collection
from rag.profiles import NamedProfile


class ChunkingOut(BaseModel):
    """How a text is cut, in tokens of the embedding model."""

    chunk_tokens: int
    context_tokens: int = Field(description="Title and headings, embedded before each chunk.")
    overlap_tokens: int = Field(description="At most, of a chunk with the one before it.")
    splitter: Splitter = Field(description="`auto` goes by the document's format.")
    parent_tokens: int = Field(0, description="Of the passages returned in place of chunks; 0 returns chunks.")


class FusionOut(BaseModel):
    """How the dense and the lexical leg of a query become one ranking."""

    method: Literal["score", "rrf"]
    dense_weight: float = Field(description="Of 1; the rest is the lexical leg's.")
    unspaced_dense_weight: float = Field(description="The same, of questions in scripts without blanks between words.")
    candidates: int = Field(description="Of each leg, at least.")
    support: float = Field(description="Of a candidate's score, that its nearest other candidates make up.")


class ProfileOut(BaseModel):
    name: str
    chunking: ChunkingOut
    fusion: FusionOut
    priority: Literal["high", "normal", "low"] = Field(description="Of its jobs: a higher one is taken first.")
    rerank: bool = Field(description="Whether passages are reranked, where a reranker is configured.")
    rewrite: Rewrite = Field(description="How questions are worded anew that do not say, where a language model is configured.")

    @classmethod
    def of(cls, profile: NamedProfile) -> ProfileOut:
        return cls.model_validate(asdict(profile))


class ProfilesOut(BaseModel):
    data: list[ProfileOut]


Duplicates = Literal["keep", "link", "skip"]


class PlacementIn(BaseModel):
    placement: Literal["shared", "dedicated", "auto"] = Field(description="`auto` goes by its number of points.")


class PlacementOut(BaseModel):
    collection: str
    placement: Literal["shared", "dedicated"]
    chosen: bool = Field(description="Whether an operator chose it, or its number of points.")
    settled: bool = Field(description="Whether its vectors lie so; else they are about to be moved.")
    points: int = Field(description="In the shard of its own, if it has one.")
    indexed: int | None = Field(description="Of them, how many its graph (HNSW) leads to; null if the store does not say.")

    @classmethod
    def of(cls, placed: Placed) -> PlacementOut:
        row = placed.collection
        return cls.model_validate(
            {
                "collection": row.name,
                "placement": row.placement,
                "chosen": row.placement_chosen,
                "settled": placed.settled,
                "points": placed.points,
                "indexed": placed.indexed,
            }
        )


class AttributeOut(BaseModel):
    kind: Literal["string", "number", "bool", "datetime", "mixed"] = Field(description="`mixed`: documents brought several.")
    declared: bool = Field(description="Values and filters of another kind are refused. Else inferred from documents.")


class CollectionOut(BaseModel):
    id: str
    name: str
    documents: int
    space: str = Field(description="Fingerprint of the embedding model the collection was made with.")
    placement: str = Field(description="Where its vectors are to lie: `shared` or `dedicated`.")
    profile: str
    near_duplicates: Duplicates
    near_threshold: float
    semantic_cache: bool
    semantic_threshold: float
    keep_versions_days: int
    attributes: dict[str, AttributeOut] = Field(description="Of its documents, as far as they are known.")
    created_at: str

    @classmethod
    def of(cls, row: Collection, documents: int) -> CollectionOut:
        fields = {"documents": documents, "space": row.space_id, "created_at": isoformat(row.created_at)}
        shown = {**row.model_dump(), **fields, "attributes": row.attribute_types}
        return cls.model_validate(shown)
