"""Points move from one shard to another while they are written, deleted and asked for.

A move is a generator of small steps. While it goes on, each write to the source reaches the target too (`Copying`), so in any
order of copying and writing the target ends with what the source has; then one file makes the target count. What is
read or written of a slice is one step, between which the engine serves requests.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

from rag.store import files
from rag.store.base import InvalidPoint, Placement, Point, Space, check_placement
from rag.store.edge import Layout, Shard, id_of
from rag.store.edge_vectors import EdgeVectors
from rag.store.files import Home

if TYPE_CHECKING:
    from rag.store.shards import EdgeStore

SLICE = 48  # points read and written in one step: 2 ms of the engine
MAX_JOURNAL = 500_000  # ids written while a copy is rebuilt; with more, the copy is given up


@dataclass(frozen=True, slots=True)
class Step:
    """What is to be done before the move goes on: in a thread, or if there is nothing, others' requests."""

    work: Callable[[], object] | None = None
    frozen: bool = False  #: nothing may be written meanwhile

    def run(self) -> None:
        if self.work is not None:
            self.work()


PAUSE = Step()


class Copying:
    """Carries each write to the target as well; of one collection, or of all."""

    def __init__(self, target: Shard, of: tuple[str, str] | None = None) -> None:
        self._target, self._of = target, of

    def upserted(self, tenant: str, points: Sequence[Point]) -> None:
        moved = [point for point in points if self._of in (None, (tenant, point.collection))]
        if moved:
            EdgeVectors(self._target, tenant).upsert(moved)

    def deleted(self, tenant: str, ids: Collection[str]) -> None:
        if self._of is None or self._of[0] == tenant:
            EdgeVectors(self._target, tenant).delete_points(ids)


class Journal:
    """Remembers what was written to the source, while the target is in another process's hands."""

    def __init__(self) -> None:
        self.ids: set[str] = set()

    def upserted(self, _tenant: str, points: Sequence[Point]) -> None:
        self.ids.update(point.id for point in points)

    def deleted(self, _tenant: str, ids: Collection[str]) -> None:
        self.ids.update(ids)


def place(store: EdgeStore, tenant: str, space: Space, collection: str, placement: Placement) -> Iterator[Step]:
    """Bring a collection where it is to lie, and leave nothing of it elsewhere."""
    check_placement(collection, placement)
    yield from remove_leftovers(store, tenant, space, collection)
    shard = store.dedicated_of(tenant, space).get(collection)
    if placement == "dedicated" and shard is None:
        yield from _promote(store, tenant, space, collection)
        yield from remove_leftovers(store, tenant, space, collection)
    elif placement == "shared" and shard is not None:
        home = Home(space.id, tenant, collection)
        store.leftovers.add(home.key)
        yield from _copy(shard, store.shared(space), home)
        store.disestablish(shard)
        store.leftovers.discard(home.key)


def _promote(store: EdgeStore, tenant: str, space: Space, collection: str) -> Iterator[Step]:
    home = Home(space.id, tenant, collection)
    store.require_room()
    with store.making(space) as made:
        yield Step(partial(store.builder.create, made.path, space))
        target = made.open()
        yield from _copy(store.shared(space), target, home)
        made.establish(home)  # first: until this is done, the shared shard is all that there is
        store.leftovers.add(home.key)


def _copy(source: Shard, target: Shard, home: Home) -> Iterator[Step]:
    """When this ends, and until others' requests are served again, the target has all that the source has."""
    source.mirror = Copying(target, (home.tenant, home.collection))
    try:
        after: str | None = None
        while points := EdgeVectors(source, home.tenant).points_of(home.collection, after, SLICE):
            EdgeVectors(target, home.tenant).take(points)
            after = id_of(points[-1])
            yield PAUSE
        yield Step(partial(files.sync_files, [*files.log_files(target.path)]))
    finally:
        source.mirror = None


def remove_leftovers(store: EdgeStore, tenant: str, space: Space, collection: str) -> Iterator[Step]:
    """What the shared shard holds of a collection that has a shard of its own."""
    key = Home(space.id, tenant, collection).key
    if key not in store.leftovers:
        return
    if collection not in store.dedicated_of(tenant, space):  # then nothing of it is left over
        store.leftovers.discard(key)
        return
    shared, after = store.shared(space), None
    while ids := EdgeVectors(shared, tenant).ids_of(collection, after, SLICE):
        EdgeVectors(shared, tenant).delete_points(ids)
        after = ids[-1]
        yield PAUSE
    store.leftovers.discard(key)


def rebuild(store: EdgeStore, shard: Shard, layout: Layout) -> Iterator[Step]:
    """Replace a shard by a copy of it that a child process optimised: without deleted points, and with its graph."""
    home = store.home_of(shard)
    if home is None:
        return
    journal = Journal()
    shard.mirror = journal
    try:
        with store.making(shard.space) as made:
            yield Step(partial(files.copy_folder, shard.path, made.path), frozen=True)
            yield Step(partial(store.builder.optimize, made.path, shard.space, layout))
            if len(journal.ids) > MAX_JOURNAL:
                raise InvalidPoint(f"more than {MAX_JOURNAL} points were written while a shard was rebuilt")
            target = made.open()
            shard.mirror = Copying(target)
            yield from _replay(shard, target, journal.ids)
            yield Step(partial(files.sync_files, [*files.log_files(made.path)]))
            made.establish(replace(home, generation=home.generation + 1))
    finally:
        shard.mirror = None


def _replay(source: Shard, target: Shard, ids: Collection[str]) -> Iterator[Step]:
    """What the source has of these points now, the target has after each step; and from then on by its mirror."""
    waiting = iter(ids)
    while some := [*islice(waiting, SLICE)]:
        points = source.fetch(some)
        gone = set(some).difference(map(id_of, points))
        if gone:
            target.remove(sorted(gone))
        if points:
            target.put(points)
        yield PAUSE
