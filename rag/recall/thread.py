"""One conversation, or any other row of short texts in order, as arrays that a question is compared with. Texts are appended;
nothing of what is there has to be computed anew but the lengths of the vectors beside them. Pure, numpy only.

A short text says little: "yes, in May". So each is also looked at together with those beside it. They are pooled when a
question comes: counts of words and cosines add up, and only the length of each pooled vector has to be known beforehand.
"""

from __future__ import annotations

from array import array
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from rag.lexical.analysis import analyse, runs
from rag.lexical.languages import language_of, told_by
from rag.store.base import Vector

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]

REACH = 2  #: texts to either side that belong to a text's surroundings; so many empty places stand between groups
NEAR = 0.6  #: what a neighbour's vector counts in the pool of both sides
BEFORE = 0.7  #: and in the pool of a text and the one before it, which it often answers
PAUSE_S = 4 * 3600.0  #: a longer silence ends a sitting: what follows is another conversation
CONTEXT = 8  #: texts before it that tell a short one's language
_COUNT_BITS = 8
_PAGE = 256


@dataclass(frozen=True, slots=True)
class Item:
    """A text and what is known of it. `group`: only texts of the same group, one after the other, are neighbours. `speaker`:
    a name that a question may name; who wants it to be found by as a word puts it into the text.
    """

    id: str
    text: str
    at: float  #: when it was said, POSIX seconds
    speaker: str = ""
    group: str = ""
    vector: Vector | None = None  #: of unit length; it may come later (`Thread.give`)

    @property
    def heading(self) -> str:
        """The day, in the words that questions name it by."""
        day = datetime.fromtimestamp(self.at, UTC)
        return f"{day:%A} {day.day} {day:%B} {day.year}"


class Postings:
    """By feature: the rows that have it, ascending, and how often each does; both in one number."""

    def __init__(self) -> None:
        self._rows: dict[int, array[int]] = {}
        self.entries = 0

    def add(self, row: int, counts: Counter[int]) -> None:
        for feature, count in counts.items():
            rows = self._rows.get(feature)
            if rows is None:
                rows = self._rows[feature] = array("I")
            rows.append(row << _COUNT_BITS | min(count, (1 << _COUNT_BITS) - 1))
        self.entries += len(counts)

    def __len__(self) -> int:
        return len(self._rows)

    def count(self, feature: int) -> int:
        return len(self._rows.get(feature, ()))

    def of(self, feature: int) -> tuple[Ints, Floats] | None:
        packed = self._rows.get(feature)
        if packed is None:
            return None
        both = np.array(packed, np.uint32)  # a copy: an array that somebody looks into cannot grow
        return (both >> _COUNT_BITS).astype(np.int32), (both & ((1 << _COUNT_BITS) - 1)).astype(np.float32)


class Column:
    """A growing array: appending costs the same however long it is."""

    def __init__(self, dtype: type[np.generic], *shape: int) -> None:
        self._room = np.zeros((16, *shape), dtype)
        self.size = 0

    def append(self, value: object) -> None:
        if self.size == len(self._room):
            self._room = np.concatenate((self._room, np.zeros_like(self._room)))
        self._room[self.size] = value
        self.size += 1

    @property
    def all(self) -> npt.NDArray[Any]:
        return self._room[: self.size]

    @property
    def nbytes(self) -> int:
        return self._room.nbytes


class _column:
    """The filled part of the column that is kept under the same name with an underscore."""

    def __init__(self, doc: str) -> None:
        self.__doc__ = doc

    def __set_name__(self, _owner: type, name: str) -> None:
        self._name = f"_{name}"

    def __get__(self, thread: object, _owner: type | None = None) -> npt.NDArray[Any]:
        column: Column = getattr(thread, self._name)
        return column.all


