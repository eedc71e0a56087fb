"""New work is refused while too much waits or the disk is nearly full; what was accepted goes on."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from sqlmodel import col, select

from config.database import Database
from config.errors import Overloaded, QueueFull, StorageFull
from ingestion.intake.admission import FRESH_FULL_S, FRESH_S, Admission, DiskMark, disk_of
from ingestion.jobs.tables import FETCHES, Job
from ingestion.queue.durable import DurableQueue, migrate_queue_tables
from rag.store.memory import MemoryStore
from tests.support import FakeScope
from tests.world import World, text_of

GB = 10**9
ROOMY = DiskMark(lambda: (GB, GB), 0, 0)


class Waiting:
    """Jobs as a table would count them."""

    def __init__(self) -> None:
        self.now, self.asked = 0.0, 0
        self.jobs: Counter[str] = Counter()

    def __call__(self, tenant_id: str | None, most: int) -> int:
        self.asked += 1
        return min(most, self.jobs.total() if tenant_id is None else self.jobs[tenant_id])

    def admission(self, *, tenant_jobs: int = 10, all_jobs: int = 15) -> Admission:
        return Admission(tenant_jobs=tenant_jobs, all_jobs=all_jobs, disk=ROOMY, clock=lambda: self.now)

    def bring(self, admission: Admission, tenant_id: str) -> None:
        admission.require(tenant_id, self)
        admission.taken(tenant_id)
        self.jobs[tenant_id] += 1


def test_a_tenant_is_refused_at_its_bound_and_another_is_not() -> None:
    waiting = Waiting()
    admission = waiting.admission()
    for _ in range(10):
        waiting.bring(admission, "a")
    with pytest.raises(QueueFull) as full:
        waiting.bring(admission, "a")
    assert (full.value.status, full.value.limit, full.value.retryable) == (429, 10, True)
    assert full.value.retry_after_s
    for _ in range(5):
        waiting.bring(admission, "b")
    with pytest.raises(Overloaded) as overloaded:
        waiting.bring(admission, "b")
    assert (overloaded.value.status, overloaded.value.code, overloaded.value.limit) == (503, "overloaded", 15)
    assert overloaded.value.retry_after_s


def test_room_is_seen_soon_after_jobs_were_taken() -> None:
    waiting = Waiting()
    admission = waiting.admission()
    for _ in range(10):
        waiting.bring(admission, "a")
    waiting.jobs["a"] -= 1
    with pytest.raises(QueueFull):  # as it was counted a moment ago
        waiting.bring(admission, "a")
    waiting.now += 2 * FRESH_FULL_S
    waiting.bring(admission, "a")


def test_waiting_jobs_are_counted_at_most_once_a_second_while_there_is_room() -> None:
    waiting = Waiting()
    admission = waiting.admission(tenant_jobs=1_000, all_jobs=1_000)
    for _ in range(100):
        waiting.bring(admission, "a")
    assert waiting.asked == 2
    waiting.now += FRESH_S / 2
    waiting.bring(admission, "a")
    assert waiting.asked == 2
    waiting.now += FRESH_S
    waiting.bring(admission, "a")
    assert waiting.asked == 4


def test_what_other_processes_add_counts_from_the_next_count_on() -> None:
    waiting = Waiting()
    one, other = waiting.admission(), waiting.admission()
    for _ in range(6):
        waiting.bring(one, "a")
    waiting.bring(other, "a")
    waiting.now += 2 * FRESH_S
    for _ in range(3):
        waiting.bring(other, "a")
    with pytest.raises(QueueFull):
        waiting.bring(other, "a")


@pytest.mark.parametrize(("jobs_a_second", "seconds"), [(100, 1), (10, 5), (1, 50), (0.01, 60)])
def test_the_wait_is_reckoned_from_the_pace(jobs_a_second: float, seconds: int) -> None:
    """Until a twentieth of the bound is free, from one second to a minute."""
    waiting = Waiting()
    admission, left = waiting.admission(tenant_jobs=1_000, all_jobs=10_000), 0.0
    waiting.jobs["a"] = 1_000
    for _ in range(20):
        with pytest.raises(QueueFull) as full:
            admission.require("a", waiting)
        waiting.now += 2
        left += 2 * jobs_a_second
        gone = int(left)
        left -= gone
        waiting.jobs["a"] = 1_000 - gone
        if gone:
            admission.require("a", waiting)
        for _ in range(gone):
            admission.taken("a")
        waiting.jobs["a"] = 1_000
        waiting.now += 0.001
    if jobs_a_second >= 1:
        assert full.value.retry_after_s == pytest.approx(seconds, rel=0.1)
    else:
        assert full.value.retry_after_s in (10, 60)


def test_the_larger_mark_counts() -> None:
    assert DiskMark(lambda: (50, 1_000), 40, 4).room() == (50, 40)
    assert DiskMark(lambda: (50, 1_000), 40, 6).room() == (50, 60)
    DiskMark(lambda: (50, 1_000), 50, 5).require()
    with pytest.raises(StorageFull) as full:
        DiskMark(lambda: (49, 1_000), 50, 5).require()
    assert (full.value.status, full.value.code, full.value.retryable, full.value.limit) == (507, "storage_full", True, 50)


def test_a_real_file_system_tells_its_room(tmp_path: Path) -> None:
    free, whole = disk_of(tmp_path)()
    assert 0 < free < whole


@pytest.fixture
def world(database: Database, tmp_path: Path) -> World:
    return World(database, MemoryStore(), tmp_path, keep_failed_days=7)


@pytest.mark.parametrize("name", ["ash", "elm"])
def test_new_documents_are_refused_and_deletes_repeats_and_waiting_jobs_are_not(world: World, name: str) -> None:
    room = [GB]
    disk = DiskMark(lambda: (room[0], GB), 1_000, 0)
    world.queue.admission = Admission(tenant_jobs=100, all_jobs=100, disk=disk)
    document = world.bring(name, "one", text_of(name, 1, 2))
    world.bring(name, "two", text_of(name, 2, 2))
    room[0] = 999
    with pytest.raises(StorageFull):
        world.bring(name, "three", text_of(name, 3, 2))
    assert world.bring(name, "one", text_of(name, 1, 2)) == document  # the same again is no work
    world.run_jobs()
    assert world.bring(name, "one", text_of(name, 1, 2)) == document
    with pytest.raises(StorageFull):
        world.bring(name, "one", text_of(name, 4, 2))
    assert len(world.files()) == 4  # contents and texts of the two: a refusal leaves nothing
    world.of(name).delete(document)
    world.run_jobs()
    room[0] = GB
    world.bring(name, "three", text_of(name, 3, 2))
    world.run_jobs()
    assert len(world.files()) == 4
    world.close()


def test_waiting_jobs_of_a_tenant_are_counted_in_both_queues(database: Database) -> None:
    migrate_queue_tables(database)
    queue = DurableQueue(database, Admission(tenant_jobs=3, all_jobs=5, disk=ROOMY))

    def bring(tenant: str, number: int, **more: str) -> None:
        fields = {"kind": "ingest", "collection_id": "col", "document_id": "doc", "created_at": 0, "updated_at": 0}
        with database.write(FakeScope(tenant)) as session:
            queue.require_room(session, tenant)
            session.add(job := Job(id=f"{tenant}-{number}", tenant_id=tenant, **fields, **more))
            session.flush()
            queue.enqueue(session, job)
            assert session.scalars(select(Job.id).where(col(Job.tenant_id) == tenant)).all()  # still bound to the tenant

    for number in range(3):
        bring("a", number, **({"queue": FETCHES} if number == 1 else {}))
    with pytest.raises(QueueFull):
        bring("a", 3)
    bring("b", 0)
    bring("b", 1)
    with pytest.raises(Overloaded):
        bring("b", 2)
    with database.read(FakeScope("a")) as session:
        assert (queue._waiting(session, "a", 10), queue._waiting(session, None, 10)) == (3, 5)
        assert queue._waiting(session, None, 4) == 4
    queue.close()
