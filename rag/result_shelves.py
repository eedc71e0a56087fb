"""Where given answers lie in memory: a shelf for each tenant, all of bounded size together. Knows no question and no SQL.

With room for C bytes and n tenants that have answers here, 7/8 C/n is each one's own and what is left may be lent: when it is
full, an eighth is made free from the largest shelves, the least recently used answers first.
"""

from __future__ import annotations

import heapq
import sys
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from rag.retrieval.question import Passage, Searched
from rag.store.base import Vector

PASSAGE_BYTES = 1_000  #: of a passage besides its texts: the object, its numbers and its ids
ENTRY_BYTES = 1_000  #: of an answer besides its passages
MAX_COMPARED = 256  #: vectors of like questions that a further one is compared with: 40 µs
LARGEST_PART = 8  #: an answer may take this part of the room at most
SPARE_PART = 8  #: of the room that is made free at once, so that the shelves are not sorted for each answer

#: For each collection, everything its row says, its generation with it: an answer that was computed at another is stale.
States = Mapping[str, tuple[object, ...]]


@dataclass(frozen=True, slots=True)
class Kept:
    """An answer as it was given."""

    passages: tuple[Passage, ...]
    tokens: int  #: of the question, which need not be embedded again
    states: States  #: read before the search
    group: bytes | None = None  #: questions that differ in their text alone; None: not to be found by likeness
    vector: Vector | None = None  #: of the question, of length 1
    searched: Searched | None = None  #: for whoever asks for it again, past what is kept

    @property
    def bytes(self) -> int:
        vector = 0 if self.vector is None else self.vector.nbytes
        searched = 0 if self.searched is None else _bytes_of_search(self.searched)
        return ENTRY_BYTES + vector + searched + sum(map(_bytes_of, self.passages))


def _bytes_of_search(searched: Searched) -> int:
    vectors = 0 if searched.vectors is None else searched.vectors.nbytes
    return vectors + sum(map(sys.getsizeof, searched.phrasings)) + PASSAGE_BYTES // 4 * len(searched.collections)


def _bytes_of(passage: Passage) -> int:
    texts = (passage.text, passage.title, passage.source, passage.external_id, *passage.headings)
    attributes = (*passage.attributes, *passage.attributes.values())
    return PASSAGE_BYTES + sum(map(sys.getsizeof, texts)) + sum(map(sys.getsizeof, attributes))


class Shelf:
    """One tenant's answers. What is in it was computed from the collections as it last saw them."""

    def __init__(self) -> None:
        self.bytes = 0
        self._entries: OrderedDict[bytes, tuple[Kept, int]] = OrderedDict()
        self._of: dict[str, tuple[tuple[object, ...], set[bytes]]] = {}  # a collection's state, and the answers from it
        self._alike: dict[bytes, OrderedDict[bytes, Vector]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def see(self, states: States) -> None:
        """The collections are so now: answers from another state of them are dropped."""
        for collection, state in states.items():
            known = self._of.get(collection)
            if known is not None and known[0] != state:
                for key in [*known[1]]:
                    self._drop(key)

    def get(self, key: bytes) -> Kept | None:
        if key not in self._entries:
            return None
        self._entries.move_to_end(key)
        return self._entries[key][0]

    def nearest(self, group: bytes, vector: Vector) -> tuple[float, bytes] | None:
        """The cosine of the likest question, and its key."""
        alike = self._alike.get(group)
        if not alike:
            return None
        keys = [*alike]
        cosines = np.stack([*alike.values()]) @ vector
        best = int(np.argmax(cosines))
        return float(cosines[best]), keys[best]

    def put(self, key: bytes, kept: Kept, size: int) -> None:
        """Not if one of the collections was seen in another state meanwhile."""
        for collection, state in kept.states.items():
            if (known := self._of.get(collection)) is not None and known[0] != state:
                return
        if key in self._entries:
            self._drop(key)
        states = dict(kept.states)
        for collection, state in kept.states.items():
            states[collection], keys = self._of.setdefault(collection, (state, set()))
            keys.add(key)
        self._entries[key] = (replace(kept, states=states), size)  # a state is held once, however many answers are from it
        self.bytes += size
        if kept.group is not None and kept.vector is not None:
            alike = self._alike.setdefault(kept.group, OrderedDict())
            alike[key] = kept.vector
            if len(alike) > MAX_COMPARED:
                alike.popitem(last=False)

    def drop_oldest(self) -> None:
        self._drop(next(iter(self._entries)))

    def _drop(self, key: bytes) -> None:
        kept, size = self._entries.pop(key)
        self.bytes -= size
        for collection in kept.states:
            keys = self._of[collection][1]
            keys.discard(key)
            if not keys:
                del self._of[collection]
        if kept.group is not None and (alike := self._alike.get(kept.group)) is not None:
            alike.pop(key, None)
            if not alike:
                del self._alike[kept.group]


class Shelves:
    """Not safe for threads: its owner holds a lock."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes, self.bytes = max_bytes, 0
        self._shelves: dict[str, Shelf] = {}

    def __iter__(self) -> Iterator[tuple[str, Shelf]]:
        return iter(self._shelves.items())

    def of(self, tenant_id: str, states: States) -> Shelf | None:
        """The tenant's shelf, without what the states of its collections made stale."""
        shelf = self._shelves.get(tenant_id)
        if shelf is not None:
            before = shelf.bytes
            shelf.see(states)
            self._count(tenant_id, shelf, before)
        return shelf

    def drop(self, tenant_id: str | None) -> None:
        """A tenant's; None: everybody's."""
        for one in [*self._shelves] if tenant_id is None else [tenant_id]:
            if (shelf := self._shelves.pop(one, None)) is not None:
                self.bytes -= shelf.bytes

    def put(self, tenant_id: str, key: bytes, kept: Kept) -> None:
        size = kept.bytes
        if size * LARGEST_PART > self.max_bytes:
            return
        shelf = self._shelves.setdefault(tenant_id, Shelf())
        before = shelf.bytes
        shelf.put(key, kept, size)
        self._count(tenant_id, shelf, before)
        if self.bytes > self.max_bytes:
            self._make_room()

    def _make_room(self) -> None:
        largest = [(-shelf.bytes, tenant_id) for tenant_id, shelf in self._shelves.items()]
        heapq.heapify(largest)
        while self.bytes > self.max_bytes - self.max_bytes // SPARE_PART:
            size, tenant_id = largest[0]
            shelf = self._shelves[tenant_id]
            shelf.drop_oldest()
            self._count(tenant_id, shelf, -size)
            heapq.heapreplace(largest, (-shelf.bytes, tenant_id))

    def _count(self, tenant_id: str, shelf: Shelf, before: int) -> None:
        self.bytes += shelf.bytes - before
        if not shelf:
            self._shelves.pop(tenant_id, None)
