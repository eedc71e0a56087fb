"""The engine's folder is deleted, in a stopped service and under a running one: it is filled again without anybody asking."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import signal
from pathlib import Path

import pytest

from carrel_client import Carrel, ServiceUnavailableError
from tests.faults.converged import inside
from tests.support import Service, environment, start_service, wait_for

pytestmark = pytest.mark.xdist_group("processes")
SETTINGS = {"embedding_runtime": "hash", "sweep_seconds": 0.5, "result_cache_mb": 0}  # answers come from the engine
WORDS = ("oak", "pine", "elm", "ash", "birch", "maple", "alder", "hazel")
TOLERANCE = 1e-6

Answer = list[tuple[str, int, int, float]]


def _fill(client: Carrel, tenant: str) -> None:
    chance = random.Random(tenant)
    for number in range(12):
        # Each board has its own words: among equal scores at the end of an answer no order is promised.
        boards = (" ".join(chance.choices(WORDS, k=60 + board)) for board in range(1 + number % 5))
        text = "\n\n".join(f"Shelf {number} of {tenant}: {words}" for words in boards)
        client.documents.create(text=text, external_id=f"doc-{number}", attributes={"floor": number % 3})
    for job in client.jobs.list():
        client.jobs.wait(job.id)


def _answers(client: Carrel) -> list[Answer]:
    questions = [f"{first} {second}" for first, second in itertools.pairwise(WORDS)]
    asked = [client.query(question, top_k=20) for question in questions]
    asked += [client.query(question, top_k=20, filter={"key": "floor", "op": "eq", "value": 1}) for question in questions]
    return [[(p.external_id, p.start, p.end, p.score) for p in answer.passages] for answer in asked]


def _same(client: Carrel, before: list[Answer]) -> bool:
    """Ids in their order, and scores to 1e-6."""
    try:
        after = _answers(client)
    except ServiceUnavailableError:
        return False
    pairs = [pair for one, two in zip(before, after, strict=True) for pair in zip(one, two, strict=False)]
    return [*map(len, before)] == [*map(len, after)] and all(
        one[:3] == two[:3] and abs(one[3] - two[3]) < TOLERANCE for one, two in pairs
    )


@pytest.mark.parametrize("running", [pytest.param(False, marks=pytest.mark.full), True])
def test_a_lost_engine_is_filled_again_and_answers_as_before(tmp_path: Path, running: bool) -> None:
    service = start_service(tmp_path, environment(tmp_path, **SETTINGS))
    try:
        names = [service.tenant()[0] for _ in range(2)]
        keys = [service.key(name) for name in names]
        clients = [service.client(key) for key in keys]
        for client, name in zip(clients, names, strict=True):
            _fill(client, name)
        before = [_answers(client) for client in clients]
        with inside(tmp_path) as found:
            points = [found.points(name) for name in names]
            charged = [found.charged(name) for name in names]
        service = _lose(service, running)
        clients = [service.client(key) for key in keys]
        for client, expected in zip(clients, before, strict=True):
            assert all(expected)
            wait_for(lambda client=client, expected=expected: _same(client, expected), what="the same answers")  # type: ignore[misc]
        with inside(tmp_path) as found:
            assert [found.points(name) for name in names] == points
            assert [found.charged(name) for name in names] == charged
    finally:
        service.stop()


def _lose(service: Service, running: bool) -> Service:
    vectors = service.data_dir / "vectors"
    if running:
        engine = service.child("engine")
        assert engine is not None
        shutil.rmtree(vectors)
        os.kill(engine, signal.SIGKILL)
        wait_for(lambda: service.child("engine") not in (None, engine), what="a new engine")
        return service
    service.stop()
    shutil.rmtree(vectors)
    return start_service(service.data_dir, service.env)
