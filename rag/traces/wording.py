"""A question as JSON and back, so that it can be asked again as it was."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from datetime import datetime
from typing import Any

from rag.arranging.wishes import NONE, Boost, Recency, Wishes
from rag.filters import Compare, Filter, parse
from rag.recall.recall import RecallQuestion
from rag.retrieval.question import Question

_SIMPLE = (
    *("text", "others", "collections", "top_k", "rerank", "rewrite", "mode", "as_of", "dense_weight", "tuned", "session"),
)
_OF_RECALL = (*("top_k", "neighbours", "said_after", "said_before", "times", "recency", "by_words"),)
_OF_WISHES = tuple(each.name for each in fields(Wishes) if each.name not in ("boosts", "recency"))


def question_to_json(question: Question) -> dict[str, Any]:
    said = {name: getattr(question, name) for name in _SIMPLE}
    if question.filter is not None:
        said["filter"] = filter_to_json(question.filter)
    if question.wishes is not NONE:
        said["wishes"] = _wishes_to_json(question.wishes)
    return said


def question_from_json(said: Mapping[str, Any]) -> Question:
    given = {name: said[name] for name in _SIMPLE if name in said}
    for name in ("others", "collections"):
        given[name] = tuple(given[name])
    filter_ = parse(said["filter"]) if "filter" in said else None
    return Question(**given, filter=filter_, wishes=_wishes_from_json(said.get("wishes")))


def recall_to_json(question: RecallQuestion) -> dict[str, Any]:
    """Without its text and the time that it refers to, which a trace has beside it."""
    said = {name: getattr(question, name) for name in _OF_RECALL}
    return said | {"roles": sorted(question.roles), "tags": question.tags}


def recall_from_json(said: Mapping[str, Any], text: str, asked_at: datetime | None) -> RecallQuestion:
    given = {name: said[name] for name in _OF_RECALL}
    return RecallQuestion(text, **given, roles=frozenset(said["roles"]), tags=tuple(said["tags"]), asked_at=asked_at)


def filter_to_json(filter_: Filter) -> dict[str, Any]:
    """As `rag.filters.parse` takes it."""
    if isinstance(filter_, Compare):
        value = [*filter_.values] if filter_.op in ("in", "nin") else filter_.values[0]
        return {"key": filter_.key, "op": filter_.op, "value": value}
    parts = [filter_to_json(part) for part in filter_.of]
    return {"op": "not", "filter": parts[0]} if filter_.op == "not" else {"op": filter_.op, "filters": parts}


def _wishes_to_json(wishes: Wishes) -> dict[str, Any]:
    said = {name: getattr(wishes, name) for name in _OF_WISHES}
    said["recency"] = None if wishes.recency is None else asdict(wishes.recency)
    said["boosts"] = [{"filter": filter_to_json(boost.filter), "weight": boost.weight} for boost in wishes.boosts]
    return said


def _wishes_from_json(said: Mapping[str, Any] | None) -> Wishes:
    if said is None:
        return NONE
    boosts = tuple(Boost(parse(boost["filter"]), boost["weight"]) for boost in said["boosts"])
    recency = None if said["recency"] is None else Recency(**said["recency"])
    return Wishes(**{name: said[name] for name in _OF_WISHES if name in said}, boosts=boosts, recency=recency)
