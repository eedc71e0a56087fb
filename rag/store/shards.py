"""Which shard a point lies in: the space's shared one, or the one that a tenant's collection has of its own.

A folder says itself whose points it holds (`files`), so there is no other map that could disagree with it. Where a collection
has a shard of its own, whatever the shared shard still holds of it, or already holds again, is hidden.
"""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from rag.store import base, files, moves
from rag.store.base import Dedicated, Hit, Placement, Point, Search, Space, StoreHealth, Vector
from rag.store.build import Builder, BuildsHere
from rag.store.edge import Shard
from rag.store.edge_vectors import EdgeVectors
from rag.store.files import Home
from rag.types import Scope

MAX_DEDICATED = 256  # shards: each has a thread, a log and half a megabyte, and opens in 40 ms at every start


class EdgeStore:
    """All shards under one folder. Not thread-safe: the engine's event loop is its only caller."""

    def __init__(self, folder: Path, builder: Builder | None = None) -> None:
        self.folder, self.builder = folder, builder or BuildsHere()
        folder.mkdir(parents=True, exist_ok=True)
        files.sweep(folder)
        self._unsynced: set[Shard] = set()
        self._retired: list[Shard] = []
        self._gone: list[Path] = []
        self._homes: dict[Shard, Home] = {}
        self._shared: dict[str, Shard] = {}
        self._dedicated: dict[tuple[str, str], dict[str, Shard]] = {}
        for path, home in files.homes(folder).items():
            self._enter(self.open(path, home.space), home)
        #: Collections that have a shard of their own, and perhaps points in the shared one as well.
        self.leftovers = {home.key for home in self._homes.values() if home.collection}

    def open(self, path: Path, space_id: str) -> Shard:
        return Shard(path, space_id, self._unsynced)

    def _enter(self, shard: Shard, home: Home) -> None:
        self._homes[shard] = home
        if home.collection:
            self._dedicated.setdefault((home.space, home.tenant), {})[home.collection] = shard
        else:
            self._shared[home.space] = shard

    def shared(self, space: Space) -> Shard:
        if space.id not in self._shared:
            self._enter(self._create(space), Home(space.id))
        shard = self._shared[space.id]
        if shard.space != space:
            raise base.InvalidPoint(f"space {space.id} has {shard.space.dimensions} dimensions, not {space.dimensions}")
        return shard

    def _create(self, space: Space) -> Shard:
        if not files.SPACE_NAME.fullmatch(space.id):
            raise base.InvalidPoint("a space's id is 1 to 64 of a-z, 0-9 and _")
        path = self.folder / space.id
        shutil.rmtree(path, ignore_errors=True)  # without its config file it is the rest of a creation that was killed
        self.builder.create(path, space)
        shard = self.open(path, space.id)
        self._unsynced.add(shard)
        return shard

    def space_of(self, space_id: str) -> Space | None:
        """None: nothing is kept of it in a shared shard."""
        return self._shared[space_id].space if space_id in self._shared else None

    def dedicated_of(self, tenant: str, space: Space) -> Mapping[str, Shard]:
        """By collection."""
        return self._dedicated.get((space.id, tenant), {})

    def homes(self) -> list[tuple[Shard, Home]]:
        """All shards that are open, with whose points they hold."""
        return [*self._homes.items()]

    def home_of(self, shard: Shard) -> Home | None:
        """None: it does not count any more."""
        return self._homes.get(shard)

    def establish(self, shard: Shard, home: Home) -> None:
        """From now on this is the shard of its home."""
        files.establish(shard.path, home)
        for old in [old for old, known in self._homes.items() if known.key == home.key]:
            self._retire(old)
        self._enter(shard, home)

    def require_room(self) -> None:
        if len(self._homes) - len(self._shared) >= MAX_DEDICATED:
            raise base.InvalidPoint(f"there are {MAX_DEDICATED} dedicated shards, the most that an engine has")

    @contextmanager
    def making(self, space: Space) -> Iterator[Making]:
        """A shard that is to be. What is not established when this ends is removed."""
        made = Making(self, files.fresh(self.folder, space.id), space.id)
        try:
            yield made
        finally:
            made.end()

    def disestablish(self, shard: Shard) -> None:
        """From now on the shared shard is the one for this shard's collection."""
        home = self._homes[shard]
        try:
            files.disestablish(shard.path)
        finally:  # also if that could not be synced: a start would find it so
            if not files.is_established(shard.path):
                del self._dedicated[home.space, home.tenant][home.collection]
                self._retire(shard)

    def _retire(self, shard: Shard) -> None:
        del self._homes[shard]
        self._unsynced.discard(shard)  # whoever waits for a sync wrote to the shard that replaces it as well
        shard.mirror = None
        self._retired.append(shard)

    def discard(self, path: Path, shard: Shard | None) -> None:
        """What never counted, or could not be synced as what counts: no start may take it for that."""
        files.forget(path)
        if shard is None:
            self._gone.append(path)
        else:
            self._unsynced.discard(shard)
            self._retired.append(shard)

    def retired(self) -> int:
        """Shards that were replaced and are still open."""
        return len(self._retired)

    def close_retired(self) -> list[Path]:
        """Close what was replaced, which may block for a quarter second each; return folders to be removed."""
        while self._retired:
            shard = self._retired.pop()
            self._gone.append(shard.path)  # even if it cannot be closed: a full disk gets its room back
            shard.close()
        gone, self._gone = self._gone, []
        return gone

    def for_tenant(self, scope: Scope, space: Space) -> PlacedVectors:
        self.shared(space)
        return PlacedVectors(self, scope.tenant_id, space)

    def tenants(self, space: Space, after: str | None, limit: int) -> list[str]:
        base.check_page(limit)
        if space.id not in self._shared:
            return []
        # A facet has no way to go on: 1 ms at 9,000 points.
        found = set(self.shared(space).facet("tenant", base.MAX_TENANTS, exact=True))
        found |= {one.tenant for one in self.dedicated(space) if one.points}
        return base.page_of(found, after, limit)

    def dedicated(self, space: Space) -> list[Dedicated]:
        homes = [(shard, home) for shard, home in self._homes.items() if home.space == space.id and home.collection]
        return [Dedicated(home.tenant, home.collection, shard.count(), shard.indexed()) for shard, home in homes]

    def crowded(self, space: Space, at_least: int) -> list[str]:
        if space.id not in self._shared:
            return []
        counts = self.shared(space).facet("collection", base.MAX_CROWDED, exact=False)
        return [collection for collection, count in counts.items() if count >= at_least]

    def unsynced(self) -> tuple[set[Shard], list[Path]]:
        """Shards written since the last call, and their files to fsync before those writes may be acknowledged."""
        shards = set(self._unsynced)
        self._unsynced.clear()
        return shards, [path for shard in shards for path in files.log_files(shard.path)]

    def still_unsynced(self, shards: set[Shard]) -> None:
        self._unsynced |= {shard for shard in shards if not shard.closed and shard not in self._retired}

    def flush(self) -> None:
        for shard in self._homes:
            shard.flush()

    def health(self) -> StoreHealth:
        counts: dict[str, int] = defaultdict(int)
        for shard, home in self._homes.items():
            counts[home.space] += shard.count()
        for space, tenant, collection in self.leftovers & {home.key for home in self._homes.values()}:
            counts[space] -= EdgeVectors(self._shared[space], tenant).count_of(collection) if space in self._shared else 0
        return StoreHealth(True, "open", dict(counts))

    def close(self) -> None:
        self.builder.stop()
        for path in self.close_retired():
            shutil.rmtree(path, ignore_errors=True)
        for shard in self._homes:
            shard.close()
        self._homes.clear()
        self._shared.clear()
        self._dedicated.clear()


