"""Filters as the OpenAI SDK writes them, in Carrel's language. Their bounds are that language's."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from api.schemas.documents import Input, Text
from rag.filters import MAX_NODES

Value = Text | float | bool


class ComparisonIn(Input):
    type: Literal["eq", "ne", "gt", "gte", "lt", "lte", "in", "nin"]
    key: Text
    value: Value | list[Value]


class CompoundIn(Input):
    type: Literal["and", "or"]
    filters: list[FilterIn] = Field(min_length=1, max_length=MAX_NODES)


FilterIn = Annotated[ComparisonIn | CompoundIn, Field(discriminator="type")]


def native(given: ComparisonIn | CompoundIn) -> dict[str, Any]:
    if isinstance(given, CompoundIn):
        return {"op": given.type, "filters": [native(each) for each in given.filters]}
    return {"op": given.type, "key": given.key, "value": given.value}
