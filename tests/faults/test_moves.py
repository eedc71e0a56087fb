"""Two tenants write, delete and ask the real engine process while a collection moves out, gets its graph, is freed of deleted
points and moves back; and while the engine is killed in the middle of each."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from api.processes.plans import EnginePlan, command_of
from rag.store.base import Point, Search, Space, TenantVectors
from rag.store.remote import EngineClient
from tests.support import FakeScope, wait_for

pytestmark = pytest.mark.xdist_group("processes")
SPACE = Space("sp_moves", 32)
BIG, SMALL = "big", "small"
BATCH = 16


@dataclass
class Engine:
    folder: Path
    rules: dict[str, float]
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        plan = EnginePlan(self.folder, self.folder / "e.sock", "info", dict(self.rules))
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command_of("engine", "--plan", plan.text()), stderr=log)

    def stop(self, number: int) -> None:
        assert self.process is not None
        os.kill(self.process.pid, number)
        self.process.wait(30)

    def client(self) -> EngineClient:
        return EngineClient(self.folder / "e.sock", patience_s=60, timeout_s=30)

    def told(self, event: str, **fields: object) -> list[dict[str, object]]:
        lines = [json.loads(line) for line in (self.folder / "log").read_text().splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == event and fields.items() <= line.items()]


@dataclass
class Tenant:
    """Does one thing after the other, and knows what must be found: what it wrote, and what it has not begun to delete."""

    name: str
    client: EngineClient
    there: dict[str, Point] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)
    waited: list[float] = field(default_factory=list)  #: of the searches
    faults: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        seed = sum(self.name.encode())
        self.chance, self.values = random.Random(seed), np.random.default_rng(seed)

    @property
    def vectors(self) -> TenantVectors:
        return self.client.for_tenant(FakeScope(self.name), SPACE)

    def write(self, count: int, collection: str) -> None:
        rows = self.values.standard_normal((count, SPACE.dimensions)).astype(np.float32)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        points = [
            Point(str(uuid.UUID(bytes=self.values.bytes(16))), collection, f"d{n % 9}", row) for n, row in enumerate(rows)
        ]
        for at in range(0, count, 500):
            self.vectors.upsert(points[at : at + 500])
        self.there |= {point.id: point for point in points}

    def delete(self, ids: list[str]) -> None:
        for point_id in ids:
            del self.there[point_id]
        for at in range(0, len(ids), 500):
            self.vectors.delete_points(ids[at : at + 500])
        self.gone.update(ids)

    def ask(self) -> None:
        wanted = self._any()
        search = Search(wanted.dense, 10, (BIG, SMALL))
        began = time.perf_counter()
        hits = [hit.id for hit in self.vectors.search([search])[0]]
        self.waited.append(time.perf_counter() - began)
        if hits[:1] != [wanted.id]:
            self.faults.append(f"missed {wanted.id}")
        if len(set(hits)) < len(hits) or len(hits) < 10:
            self.faults.append("doubled, or too few")
        if not self.there.keys() >= set(hits):
            self.faults.append(f"foreign or deleted: {set(hits) - self.there.keys()}")

    def _any(self) -> Point:
        keys = self._keys
        while (point := self.there.get(self.chance.choice(keys))) is None:
            pass
        return point

    def _some(self) -> list[str]:
        """As many as are written, so that room for the deleted piles up."""
        return list({self._any().id for _ in range(BATCH)})

    def live(self, stop: threading.Event) -> None:
        turns = 0
        while not stop.is_set():
            if turns % 50 == 0:
                self._keys = [*self.there]
            if turns % 5 == 0:
                self.write(BATCH, self.chance.choice((BIG, SMALL)))
                self.delete(self._some())
            self.ask()
            turns += 1

    def check(self) -> None:
        assert self.faults == []
        ids = sorted(self.there)
        assert self.vectors.ids() == ids
        assert self.vectors.count() == len(ids)
        assert [row[0] for row in self.vectors.page(None, 2000)] == ids[:2000]


class Life:
    """Both tenants at work, each in a thread of its own."""

    def __init__(self, tenants: list[Tenant]) -> None:
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=tenant.live, args=(self._stop,)) for tenant in tenants]

    def __enter__(self) -> None:
        for thread in self._threads:
            thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(120)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    rules = {"idle_s": 0.3, "graph_points": 500, "least": 200, "unindexed_share": 0.15, "dead_share": 0.1}
    engine = Engine(tmp_path, rules)
    engine.start()
    yield engine
    engine.stop(signal.SIGTERM)


def _tenants(engine: Engine, count: int) -> list[Tenant]:
    tenants = [Tenant(name, engine.client()) for name in ("ash", "elm")]
    for tenant in tenants:
        tenant.write(count, BIG)
        tenant.write(count // 4, SMALL)
    return tenants


def _phases(engine: Engine, tenants: list[Tenant]) -> Iterator[tuple[str, Callable[[], None], Callable[[], object]]]:
    """What is begun, and what says that it is done."""
    ash, elm = tenants

    def there(placement: str) -> bool:
        return ash.vectors.place(BIG, placement)  # type: ignore[arg-type]

    def rebuilt_again(collection: str) -> Callable[[], bool]:
        before = len(engine.told("a shard was rebuilt", collection=collection))
        return lambda: len(engine.told("a shard was rebuilt", collection=collection)) > before

    yield "promotion", lambda: None, lambda: there("dedicated")
    yield "graph", lambda: ash.write(len(ash.there) // 2, BIG), rebuilt_again(BIG)
    yield "reclaiming", lambda: elm.delete([*elm.there][: len(elm.there) // 2]), rebuilt_again("")
    yield "demotion", lambda: None, lambda: there("shared")


@pytest.mark.parametrize("count", [pytest.param(800, marks=pytest.mark.full), pytest.param(20_000, marks=pytest.mark.full)])
def test_nothing_is_missed_or_doubled_whenever_the_engine_is_killed(engine: Engine, count: int) -> None:
    tenants = _tenants(engine, count)
    chance = random.Random(count)
    for _, begin, done in _phases(engine, tenants):
        begin()
        with Life(tenants):
            for _ in range(1 if count < 1_000 else 4):
                done()
                time.sleep(chance.uniform(0.0, count / 10_000))  # the moment of the death, not something waited for
                engine.stop(signal.SIGKILL)
                engine.start()
            wait_for(done, what="the move", timeout_s=300)
        for tenant in tenants:
            tenant.check()
    folders = [path.name for path in (engine.folder / "vectors").iterdir()]
    wait_for(lambda: len([*(engine.folder / "vectors").iterdir()]) == 1, what=f"one folder of {folders}")
    for tenant in tenants:
        tenant.client.close()


@pytest.mark.full
def test_a_promotion_is_hardly_felt(engine: Engine) -> None:
    """Search p99 of both tenants while a collection of 20,000 moves and is rebuilt, against the same work without moves."""
    tenants = _tenants(engine, 20_000)
    figures = {}
    for name, begin, done in [("quiet", lambda: None, lambda: False), *_phases(engine, tenants)]:
        begin()
        for tenant in tenants:
            tenant.waited.clear()
        with Life(tenants):
            time.sleep(5.0 if name == "quiet" else 0.0)
            if name != "quiet":
                wait_for(done, what=name, timeout_s=300)
        waited = [1000 * one for tenant in tenants for one in tenant.waited]
        figures[name] = (len(waited), *np.percentile(waited, [50, 99, 100]).round(2))
        for tenant in tenants:
            tenant.check()
    print("searches, p50, p99, longest in ms:", figures)
    assert max(figure[2] for figure in figures.values()) <= 5 * figures["quiet"][2], figures
    for tenant in tenants:
        tenant.client.close()
