"""Two answers to one question side by side. Pure.

Passages are the same by id. What documents became under another chunking has other ids: then passages are paired by document
and by how much of the text they share, `|A ∩ B| / |A ∪ B|` of their characters (Jaccard), the likest first.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

RBO_P = 0.9  #: the first ten ranks have 86 % of the weight
OVERLAPS = (5, 10)
Change = Literal["same", "moved", "overlaps", "came", "gone"]


@dataclass(frozen=True, slots=True)
class Place:
    """A passage in an answer. `document`: what names it in any collection, its external id."""

    id: str
    document: str
    start: int
    end: int
    score: float
    rank: int  #: 1 is the best


@dataclass(frozen=True, slots=True)
class Row:
    then: Place | None
    now: Place | None
    shared: float  #: of their characters, 0 to 1

    @property
    def change(self) -> Change:
        if self.then is None:
            return "came"
        if self.now is None:
            return "gone"
        if self.then.id != self.now.id:
            return "overlaps"
        return "same" if self.then.rank == self.now.rank else "moved"


@dataclass(frozen=True, slots=True)
class Difference:
    rows: tuple[Row, ...]  #: by today's rank; what is gone stands where it was
    score_difference: float  #: the largest of passages that are in both
    rbo: float  #: rank-biased overlap, extrapolated (Webber, Moffat and Zobel, 2010), of p = RBO_P
    overlaps: Mapping[int, float]  #: of the first k passages, which part is in both
    shared: float  #: of all characters of both answers, which part is in both

    @property
    def is_empty(self) -> bool:
        return all(row.change == "same" for row in self.rows) and self.score_difference == 0

    def count(self, change: Change) -> int:
        return sum(row.change == change for row in self.rows)


def difference(then: Sequence[Place], now: Sequence[Place]) -> Difference:
    """Best first, each passage once."""
    rows = [*_paired(then, now)]
    known: dict[str, Hashable] = {row.now.id: row.then.id for row in rows if row.then and row.now}
    before, after = [place.id for place in then], [known.get(place.id, ("new", place.id)) for place in now]
    differences = (abs(row.then.score - row.now.score) for row in rows if row.then and row.now and row.then.id == row.now.id)
    return Difference(
        rows=tuple(sorted(rows, key=_order)),
        score_difference=max(differences, default=0.0),
        rbo=rank_biased_overlap(before, after),
        overlaps={k: _overlap(before[:k], after[:k]) for k in OVERLAPS},
        shared=_shared_of_all(then, now),
    )


def _order(row: Row) -> tuple[int, bool]:
    place = row.now or row.then
    return (place.rank if place else 0, row.now is None)


def _paired(then: Sequence[Place], now: Sequence[Place]) -> list[Row]:
    by_id = {place.id: place for place in now}
    rows = [Row(place, by_id.pop(place.id), 1.0) for place in then if place.id in by_id]
    matched = {row.then.id for row in rows if row.then}
    left = {place.id: place for place in then if place.id not in matched}
    pairs = [
        (shared, one, other)
        for one in left.values()
        for other in by_id.values()
        if one.document == other.document and (shared := _shared(one, other)) > 0
    ]
    for shared, one, other in sorted(pairs, key=lambda pair: (-pair[0], pair[1].rank, pair[2].rank)):
        if one.id in left and other.id in by_id:
            rows.append(Row(left.pop(one.id), by_id.pop(other.id), shared))
    return rows + [Row(place, None, 0.0) for place in left.values()] + [Row(None, place, 0.0) for place in by_id.values()]


def _shared(one: Place, other: Place) -> float:
    both = min(one.end, other.end) - max(one.start, other.start)
    return max(0, both) / max(1, max(one.end, other.end) - min(one.start, other.start))


def _shared_of_all(then: Sequence[Place], now: Sequence[Place]) -> float:
    before, after = _ranges(then), _ranges(now)
    sizes = [sum(end - start for ranges in side.values() for start, end in ranges) for side in (before, after)]
    both = sum(_common(ranges, after.get(document, ())) for document, ranges in before.items())
    every = sum(sizes) - both
    return both / every if every else 1.0


def _ranges(places: Sequence[Place]) -> dict[str, list[tuple[int, int]]]:
    """Of each document, without what is in two of them twice."""
    found: dict[str, list[tuple[int, int]]] = {}
    for place in sorted(places, key=lambda each: each.start):
        ranges = found.setdefault(place.document, [])
        if ranges and place.start <= ranges[-1][1]:
            ranges[-1] = (ranges[-1][0], max(ranges[-1][1], place.end))
        else:
            ranges.append((place.start, place.end))
    return found


def _common(one: Sequence[tuple[int, int]], other: Sequence[tuple[int, int]]) -> int:
    return sum(max(0, min(a[1], b[1]) - max(a[0], b[0])) for a in one for b in other)


def _overlap(before: Sequence[Hashable], after: Sequence[Hashable]) -> float:
    most = max(len(before), len(after))
    return len({*before} & {*after}) / most if most else 1.0


def rank_biased_overlap(one: Sequence[Hashable], other: Sequence[Hashable], p: float = RBO_P) -> float:
    """Extrapolated from lists that may differ in length (equation 32): 1 is equal, 0 has nothing in common."""
    short, long = sorted((one, other), key=len)
    s, most = len(short), len(long)
    if not s:
        return 1.0 if not most else 0.0
    common = [len({*short[:depth]} & {*long[:depth]}) for depth in range(most + 1)]
    total = sum(common[depth] / depth * p**depth for depth in range(1, most + 1))
    total += sum(common[s] * (depth - s) / (s * depth) * p**depth for depth in range(s + 1, most + 1))
    last = ((common[most] - common[s]) / most + common[s] / s) * p**most
    return min(1.0, (1 - p) / p * total + last)
