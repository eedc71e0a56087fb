"""A reconciler that never rests beside jobs, submissions and deletions: it may take nothing that is in use for damage."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from config.database import Database
from config.errors import Unavailable
from ingestion.reconciler import Reconciler
from tests.support import served_engine
from tests.world import TENANTS, World, text_of

ROUNDS, NAMES = 12, ("one", "two", "three")


def _bring_and_delete(world: World, name: str, seed: int, expected: dict[str, int]) -> None:
    chance = random.Random(seed)
    for number in range(ROUNDS):
        external_id = chance.choice(NAMES)
        if external_id in expected and chance.random() < 0.3:
            shown = world.of(name).list(collection=None, after=None, limit=10)[0]
            world.of(name).delete(next(s.document.id for s in shown if s.document.external_id == external_id))
            del expected[external_id]
        else:
            world.bring(name, external_id, text_of(name, seed * 100 + number, 1 + number % 4))
            expected[external_id] = seed * 100 + number


def _work(world: World, done: threading.Event) -> None:
    pause = threading.Event()
    while not (done.is_set() and not world.queue.waiting):
        world.run_jobs(pause=lambda seconds: pause.wait(min(seconds, 0.05)) and None)
        done.wait(0.01)


def _repair(reconciler: Reconciler, done: threading.Event) -> set[str]:
    found: set[str] = set()
    while not done.is_set():
        try:
            found |= {finding.kind for finding in reconciler.check(repair=True).findings}
        except Unavailable:  # the engine had no time for a call inside a transaction; the next run goes on
            continue
    return found


def test_a_reconciler_that_never_rests_harms_no_job(sql_url: str, tmp_path: Path) -> None:
    database = Database(sql_url, synchronous="off")
    with served_engine(tmp_path) as engine:
        world = World(database, engine, tmp_path)
        for name in TENANTS:
            world.documents.collections.for_tenant(world.contexts[name]).ensure_default()
        world.instances.register("api")  # what is written from now on may belong to a submission under way
        reconciler = Reconciler(world.parts(engine))
        brought, worked = threading.Event(), threading.Event()
        expected: dict[str, dict[str, int]] = {name: {} for name in TENANTS}
        with ThreadPoolExecutor(5) as pool:
            repairs = pool.submit(_repair, reconciler, worked)
            workers = [pool.submit(_work, world, brought) for _ in range(2)]
            try:
                bringing = [
                    pool.submit(_bring_and_delete, world, name, seed, expected[name]) for seed, name in enumerate(TENANTS, 1)
                ]
                for each in bringing:
                    each.result(120)
            finally:
                brought.set()
            try:
                for worker in workers:
                    worker.result(120)
            finally:
                worked.set()
            found = repairs.result(120)
        assert found == set()
        world.check_invariants()
        assert world.reconciler.check(repair=True).findings == []
        for name in TENANTS:
            answered = {(row[0], row[4].split()[1]) for row in world.answer(name) if row[4].startswith("Shelf")}
            assert answered == {(external_id, str(number)) for external_id, number in expected[name].items()}
        world.close()
    database.close()
