"""What the engine does beside answering: collections are moved, graphs built, space reclaimed, segments written to disk.

One thing at a time, in steps of a few milliseconds between which requests are served; what would take longer runs in a
thread that waits for a disk or a child process.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field

from rag.store import moves
from rag.store.base import InvalidPoint, Placement, Space, check_placement
from rag.store.edge import Layout, Quantization, Shard
from rag.store.files import Home, Key
from rag.store.moves import Step
from rag.store.shards import EdgeStore

log = logging.getLogger(__name__)

REST = 4.0  # after a step, times what it took: a move takes a fifth of the engine at most
MIN_REST_S = 0.002
MAX_WISHES = 1_000
LATE_FACTOR = 3.0  # of a share, from which on nobody waits for a pause in the writing
QUIET_S, CLOSE_AT_LATEST_S = 0.1, 5.0
RETRY_S = 600.0  # after a rebuild that failed


@dataclass(frozen=True, slots=True)
class Rules:
    """When the engine does what. `graph_points`: from which on a dedicated shard gets a graph."""

    idle_s: float = 30.0
    graph_points: int = 10_000
    unindexed_share: float = 0.1
    dead_share: float = 0.3
    least: int = 1_000  #: points that are not indexed, or dead, below which neither share counts
    quantization: Quantization = "off"  #: of dedicated shards
    shared_quantization: Quantization = "off"


@dataclass(slots=True)
class _Seen:
    """What was known of a shard when it was last looked at."""

    writes: int = -1
    due: bool = False
    not_before: float = 0.0


@dataclass
class Upkeep:
    store: EdgeStore
    rules: Rules = field(default_factory=Rules)
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self._wishes: dict[Key, tuple[Space, Placement]] = {}
        self._wake = asyncio.Event()
        self.writable = asyncio.Event()
        self.writable.set()
        self._seen: dict[Shard, _Seen] = {}
        self.asked_at = self.clock()  #: when the last request came

    def place(self, tenant: str, space: Space, collection: str, placement: Placement) -> bool:
        """Whether it lies there; if not, it will be brought there."""
        check_placement(collection, placement)
        key = Home(space.id, tenant, collection).key
        there = (collection in self.store.dedicated_of(tenant, space)) == (placement == "dedicated")
        if key not in self._wishes and there:
            return True
        if len(self._wishes) >= MAX_WISHES:
            raise InvalidPoint(f"{MAX_WISHES} collections wait to be placed")
        self._wishes[key] = (space, placement)
        self._wake.set()
        return False

    async def run(self) -> None:
        """Whatever fails, a full disk for one, is tried again: nobody would begin this anew."""
        while True:
            try:
                with_work = await self._move_one() or await self._rebuild_one()
                await self._clear_away()
            except Exception:
                log.exception("the engine's upkeep failed; it goes on later")
                with_work = False
            if with_work:
                continue
            self._wake.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), self.rules.idle_s)

    async def _move_one(self) -> bool:
        if self._wishes:
            key = next(iter(self._wishes))
            space, placement = self._wishes[key]
            steps = moves.place(self.store, key[1], space, key[2], placement)
            done = await self._drive("a collection was placed", steps, {"collection": key[2], "placement": placement})
            # What was wished for meanwhile stays; after a failure it is wished for again by whoever compares.
            if not done or self._wishes.get(key) == (space, placement):
                self._wishes.pop(key, None)
            return True
        for space_id, tenant, collection in sorted(self.store.leftovers):
            known = self.store.space_of(space_id)
            if known is not None:
                steps = moves.remove_leftovers(self.store, tenant, known, collection)
                return await self._drive("leftovers of a collection were removed", steps, {"collection": collection})
        return False

    async def _rebuild_one(self) -> bool:
        for shard, home in self.store.homes():
            layout = self._due(shard, home)
            if layout is None:
                continue
            told = {"space": home.space, "collection": home.collection, "bytes_before": shard.bytes()}
            done = await self._drive("a shard was rebuilt", self._rebuilt(shard, home, layout, told), told)
            if done:
                self._seen.pop(shard, None)
            else:
                self._seen[shard].not_before = self.clock() + RETRY_S
            return True
        return False

    def _rebuilt(self, shard: Shard, home: Home, layout: Layout, told: dict[str, object]) -> Iterator[Step]:
        yield from moves.rebuild(self.store, shard, layout)
        after = next(found for found, known in self.store.homes() if known.key == home.key)
        told |= {"points": after.count(), "indexed": after.indexed(), "bytes_after": after.bytes()}

    def _due(self, shard: Shard, home: Home) -> Layout | None:
        """How a shard is to be rebuilt, if it is time to."""
        seen = self._seen.setdefault(shard, _Seen())
        quiet, seen.writes = seen.writes == shard.writes, shard.writes
        if quiet and not seen.due:
            return None  # nothing has happened since it was looked at
        points = shard.count()
        graph = bool(home.collection) and points >= self.rules.graph_points
        layout = Layout(graph, self.rules.quantization if home.collection else self.rules.shared_quantization)
        dead = self._share(shard.slots - points, shard.slots, self.rules.dead_share)
        unindexed = self._share(points - shard.indexed(), points, self.rules.unindexed_share) if graph else 0.0
        relaid = points >= self.rules.graph_points and shard.layout != layout
        seen.due = max(dead, unindexed) >= 1.0 or relaid
        now = quiet or max(dead, unindexed) >= LATE_FACTOR
        return layout if seen.due and now and self.clock() >= seen.not_before else None

    def _share(self, count: int, of: int, limit: float) -> float:
        """1.0 is at the limit."""
        return count / (of * limit) if count >= self.rules.least else 0.0

    async def _clear_away(self) -> None:
        """Closing a shard that was replaced blocks for up to a quarter second: between requests, if there is such a time."""
        at_latest = self.clock() + CLOSE_AT_LATEST_S
        while self.store.retired() and self.clock() < min(at_latest, self.asked_at + QUIET_S):
            await asyncio.sleep(QUIET_S)
        for path in self.store.close_retired():
            await asyncio.to_thread(shutil.rmtree, path, ignore_errors=True)

    async def _drive(self, what: str, steps: Iterator[Step], told: dict[str, object]) -> bool:
        began = self.clock()
        try:
            with closing(steps):  # type: ignore[type-var]
                await self._take(steps)
        except Exception:
            log.exception("the engine's upkeep failed", extra={"instead_of": what, **told})
            return False
        log.info(what, extra={**told, "seconds": round(self.clock() - began, 3)})
        return True

    async def _take(self, steps: Iterator[Step]) -> None:
        began = self.clock()
        for step in steps:
            if step.work is None:
                await asyncio.sleep(max(MIN_REST_S, REST * (self.clock() - began)))
            elif step.frozen:
                self.writable.clear()
                try:
                    await asyncio.to_thread(step.work)
                finally:
                    self.writable.set()
            else:
                await asyncio.to_thread(step.work)
            began = self.clock()
