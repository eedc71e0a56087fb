"""What recall and memories found, as a context takes it, and with what is needed to look for it again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rag.context.turns import said_of
from rag.memories.values import Found
from rag.packing.elements import Fact, Said
from rag.recall.recall import Recalled as Recall


@dataclass(frozen=True, slots=True)
class Recalled:
    """Turns of sessions, best first."""

    turns: Sequence[Said] = ()
    scores: Mapping[str, float] = field(default_factory=dict)  #: by the turns' ids
    charged: int = 0
    degraded: tuple[str, ...] = ()
    found: Recall | None = None


@dataclass(frozen=True, slots=True)
class Remembered:
    """Facts of the subject, best first."""

    facts: Sequence[Fact] = ()
    charged: int = 0
    degraded: tuple[str, ...] = ()
    found: Found | None = None


def recalled_of(found: Recall) -> Recalled:
    turns, scores = [said_of(each.turn) for each in found.turns], {each.turn.id: each.score for each in found.turns}
    return Recalled(turns, scores, found.charged, ("recall",) if found.degraded else (), found)


def remembered_of(found: Found) -> Remembered:
    versions = [hit.memory.version for hit in found.hits]
    facts = [Fact(each.memory_id, each.text, each.valid_from) for each in versions]
    return Remembered(facts, found.charged, ("memories",) if found.degraded else (), found)
