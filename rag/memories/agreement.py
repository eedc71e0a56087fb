"""Whether two facts are the same, contradict each other, or may do so, told by their words alone. Pure.

The same: the same words in the same order, but for fillers, and vectors whose cosine is SAME_COSINE at least.

A contradiction: one denies what the other says in the same words; or both say the same up to one place, in which each has
another value, and what is said has one value at a time ("lives in", "my phone number is"). Where that is not certain, both
are left to stand: a fact that is lost is worse than two that disagree.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

from rag.memories.wording import Word, Wording, words_of

SAME_COSINE = 0.9
MAX_SLOT_WORDS = 3  # of a value, as `5 Main Street`
MAX_DIFFERENT_WORDS = 6  # of two texts that are looked at closely
SOME_COSINE = 0.5  # from which on a language model is asked, where there is one


class Verdict(enum.Enum):
    NONE = "none"
    MAY_CONFLICT = "may conflict"
    CONTRADICTS = "contradicts"


#: What was, will be, may be, or is one of several: another value contradicts nothing.
_ELSEWHERE = words_of(
    "was were had did used ago yesterday last former formerly previously previous will would might may could should want "
    "plan next tomorrow if when while during sometime usually often once also too another other second first both either "
    "or and monday tuesday wednesday thursday friday saturday sunday weekend"
)
_OWNERS = words_of("my his her their our your 's")
#: Things of which one has one, as `_base` writes them.
_SINGLE = words_of(
    "nam surnam nicknam usernam age birthday birthdat birthplac address email e-mail phon number city hometown employer bos "
    "boss manager wif husband spous partner nationality height weight salary titl timezon zon pin password"
)
_FAVORITE = frozenset({"favorit", "favourit"})
#: Last words before a name of which one holds at a time.
_BEFORE_NAME = (
    *(("liv", "in"), ("resid", "in"), ("based", "in"), ("liv", "at")),
    *(("work", "at"), ("work", "for"), ("employed", "by"), ("employed", "at")),
    *(("married", "to"), ("engaged", "to"), ("born", "in"), ("born", "on")),
)


def is_same(one: str, other: str, cosine: float | None) -> bool:
    """`one` and `other` as `Wording.said`; without a cosine, words must do."""
    return bool(one) and one == other and (cosine is None or cosine >= SAME_COSINE)


def is_near(one: str, other: str) -> bool:
    """Whether `compare` may find anything: a look that takes a microsecond."""
    mine, theirs = one.split(), other.split()
    start, end = _common(mine, theirs)
    return start + end > 0 and len(mine) + len(theirs) - 2 * (start + end) <= MAX_DIFFERENT_WORDS


def compare(old: Wording, new: Wording) -> Verdict:
    mine, theirs = old.positive, new.positive
    if [word.base for word in mine] == [word.base for word in theirs]:
        return Verdict.CONTRADICTS if mine and old.negated != new.negated else Verdict.NONE
    if old.negated or new.negated or not _ELSEWHERE.isdisjoint(word.base for word in (*mine, *theirs)):
        return Verdict.NONE
    frame = _frame(mine, theirs)
    if frame is None:
        return Verdict.NONE
    if frame.of_favorite or (frame.has_values and frame.of_one):
        return Verdict.MAY_CONFLICT if old.indefinite or new.indefinite or frame.owners > 1 else Verdict.CONTRADICTS
    return Verdict.MAY_CONFLICT if frame.has_numbers or (frame.owners and frame.has_values) else Verdict.NONE


def _common(one: Sequence[str], other: Sequence[str]) -> tuple[int, int]:
    """How many words two texts have in common at their beginnings and, beyond those, at their ends."""
    most, start, end = min(len(one), len(other)), 0, 0
    while start < most and one[start] == other[start]:
        start += 1
    while end < most - start and one[-1 - end] == other[-1 - end]:
        end += 1
    return start, end


@dataclass(frozen=True, slots=True)
class _Frame:
    """What two texts have in common around the one place where they differ."""

    before: tuple[str, ...]
    after: tuple[str, ...]
    slots: tuple[tuple[Word, ...], tuple[Word, ...]]

    @property
    def has_values(self) -> bool:
        """Values of one kind: a number is no other name."""
        numbers = {all(word.number for word in slot) for slot in self.slots}
        return len(numbers) == 1 and all(slot[0].value and slot[-1].value for slot in self.slots)  # Rio de Janeiro

    @property
    def has_numbers(self) -> bool:
        return all(word.number for slot in self.slots for word in slot)

    @property
    def owners(self) -> int:
        return sum(word in _OWNERS for word in self.before)

    @property
    def of_favorite(self) -> bool:
        return self.owners > 0 and len(self.before) > 2 and not _FAVORITE.isdisjoint(self.before) and not self.after

    @property
    def of_one(self) -> bool:
        """Whether what is said has one value at a time."""
        if self.before[-2:] in _BEFORE_NAME and not self.has_numbers:
            return True
        if self.has_numbers and (self.after[:2] == ("year", "old") or self.before[-1] == "weigh"):
            return True
        if self.has_numbers and self.before[-1] in ("have", "hav", "has") and len(self.after) == 1:
            return True
        return self.owners > 0 and self.before[-1] in _SINGLE


def _frame(one: Sequence[Word], other: Sequence[Word]) -> _Frame | None:
    """None unless they differ in one place of few words, after a beginning that says of whom they speak."""
    mine, theirs = [word.base for word in one], [word.base for word in other]
    start, end = _common(mine, theirs)
    slots = tuple(one[start : len(one) - end]), tuple(other[start : len(other) - end])
    if not start or start + end < 2 or not all(1 <= len(slot) <= MAX_SLOT_WORDS for slot in slots):
        return None
    return _Frame(tuple(mine[:start]), tuple(mine[len(mine) - end :]), slots)
