"""SIGKILL of any process at seeded moments while two tenants work: nothing acknowledged is lost, doubled or left over."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.faults.converged import converges
from tests.faults.tenant_life import TenantLife
from tests.support import Service, children, environment, free_port, start_service, wait_for

pytestmark = pytest.mark.xdist_group("processes")
CHILDREN = ("api", "worker", "engine")
#: What a killed worker held is swept within the test, and a repair that something woke comes soon.
QUICK = {"hold_lease_seconds": 5, "sweep_seconds": 0.5}


@dataclass
class Killer:
    """Kills one process after another, and the supervisor with all its children now and then."""

    service: Service
    seed: int
    killed: Counter[str] = field(default_factory=Counter)

    def run(self, kills: int, supervisors: int, longest_s: float) -> None:
        moments = random.Random(self.seed)
        targets = ["supervisor"] * supervisors + [CHILDREN[number % 3] for number in range(kills - supervisors)]
        moments.shuffle(targets)
        for target in targets:
            time.sleep(moments.uniform(0.05, longest_s))
            if target == "supervisor":
                self.kill_all()
            else:
                pid = wait_for(lambda target=target: self.service.child(target), what=f"a living {target}")  # type: ignore[misc]
                os.kill(pid, signal.SIGKILL)
            self.killed[target] += 1

    def kill_all(self) -> None:
        before = self.service
        for pid in [before.process.pid, *children(before.process.pid)]:
            os.kill(pid, signal.SIGKILL)
        before.process.wait()
        before.process.communicate()
        self.service = start_service(before.data_dir, before.env)
        before.clients.clear()


def _prove(folder: Path, *, kills: int, supervisors: int, longest_s: float, seed: int, words: int, **settings: object) -> None:
    env = environment(folder, **{**QUICK, **settings, "port": free_port(), "log_level": "error"})
    killer = Killer(start_service(folder, env), seed)
    try:
        service = killer.service
        names = [service.tenant()[0] for _ in range(2)]
        lives = [
            TenantLife(name, service.key(name), service.url, seed=seed + number, words=words)
            for number, name in enumerate(names)
        ]
        service.close_clients()
        enough = threading.Event()
        with ThreadPoolExecutor(2) as pool:
            living = [pool.submit(life.live, enough) for life in lives]
            try:
                killer.run(kills, supervisors, longest_s)
            finally:
                enough.set()
            for each in living:
                each.result(120)
        assert killer.killed.total() == kills
        for life in lives:
            assert life.done["bring"] > 3, life.done
        converges(folder, [life.truth for life in lives])
        for life in lives:
            _answers(killer.service, life)
    finally:
        killer.service.stop()


def _answers(service: Service, life: TenantLife) -> None:
    """What users see: the newest edition of everything, and nothing of what is gone."""
    client = service.client(service.key(life.tenant))
    live = {name: text for name, text in life.truth.live.items() if text is not None}
    shown = {document.external_id: document for document in client.documents.list()}
    assert {name for name, document in shown.items() if document.state == "live"} == set(live)
    for name, text in live.items():
        assert client.documents.text(shown[name].id) == text
    for name in life.truth.live.keys() | life.deleted:
        passages = [p for p in client.query(f"Edition of {name} Shelf oak", top_k=100).passages if p.external_id == name]
        assert bool(passages) == (name in live)
        assert all(passage.text in live[name] for passage in passages)


def test_kills_of_any_process_lose_and_double_nothing(tmp_path: Path) -> None:
    _prove(tmp_path, kills=20, supervisors=2, longest_s=1.6, seed=11, words=30, embedding_runtime="hash")


@pytest.mark.full
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(5))
def test_forty_kills_with_the_real_model(tmp_path: Path, seed: int) -> None:
    _prove(tmp_path, kills=40, supervisors=3, longest_s=5.0, seed=100 + seed, words=30)
