"""Which passages go into a context, and in which order: the best that fit, each document in reading order.

Tokens do not add up: two texts can have more of them together than apart. So estimates choose, and the whole text is
counted before it leaves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rag.lexical.analysis import has_unspaced
from rag.packing.rendering import Block, Citation, Piece, Rendered, escaped, render
from rag.retrieval.question import Passage

MAX_BUDGET = 200_000
Count = Callable[[str], int]  #: tokens of a text


@dataclass(frozen=True, slots=True)
class Packed:
    text: str
    tokens: int  #: of the text, never more than the budget
    citations: tuple[Citation, ...]
    left_out: int  #: passages that did not fit


def pack(passages: Sequence[Passage], budget: int, count: Count) -> Packed:
    """The context of these passages, best first. If not even the best fits, as much of it as does."""
    chosen = _affordable(passages, budget, count)
    while chosen:
        rendered = render(blocks(chosen))
        if (tokens := count(rendered.text)) <= budget:
            return Packed(rendered.text, tokens, rendered.citations, len(passages) - len(chosen))
        chosen.pop()
    return _cut(passages[0], budget, count, len(passages)) if passages else Packed("", 0, (), 0)


def _affordable(passages: Sequence[Passage], budget: int, count: Count) -> list[Passage]:
    """As many as fit by the sum of what each has alone; a smaller one may take the place of one that was too large."""
    chosen: dict[tuple[str, int], Passage] = {}
    for passage in passages:
        version, ordinal = passage.version_id, passage.ordinal
        joins = any((near := chosen.get((version, ordinal + step))) and near.headings == passage.headings for step in (-1, 1))
        cost = count(f"\n\n{escaped(passage.text)}" if joins else render([[_whole(passage)]]).text + "\n")
        if cost <= budget:
            budget -= cost
            chosen[version, ordinal] = passage
    return [*chosen.values()]


def blocks(passages: Sequence[Passage]) -> list[Block]:
    """Neighbours joined; documents in the order of their best passage, each in reading order."""
    versions: dict[str, list[Passage]] = {}
    for passage in passages:
        versions.setdefault(passage.version_id, []).append(passage)
    joined: list[list[Piece]] = []
    for found in versions.values():
        for passage in sorted(found, key=lambda each: (each.start, each.end, each.id)):
            last = joined[-1][-1] if joined else None
            if last is None or not _continues(last, passage):
                joined.append([_whole(passage)])
            elif passage.end > last.end:
                joined[-1].append(Piece(passage, max(passage.start, last.end), passage.end))
    return [*joined]


def _continues(last: Piece, passage: Passage) -> bool:
    """Under one heading: what stands under another is not to be told as of the first."""
    before = last.passage
    if before.version_id != passage.version_id:
        return False
    overlaps = passage.start < last.end
    follows = passage.ordinal == before.ordinal + 1 and passage.headings == before.headings
    return overlaps or follows


def _whole(passage: Passage) -> Piece:
    return Piece(passage, passage.start, passage.end)


def _cut(passage: Passage, budget: int, count: Count, given: int) -> Packed:
    """The longest beginning of the passage, by whole words, or characters where none parts words, that fits: by halving."""
    ends = [place for place, character in enumerate(passage.text) if character.isspace() or has_unspaced(character)]
    best, low, high = Rendered(""), 0, len(ends) - 1
    while low <= high:
        middle = (low + high) // 2
        part = Piece(passage, passage.start, passage.start + ends[middle])
        rendered = render([[part]])
        if part.text.strip() and count(rendered.text) <= budget:
            best, low = rendered, middle + 1
        else:
            low, high = (middle + 1, high) if not part.text.strip() else (low, middle - 1)
    return Packed(best.text, count(best.text), best.citations, given - bool(best.text))