class Thread:
    """Items in their order, and what ranking asks of them. `dimensions`: of their vectors."""

    def __init__(self, dimensions: int, items: Iterable[Item] = ()) -> None:
        self.ids: list[str] = []
        self.postings, self.days = Postings(), Postings()
        self.languages: Counter[str] = Counter()
        self._rows: dict[str, int] = {}
        self._speakers: dict[str, int] = {}
        self._at, self._words, self._day_words = Column(np.float64), Column(np.float32), Column(np.float32)
        self._places, self._sittings, self._speaker = Column(np.int32), Column(np.int32), Column(np.int32)
        self._vectors = Column(np.float32, dimensions)
        self._norms, self._norms_before = Column(np.float32), Column(np.float32)
        self._group: str | None = None
        self._heard: deque[list[str]] = deque(
            maxlen=CONTEXT
        )  #: what tells the language of the last texts, and not what they say
        self._vectorless: set[int] = set()
        self.extend(items)

    def __len__(self) -> int:
        return len(self.ids)

    at = _column("When each row was said, POSIX seconds.")
    words = _column("How many features each row has.")
    day_words = _column("And the name of its day.")
    places = _column("Where each row stands, with REACH empty places between sittings.")
    sittings = _column("Which sitting each row is in, from 0.")
    speaker = _column("Of each row, an index into `speakers`.")
    vectors = _column("Zero where a vector is missing.")
    norms = _column("Lengths of the pools of both sides; 0 where nothing is known.")
    norms_before = _column("Lengths of the pools of a row and the one before it.")

    @property
    def speakers(self) -> Sequence[str]:
        return [*self._speakers]

    @property
    def width(self) -> int:
        return int(self.places[-1]) + 1 if self.ids else 0

    @property
    def without_vector(self) -> list[str]:
        """Ids that still wait for one, in order."""
        return [self.ids[row] for row in sorted(self._vectorless)]

    @property
    def nbytes(self) -> int:
        """About what it takes: arrays exactly, Python's own by what they were measured at."""
        columns = (
            self._at, self._words, self._day_words, self._places, self._sittings, self._speaker, self._vectors,
            self._norms, self._norms_before,
        )  # fmt: skip
        entries, heard = self.postings.entries + self.days.entries, sum(map(len, self._heard))
        return (
            sum(column.nbytes for column in columns) + 200 * (len(self.postings) + len(self)) + 5 * entries + 60 * heard + 2048
        )

    def row_of(self, item_id: str) -> int | None:
        return self._rows.get(item_id)

    def extend(self, items: Iterable[Item]) -> None:
        first = len(self.ids)
        for item in items:
            self._append(item)
        if len(self.ids) > first:
            self._measure(first - REACH, len(self.ids))

    def append(self, item: Item) -> None:
        self.extend([item])

    def _append(self, item: Item) -> None:
        row = len(self.ids)
        self._place(item, row)
        self._read(item, row)
        self._rows[item.id] = row
        self.ids.append(item.id)
        self._at.append(item.at)
        self._speaker.append(self._speakers.setdefault(item.speaker, len(self._speakers)))
        self._vectors.append(0.0 if item.vector is None else item.vector)
        self._norms.append(0.0)
        self._norms_before.append(0.0)
        if item.vector is None:
            self._vectorless.add(row)

    def give(self, item_id: str, vector: Vector) -> None:
        self.give_all([(item_id, vector)])

    def give_all(self, pairs: Iterable[tuple[str, Vector]]) -> None:
        """Vectors of items that had none; nothing of one that is not here or has one."""
        rows = []
        for item_id, vector in pairs:
            row = self._rows.get(item_id)
            if row is not None and row in self._vectorless:
                self._vectorless.discard(row)
                self.vectors[row] = vector
                rows.append(row)
        if rows:
            self._measure(min(rows) - REACH, max(rows) + REACH + 1)

    def _place(self, item: Item, row: int) -> None:
        """Next to the one before, or beyond a gap that no surroundings reach across."""
        place, sitting = 0, 0
        if row:
            apart = item.group != self._group or abs(item.at - float(self.at[-1])) > PAUSE_S
            place = int(self.places[-1]) + 1 + (REACH if apart else 0)
            sitting = int(self.sittings[-1]) + apart
        self._places.append(place)
        self._sittings.append(sitting)
        self._group = item.group

    def _read(self, item: Item, row: int) -> None:
        found = runs(item.text)
        told = told_by([run.lower() for run in found])
        language = language_of([*told, *(word for heard in reversed(self._heard) for word in heard)])
        self._heard.append(told)
        self.languages[language] += 1
        counts = analyse(found, language).counts
        day = analyse(runs(item.heading), "en").counts
        self.postings.add(row, counts)
        self.days.add(row, day)
        self._words.append(counts.total())
        self._day_words.append(day.total())

    def _measure(self, start: int, stop: int) -> None:
        """How long the pooled vectors of these rows are, in pages: of many rows at once they would be held twice over."""
        start, stop = max(start, 0), min(stop, len(self.ids))
        for at in range(start, stop, _PAGE):
            self._measure_page(at, min(at + _PAGE, stop))

    def _measure_page(self, start: int, stop: int) -> None:
        first, last = max(start - REACH, 0), min(stop + REACH, len(self.ids))
        places = self.places[first:last] - self.places[first]
        spread = np.zeros((int(places[-1]) + 1 + 2 * REACH, self.vectors.shape[1]), np.float32)
        spread[REACH + places] = self.vectors[first:last]
        here = REACH + self.places[start:stop] - self.places[first]
        beside = spread[here - 2] + spread[here - 1] + spread[here + 1] + spread[here + 2]
        self.norms[start:stop] = np.linalg.norm(spread[here] + NEAR * beside, axis=1)
        self.norms_before[start:stop] = np.linalg.norm(spread[here] + BEFORE * spread[here - 1], axis=1)
