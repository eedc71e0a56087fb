"""Chores of a worker: each fails alone, the leading worker does them, and the jobs of the dead are found."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import MagicMock

import pytest

from api.processes.housekeeping import Chore, Housekeeping, clearing, housekeeping, take_over
from api.processes.locks import hold_slot
from api.processes.upkeep import Task, Upkeep
from api.wiring.worker import WorkerServices
from config.database import Database
from ingestion.jobs.instances import SILENT_MS, Instances
from tests.unit.conftest import SetClock


def test_a_chore_that_fails_holds_up_no_other(caplog: pytest.LogCaptureFixture) -> None:
    done: list[str] = []

    def fails() -> None:
        done.append("fails")
        raise RuntimeError("broken")

    chores = [Chore("fails", fails, 0.0), Chore("often", lambda: done.append("often"), 0.0)]
    house = Housekeeping([*chores, Chore("seldom", lambda: done.append("seldom"), 3600.0)], lambda: True)
    house.tick()
    house.tick()
    assert done == ["fails", "often", "seldom", "fails", "often"]
    assert [vars(record)["chore"] for record in caplog.records] == ["fails", "fails"]


def test_a_task_of_an_api_process_that_fails_holds_up_no_other(caplog: pytest.LogCaptureFixture) -> None:
    done, often = [], threading.Event()

    def fails() -> None:
        done.append("fails")
        raise RuntimeError("broken")

    def works() -> None:
        done.append("works")
        if done.count("works") >= 2:
            often.set()

    with Upkeep([Task("fails", fails, 0.0), Task("works", works, 0.001)]):
        assert often.wait(20)
    assert done.count("fails") >= 2
    assert done[-2:] == ["fails", "works"], "all once more at the end"
    assert {vars(record)["task"] for record in caplog.records} == {"fails"}


def test_a_purge_that_takes_long_keeps_nobody_waiting() -> None:
    services, ended = MagicMock(), threading.Event()
    for purge in (services.sealer.purge, services.events.purge, services.worker.purge_finished, services.reconciler.expire):
        purge.side_effect = lambda *_args: ended.wait(20)
    services.core.database.system_read.side_effect = RuntimeError("unusual usage is looked for in real rows")
    clears = threading.Thread(target=clearing(services, MagicMock()).tick)
    clears.start()
    try:
        housekeeping(services, MagicMock(), MagicMock()).tick()
        assert services.worker.owners.called, "the jobs of the dead were looked for"
        assert clears.is_alive()
    finally:
        ended.set()
        clears.join()
    assert services.traces.run_once.called
    assert services.core.idempotency.purge.called


def test_only_who_leads_does_them(caplog: pytest.LogCaptureFixture) -> None:
    done: list[str] = []

    def cannot_tell() -> bool:
        raise RuntimeError("the database does not answer")

    for leads in (lambda: False, cannot_tell):
        Housekeeping([Chore("chore", lambda: done.append("chore"), 0.0)], leads).tick()
    assert done == []
    assert "database" in (caplog.records[0].exc_text or "")


@dataclass
class Queue:
    """In the durable worker's place: who has jobs under way, and whose were taken over."""

    pending: set[str]
    taken: list[str] = field(default_factory=list)

    def owners(self) -> set[str]:
        return self.pending

    def take_over(self, executors: list[str]) -> int:
        self.taken += executors
        return len(executors)


def test_jobs_of_executors_that_no_living_worker_is_are_taken_over(database: Database, clock: SetClock) -> None:
    instances = Instances(database, clock)
    queue = Queue({"silent", "mine", "other", "stopped"})
    services = cast(WorkerServices, SimpleNamespace(worker=queue, instances=instances))
    instances.register("worker", "silent")
    clock.now += SILENT_MS + 1
    for executor in ("mine", "other"):
        instances.register("worker", executor)
    take_over(services)
    assert queue.taken == ["silent", "stopped"]


def test_the_first_free_slot_names_a_worker(tmp_path: Path) -> None:
    first, second = hold_slot(tmp_path, "worker"), hold_slot(tmp_path, "worker")
    assert [first[0], second[0]] == ["worker-1", "worker-2"]
    first[1].close()
    again: Any = hold_slot(tmp_path, "worker")
    assert again[0] == "worker-1"
    for _, lock in (second, again):
        lock.close()
