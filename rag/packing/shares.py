"""How one budget of tokens is divided between the parts of a context. Pure arithmetic."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

Part = Literal["recent", "summary", "memories", "documents", "recalled"]
Strategy = Literal["recent", "recall", "documents", "hybrid"]

#: In the order in which they are filled. The first two depend on the session alone and come first, so that what a question
#: finds, and what it leaves, never moves them.
PARTS: tuple[Part, ...] = ("recent", "summary", "memories", "documents", "recalled")
DEFAULT_SHARES: Mapping[Part, float] = {
    "recent": 0.40,
    "summary": 0.15,
    "memories": 0.10,
    "documents": 0.25,
    "recalled": 0.10,
}
_OF: Mapping[Strategy, tuple[Part, ...]] = {
    "recent": ("recent", "summary"),
    "recall": ("recalled",),
    "documents": ("documents",),
    "hybrid": ("recent", "summary", "documents", "recalled"),
}


def shares_of(strategy: Strategy, *, memories: bool, given: Mapping[Part, float] | None = None) -> dict[Part, float]:
    """Of the parts that the strategy has, 1 together; `given` in place of the defaults. A part without a share is left out."""
    wanted = {*_OF[strategy], *(("memories",) if memories else ())}
    chosen = {**DEFAULT_SHARES, **(given or {})}
    kept: dict[Part, float] = {part: chosen[part] for part in PARTS if part in wanted and chosen[part] > 0}
    total = sum(kept.values())
    return {part: share / total for part, share in kept.items()}


class Purse:
    """What is left to spend: each part may take its share and what the parts before it have left."""

    def __init__(self, room: int, shares: Mapping[Part, float]) -> None:
        self._room, self._shares, self._carried = room, shares, 0
        self.spent: dict[Part, int] = {}

    def allowance(self, part: Part) -> int:
        return max(0, int(self._room * self._shares.get(part, 0.0)) + self._carried) if part in self._shares else 0

    def spend(self, part: Part, tokens: int) -> None:
        """Also more than its allowance, where that must be: those behind it have less."""
        self.spent[part] = tokens
        self._carried += int(self._room * self._shares.get(part, 0.0)) - tokens
