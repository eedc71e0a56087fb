"""How an answer came to be, as it is shown on the wire."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Literal

from pydantic import BaseModel, Field

from api.schemas.collections import FusionOut
from config.profiles import Rewrite
from rag.retrieval.explanation import Explanation


class LegOut(BaseModel):
    name: Literal["dense", "lexical"]
    collections: list[str] = Field(description="That it searched: for words only those that have one of them.")
    features: int = Field(description="Of the question in it: dimensions of its vector, or how many words and parts of words.")
    limit: int
    hits: int


class PlaceOut(BaseModel):
    rank: int = Field(description="From 1.")
    score: float = Field(description="The leg's own: cosine similarity, or BM25.")


class ExplainedPassageOut(BaseModel):
    id: str
    score: float = Field(description="As the passage has it.")
    legs: dict[str, PlaceOut] = Field(description="Of those that found it.")
    fused: float | None = Field(None, description="Its score without the support of candidates near it, if it has some.")


class RewriteOut(BaseModel):
    mode: Rewrite
    texts: list[str] = Field(description="Searched for besides what was asked; of `hyde` the passage that might answer.")


class ExplanationOut(BaseModel):
    mode: Literal["hybrid", "dense", "lexical"]
    fusion: FusionOut
    weights: dict[str, float] = Field(description="Of the legs, as they were used for this question.")
    legs: list[LegOut]
    rounds: int = Field(description="How often the engine was asked, each time for more.")
    condition: dict[str, Any] | None = Field(description="What points had to meet, besides tenant and collections.")
    embedding: Literal["cache", "model", "none"] = Field(description="Where the question's vector came from.")
    candidates: int = Field(description="Chunks that the legs found, each once.")
    dropped: dict[str, int] = Field(
        description="Candidates that are no passages: `not_current` (replaced, deleted, or hidden from this key), `filter` "
        "(its stored attributes do not meet it), `beyond_top_k`."
    )
    passages: list[ExplainedPassageOut]
    timings_ms: dict[str, float]
    rewrite: RewriteOut | None = Field(None, description="Null: it was searched for as it was asked.")

    @classmethod
    def of(cls, explanation: Explanation) -> ExplanationOut:
        return cls.model_validate(asdict(explanation))
