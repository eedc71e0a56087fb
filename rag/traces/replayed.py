"""What a replay is asked for, and what it tells."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import unified_diff
from typing import Any

from rag.retrieval.question import Answer
from rag.traces.conversation_difference import ConversationDifference
from rag.traces.difference import OVERLAPS, Difference
from rag.traces.tables import Trace

SNIPPET = 160  # characters of a passage or a turn that a report shows
MAX_DIFF = 400  # lines of a context's difference


@dataclass(frozen=True, slots=True)
class Otherwise:
    """What is done otherwise than then; None: as it was, or as it is set today."""

    profile: str | None = None  #: whose fusion and reranking are used; chunks are what they were brought as
    collections: tuple[str, ...] | None = None
    as_of: int | None = None  #: Unix milliseconds
    now: bool = False  #: of conversations as they stand today, in place of how they stood
    tuned: bool | None = None
    fresh_vector: bool = False  #: embed the question anew, which costs its tokens


@dataclass(frozen=True, slots=True)
class ContextDifference:
    """Of two packed contexts. `lines`: a unified diff, empty if they are equal."""

    equal: bool
    tokens_then: int
    tokens_now: int
    of: str  #: text, or outline where the text of then cannot be put together any more
    lines: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Replayed:
    trace: Trace
    body: Mapping[str, Any]  #: of the trace
    query: str  #: what was asked; empty where nothing was
    answer: Answer  #: of documents
    difference: Difference  #: of documents' passages
    vector: str  #: stored, fresh or none
    degraded: tuple[str, ...]
    charged: int
    context: ContextDifference | None = None
    conversation: ConversationDifference | None = None
    snippets: Mapping[str, str] = field(default_factory=dict)  #: beginnings of passages by id, of those that are there
    names: Mapping[str, str] = field(default_factory=dict)  #: of documents, by what traces call them
    notes: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        same = [*self.body["degraded"]] == [*self.degraded] and (self.context is None or self.context.equal)
        return same and self.difference.is_empty and (self.conversation is None or self.conversation.is_empty)

    @property
    def score_difference(self) -> float:
        return max(each.score_difference for each in (self.difference, *self._of_conversation))

    @property
    def rbo(self) -> float:
        """The mean of the rankings that there are: passages, recalled turns, memories."""
        return self._mean(lambda each: each.rbo)

    @property
    def overlaps(self) -> dict[int, float]:
        return {k: self._mean(lambda each, k=k: each.overlaps[k]) for k in OVERLAPS}  # type: ignore[misc]

    @property
    def _of_conversation(self) -> tuple[Difference, ...]:
        return () if self.conversation is None else self.conversation.rankings

    def _mean(self, of: Callable[[Difference], float]) -> float:
        rankings = [each for each in (self.difference, *self._of_conversation) if each.rows] or [self.difference]
        return math.fsum(map(of, rankings)) / len(rankings)


def diff(before: Sequence[str], after: Sequence[str]) -> tuple[str, ...]:
    return tuple(unified_diff(before, after, "then", "now", lineterm="", n=2))[:MAX_DIFF]
