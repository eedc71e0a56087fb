"""How an answer came to be: the values that are shown to whoever tunes retrieval."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from config.profiles import Rewrite
from rag.ranking import Fusion, Place

Mode = Literal["hybrid", "dense", "lexical"]


@dataclass(frozen=True, slots=True)
class ExplainedRewrite:
    mode: Rewrite
    texts: tuple[str, ...]  #: searched for besides what was asked; of `hyde` the passage that might answer


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
    fused: float | None = None  #: its score without the support of candidates near it, if it has some


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
    rewrite: ExplainedRewrite | None = None  #: None: it was searched for as it was asked
