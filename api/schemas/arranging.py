"""What a question may ask for beyond its words, as it is on the wire."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from config.errors import InvalidInput
from rag.arranging.wishes import MAX_BOOSTS, MAX_NEIGHBOURS, MAX_PER_DOCUMENT, MAX_WEIGHT, Boost, Recency, Wishes
from rag.filters import parse

MAX_GROUP = 20


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class BoostIn(_Part):
    filter: dict[str, Any] = Field(description="Over attributes, as a query's own filter.")
    weight: float = Field(ge=-MAX_WEIGHT, le=MAX_WEIGHT, description="Added to the score where the filter holds.")


class RecencyIn(_Part):
    weight: float = Field(gt=0, le=MAX_WEIGHT, description="Added to the score of what was brought just now.")
    half_life_days: float = Field(30, gt=0, le=36500, description="After so many days half of it is added.")


class DiversityIn(_Part):
    collapse: bool = Field(False, description="Of several nearly equal texts, only the best one.")
    per_document: int | None = Field(None, ge=1, le=MAX_PER_DOCUMENT, description="Passages of one document at most.")
    mmr: float | None = Field(
        None, ge=0, le=1, description="Maximal marginal relevance: 1 by score alone, 0 as unlike each other as can be."
    )


class ExpandIn(_Part):
    before: int = Field(0, ge=0, le=MAX_NEIGHBOURS, description="Chunks before each passage.")
    after: int = Field(0, ge=0, le=MAX_NEIGHBOURS, description="Chunks after each passage.")


class ArrangingIn(BaseModel):
    """Nothing of this is done, or costs anything, unless it is asked for."""

    diversity: DiversityIn | None = None
    expand: ExpandIn | None = Field(None, description="Neighbours of each passage, which stand behind it and name it.")
    boosts: list[BoostIn] = Field(default_factory=list, max_length=MAX_BOOSTS)
    recency: RecencyIn | None = None
    min_relevance: float | None = Field(
        None, ge=0, le=1, description="Only passages of at least this `relevance`; 422 for a model that was not measured."
    )
    group_by: Literal["document"] | None = Field(None, description="Then `top_k` counts documents.")
    group_size: int = Field(3, ge=1, le=MAX_GROUP, description="With `group_by`: passages of each document at most.")
    rerank: bool | None = Field(
        None, description="Whether the configured reranker looks at the best; left out, the collections' profiles say."
    )

    def wishes(self) -> Wishes:
        diversity, expand, recency = self.diversity or DiversityIn(), self.expand or ExpandIn(), self.recency
        return Wishes(
            min_relevance=self.min_relevance,
            boosts=tuple(Boost(_filter(boost.filter, place), boost.weight) for place, boost in enumerate(self.boosts)),
            recency=None if recency is None else Recency(recency.weight, recency.half_life_days),
            collapse=diversity.collapse,
            per_document=diversity.per_document,
            mmr=diversity.mmr,
            before=expand.before,
            after=expand.after,
            group=self.group_size if self.group_by else None,
        )


def _filter(given: dict[str, Any], place: int) -> Any:
    try:
        return parse(given)
    except InvalidInput as error:
        raise InvalidInput(error.detail, field=f"boosts.{place}.{error.field}", limit=error.limit) from error
