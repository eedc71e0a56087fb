"""Dify's external knowledge API on the wire, and its conditions in our language of filters."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from api.schemas.documents import Text
from config.errors import InvalidInput
from rag.filters import MAX_NODES
from rag.retrieval.question import MAX_TOP_K, Passage
from rag.types import MAX_QUESTION_CHARS

#: Its operators, and ours. `contains`, `not contains`, `start with` and `end with` have none: no index answers them.
OPERATORS = {
    **{"is": "eq", "=": "eq", "is not": "ne", "≠": "ne", "in": "in", "not in": "nin"},
    **{">": "gt", "<": "lt", "≥": "gte", "≤": "lte", "after": "gt", "before": "lt"},
}


class _Lenient(BaseModel):
    """Dify may send more one day: what is not known is passed over."""

    model_config = ConfigDict(extra="ignore")


class ConditionIn(_Lenient):
    name: Text | list[Text] = Field(description="Of an attribute; of several, one must meet the condition.")
    comparison_operator: Text
    value: Any = None

    def filter(self) -> dict[str, Any]:
        names = [self.name] if isinstance(self.name, str) else self.name
        if not names:
            raise InvalidInput("A condition names an attribute.", field="metadata_condition.conditions.name")
        parts = [self._of(name) for name in names]
        return parts[0] if len(parts) == 1 else {"op": "or", "filters": parts}

    def _of(self, name: str) -> dict[str, Any]:
        if self.comparison_operator in ("empty", "not empty"):
            exists = {"key": name, "op": "exists", "value": self.comparison_operator == "not empty"}
            return exists
        if (op := OPERATORS.get(self.comparison_operator)) is None:
            known = ", ".join([*OPERATORS, "empty", "not empty"])
            raise InvalidInput(f"This operator is not supported; there are {known}.", field="comparison_operator")
        return {"key": name, "op": op, "value": self.value}


class MetadataConditionIn(_Lenient):
    logical_operator: Literal["and", "or"] = "and"
    conditions: list[ConditionIn] = Field(default_factory=list, max_length=MAX_NODES)

    def filter(self) -> dict[str, Any] | None:
        parts = [condition.filter() for condition in self.conditions]
        return {"op": self.logical_operator, "filters": parts} if parts else None


class RetrievalSettingIn(_Lenient):
    top_k: int = Field(4, ge=1, le=MAX_TOP_K)
    score_threshold: float = Field(0.0, ge=0, le=1, allow_inf_nan=False)


class RetrievalIn(_Lenient):
    knowledge_id: Text = Field(description="Name of a collection.")
    query: Annotated[Text, Field(min_length=1, max_length=MAX_QUESTION_CHARS)]
    retrieval_setting: RetrievalSettingIn = Field(default_factory=RetrievalSettingIn)
    metadata_condition: MetadataConditionIn | None = None


class RecordOut(BaseModel):
    content: str
    score: float = Field(description="0 to 1: how often such a passage answered, where that was measured; else as in a query.")
    title: str
    metadata: dict[str, Any] = Field(description="The document's attributes, and what is needed to cite it.")

    @classmethod
    def of(cls, passage: Passage, score: float) -> RecordOut:
        cited = {name: getattr(passage, name) for name in ("document_id", "external_id", "start", "end", "source")}
        cited |= {"passage_id": passage.id, "page": passage.first_page, "collection": passage.collection}
        metadata = {**passage.attributes, **{name: value for name, value in cited.items() if value is not None}}
        return cls(content=passage.text, score=score, title=passage.title, metadata=metadata)


class RecordsOut(BaseModel):
    records: list[RecordOut]
