"""Questions: passages, contexts packed from them, and a passage in its place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict


class Wishes(TypedDict, total=False):
    """What a question can ask for besides its words; what is None is left to the service."""

    queries: Sequence[str] | None  #: other phrasings
    collections: Sequence[str] | None
    filter: Mapping[str, Any] | None
    diversity: Mapping[str, Any] | None  #: collapse, per_document, mmr
    expand: Mapping[str, int] | None  #: before, after
    boosts: Sequence[Mapping[str, Any]] | None  #: each a filter and a weight
    recency: Mapping[str, float] | None  #: weight, half_life_days
    min_relevance: float | None
    group_by: str | None
    group_size: int | None
    rerank: bool | None
    rewrite: str | None  #: by a language model before the search: multi_query, hyde, decompose or none
    as_of: str | int | None  #: answer as of then: ISO 8601 with its zone, or Unix milliseconds
    mode: str | None  #: hybrid (default), dense or lexical
    dense_weight: float | None  #: 0 to 1: of meaning; the rest is that of words
    tuned: bool | None  #: False leaves out what the collections are tuned to
    explain: bool | None  #: say how the answer came to be


class SessionWishes(Wishes, total=False):
    """What a context of a session can ask for beside that."""

    strategy: str | None  #: hybrid (default), recent, recall or documents
    memories: bool | None  #: also what is remembered of the subject
    shares: Mapping[str, float] | None  #: of the budget: recent, summary, memories, documents, recalled
    newest_turns: int | None  #: so many stand in it, or InvalidRequestError says how much they lack
    recall_top_k: int | None
    pins: Sequence[str] | None  #: texts that stand first
    knowledge: str | None  #: where what was found stands: last (default) or system
