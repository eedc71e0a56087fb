"""Readiness answers in time whatever its parts do, and says of each what is wrong and what to do."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path

import pytest

from api.processes.lifecycle import Lifecycle
from api.processes.readiness import Check, Readiness, check_disk, checks
from api.schemas.documents import Part
from config.database import Database
from ingestion.intake.admission import DiskMark, disk_of
from ingestion.jobs.instances import SILENT_MS, Instances
from rag.embedding.batcher import Batcher
from rag.embedding.hashing import HashRuntime
from rag.store.memory import MemoryStore
from tests.support import PATIENCE
from tests.unit.conftest import SetClock

GOOD = Part(ok=True, detail="answers")


def _asked(readiness: Readiness, times: int = 1) -> list[dict[str, Part]]:
    async def ask() -> list[dict[str, Part]]:
        return [*await asyncio.gather(*(readiness.parts() for _ in range(times)))]

    return asyncio.run(ask())


def test_a_part_that_hangs_holds_up_no_other_and_is_not_asked_twice() -> None:
    release, asked = threading.Event(), threading.Semaphore(0)

    def hangs() -> Part:
        asked.release()
        release.wait(30)
        return GOOD

    readiness = Readiness({"good": lambda: GOOD, "hangs": hangs}, patience_s=0.1)
    began = time.monotonic()
    answers = _asked(readiness, times=5) + _asked(readiness)
    assert time.monotonic() - began < 2 * PATIENCE
    assert all(parts["good"] == GOOD and not parts["hangs"].ok for parts in answers)
    assert asked.acquire(timeout=5)
    assert not asked.acquire(blocking=False)
    release.set()
    readiness._asked["hangs"].result(5)
    assert _asked(readiness)[0]["hangs"] == GOOD
    readiness.close()


def test_a_part_that_fails_is_named_and_nothing_is_raised() -> None:
    def fails() -> Part:
        raise RuntimeError("a secret of the inside")

    readiness = Readiness({"fails": fails, "good": lambda: GOOD})
    [parts] = _asked(readiness)
    assert parts == {"fails": Part(ok=False, detail="RuntimeError", advice="See the api's log."), "good": GOOD}
    readiness.close()


@pytest.fixture
def instances(database: Database, clock: SetClock) -> Instances:
    return Instances(database, clock)


def _checks(database: Database, instances: Instances, folder: Path, draining: threading.Event) -> dict[str, Check]:
    return checks(
        database=database,
        instances=instances,
        store=MemoryStore(),
        embedder=Batcher(HashRuntime(), batch_tokens=64),
        data_dir=folder,
        mark=DiskMark(disk_of(folder), 0, 0),
        draining=draining,
    )


def test_the_worker_is_there_while_one_lives(database: Database, instances: Instances, clock: SetClock, tmp_path: Path) -> None:
    worker = _checks(database, instances, tmp_path, threading.Event())["worker"]
    instances.register("api")
    assert not worker().ok
    assert "carrel worker" in (worker().advice or "")
    first = instances.register("worker", "one")
    instances.register("worker", "two")
    assert worker() == Part(ok=True, detail="2 running")
    instances.end(first)
    assert worker() == Part(ok=True, detail="1 running")
    clock.now += SILENT_MS + 1
    assert not worker().ok


def test_draining_is_not_ready(database: Database, instances: Instances, tmp_path: Path) -> None:
    draining = threading.Event()
    parts = _checks(database, instances, tmp_path, draining)
    assert [name for name, check in parts.items() if not check().ok] == ["worker"]
    draining.set()
    assert [name for name, check in parts.items() if not check().ok] == ["worker", "draining"]


def test_a_disk_that_takes_no_file_is_named(tmp_path: Path) -> None:
    assert check_disk(tmp_path, DiskMark(disk_of(tmp_path), 0, 0)).ok
    for unwritable in (Path("/proc"), tmp_path / "missing"):
        part = check_disk(unwritable, DiskMark(disk_of(unwritable), 0, 0))
        assert not part.ok
        assert str(unwritable) in (part.advice or "")


def test_a_disk_below_its_mark_is_told_and_keeps_nobody_from_asking(tmp_path: Path) -> None:
    part = check_disk(tmp_path, DiskMark(lambda: (10**9, 10**12), 0, 5))
    assert part.ok
    assert part.detail == "1.0 GB free, of 50.0 needed: new documents are refused"
    assert "Free some space" in (part.advice or "")


def test_a_process_says_what_it_begins_and_ends(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("signal.signal", lambda *_: None)
    caplog.set_level("INFO", "api.processes.lifecycle")
    life = Lifecycle()
    life.ready()
    life.handle(15, None)
    assert life.stopping.is_set()
    life.draining()
    life.stopped()
    assert [record.message for record in caplog.records] == ["starting", "ready", "draining", "stopped"]
    assert all(
        vars(record)[name] >= 0 for record, name in zip(caplog.records[1:], ("seconds", "ran_s", "drained_s"), strict=True)
    )
