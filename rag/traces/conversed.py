"""What of a conversation went into a context, or was found in it, as a trace holds it: ids, numbers and digests, no text.

Of the same form is what a replay finds, so that the two can be compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from rag.context.contexts import SessionContext
from rag.memories.values import Found
from rag.packing.composing import Chosen
from rag.recall.recall import Recalled
from rag.store.base import Vector

Name = Callable[[str], str]  #: stands for a text by a digest that nobody can make who lacks the tenant's key


@dataclass(frozen=True, slots=True)
class Conversed:
    question: str | None  #: what was asked; None: nothing
    vector: Vector | None  #: of the question, where its meaning was searched for
    degraded: tuple[str, ...]
    recalled: tuple[tuple[str, float], ...]  #: ids of turns with their scores, best first
    ids: Mapping[str, Any]  #: how far the conversation had come, what was found, and what was shown


def of_recall(text: str, found: Recalled) -> Conversed:
    recalled = tuple((each.turn.id, each.score) for each in found.turns)
    return Conversed(text, found.vector, found.degraded, recalled, _recall(found))


def of_context(context: SessionContext, name: Name) -> Conversed:
    recalled, remembered = context.recalled, context.remembered.found
    found = [each for each in (recalled.found, remembered) if each is not None]
    ids = {
        "moment": [context.moment.turns, context.moment.archived],
        "pins": context.moment.pins,
        **_shown(context.conversation.chosen, name),
        **_recall(recalled.found),
        **_memories(remembered),
        "spent": dict(context.conversation.spent),
    }
    return Conversed(
        context.question,
        next((each.vector for each in found if each.vector is not None), None),
        context.degraded,
        tuple((turn.id, recalled.scores.get(turn.id, 0.0)) for turn in recalled.turns),
        ids,
    )


def _recall(found: Recalled | None) -> dict[str, Any]:
    """`indexed`: of each session that was searched its id, and how much of it was."""
    if found is None:
        return {"asked_at": None, "indexed": []}
    return {
        "asked_at": None if found.asked_at is None else found.asked_at.isoformat(),
        "indexed": [[*each] for each in found.indexed],
    }


def _memories(found: Found | None) -> dict[str, Any]:
    hits = () if found is None else found.hits
    versions = [[hit.memory.version.memory_id, hit.memory.version.number, float(hit.score)] for hit in hits]
    return {"memories": versions, "memories_at": None if found is None else found.at}


def _runs(numbers: Iterable[int]) -> list[list[int]]:
    """First and last of those that follow each other; of a window that is whole, one."""
    runs = list[list[int]]()
    for number in numbers:
        if runs and runs[-1][1] == number - 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return runs


def _shown(chosen: Chosen, name: Name) -> dict[str, Any]:
    return {
        "recent": _runs(said.seq for said in chosen.recent),
        "recaps": [[recap.first, recap.last, name(recap.text)] for recap in chosen.recaps],
        "shown": {"recalled": [turn.id for turn in chosen.recalled], "memories": [fact.id for fact in chosen.facts]},
    }