class Making:
    """A folder in which a shard is being made."""

    def __init__(self, store: EdgeStore, path: Path, space_id: str) -> None:
        self._store, self.path, self._space_id = store, path, space_id
        self._shard: Shard | None = None

    def open(self) -> Shard:
        self._shard = self._store.open(self.path, self._space_id)
        return self._shard

    def establish(self, home: Home) -> None:
        if self._shard is None:
            raise RuntimeError("a shard that was not opened")
        self._store.establish(self._shard, home)

    def end(self) -> None:
        if self._shard is None or self._store.home_of(self._shard) is None:
            self._store.discard(self.path, self._shard)


class PlacedVectors:
    """One tenant's points of a space, wherever they lie. Shards are looked up anew in each call: a move may replace one."""

    def __init__(self, store: EdgeStore, tenant: str, space: Space) -> None:
        self._store, self._tenant, self._space = store, tenant, space

    def _views(self) -> list[EdgeVectors]:
        own = self._store.dedicated_of(self._tenant, self._space)
        shared = EdgeVectors(self._store.shared(self._space), self._tenant, own.keys())
        return [shared, *(EdgeVectors(shard, self._tenant) for shard in own.values())]

    def _home(self, collection: str) -> Shard:
        own = self._store.dedicated_of(self._tenant, self._space)
        return own.get(collection) or self._store.shared(self._space)

    def upsert(self, points: Sequence[Point]) -> None:
        base.check_points(points, self._space)
        parts: dict[Shard, list[Point]] = defaultdict(list)
        for point in points:
            parts[self._home(point.collection)].append(point)
        for shard, part in parts.items():
            EdgeVectors(shard, self._tenant).upsert(part)

    def search(self, searches: Sequence[Search]) -> list[list[Hit]]:
        for search in searches:
            base.check_search(search, self._space)
        legs: dict[Shard, list[tuple[int, Search]]] = defaultdict(list)
        for number, search in enumerate(searches):
            for shard, part in self._parts(search):
                legs[shard].append((number, part))
        found: list[list[Hit]] = [[] for _ in searches]
        for shard, asked in legs.items():
            answers = EdgeVectors(shard, self._tenant).search([part for _, part in asked])
            for (number, _), hits in zip(asked, answers, strict=True):
                found[number] += hits
        return [base.in_order(hits)[: search.limit] for hits, search in zip(found, searches, strict=True)]

    def _parts(self, search: Search) -> Iterator[tuple[Shard, Search]]:
        """The search, divided by the shards of its collections."""
        homes: dict[Shard, list[str]] = defaultdict(list)
        for collection in search.collections:
            homes[self._home(collection)].append(collection)
        if len(homes) == 1:
            yield next(iter(homes)), search
        else:
            yield from ((shard, replace(search, collections=tuple(names))) for shard, names in homes.items())

    def delete_points(self, ids: Sequence[str]) -> None:
        for view in self._views():
            view.delete_points(ids)

    def delete_document(self, document: str) -> None:
        for view in self._views():
            view.delete_document(document)

    def ids(self, document: str | None = None) -> list[str]:
        return sorted(point_id for view in self._views() for point_id in view.ids(document))

    def page(self, after: str | None, limit: int) -> list[tuple[str, str]]:
        return sorted(row for view in self._views() for row in view.page(after, limit))[:limit]

    def existing(self, ids: Sequence[str]) -> set[str]:
        return {point_id for view in self._views() for point_id in view.existing(ids)}

    def vectors(self, ids: Sequence[str]) -> dict[str, Vector]:
        return {point: vector for view in self._views() for point, vector in view.vectors(ids).items()}

    def count(self) -> int:
        return sum(view.count() for view in self._views())

    def place(self, collection: str, placement: Placement) -> bool:
        for step in moves.place(self._store, self._tenant, self._space, collection, placement):
            step.run()
        for path in self._store.close_retired():
            shutil.rmtree(path, ignore_errors=True)
        return True
