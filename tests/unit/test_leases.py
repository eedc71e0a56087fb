"""Whoever takes a job up fences its former owner off; a cancelled job never becomes live; failed content waits for a retry."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlmodel import col, select

from config.clock import system_clock
from config.database import Database
from config.errors import InvalidInput, LeaseLost
from ingestion.jobs.jobs import Jobs, TenantJobs
from ingestion.jobs.leases import Lease
from ingestion.jobs.tables import Job
from ingestion.pipeline.reading import MAX_READ_STARTS, READERS
from ingestion.queue.workflow import process
from rag.corpus import Chunk, DocumentVersion
from rag.store.memory import MemoryStore
from tenants.tables import BudgetWindow, Event
from tests.world import InProcessReader, World, text_of

ASH, ELM = "ash", "elm"
STEPS = ("read", "embed_batch", "complete", "collect")


@pytest.fixture
def world(database: Database, tmp_path: Path) -> Iterator[World]:
    world = World(database, MemoryStore(), tmp_path, keep_failed_days=1)
    world.fill()
    yield world
    world.close()


def _submitted(world: World, paragraphs: int = 3) -> str:
    world.bring(ASH, "new", text_of(ASH, 9, paragraphs))
    return world.queue.waiting.pop()[1]


def _submitted_as(world: World, external_id: str) -> str:
    world.bring(ASH, external_id, text_of(ASH, 9, 3))
    return world.queue.waiting.pop()[1]


def _lease(world: World, job_id: str) -> Lease:
    lease = world.pipeline.take_up(world.contexts[ASH], job_id)
    assert lease is not None
    return lease


def _run(world: World, lease: Lease, names: tuple[str, ...]) -> None:
    calls: dict[str, Callable[[], object]] = {
        "read": lambda: world.pipeline.read(lease),
        "embed_batch": lambda: world.pipeline.embed_batch(lease, 0),
        "complete": lambda: world.pipeline.complete(lease, 0),
        "collect": lambda: world.pipeline.collect(lease),
    }
    for name in names:
        calls[name]()


def _books(world: World) -> tuple[int, int]:
    with world.database.read(world.contexts[ASH]) as session:
        window = session.scalars(select(BudgetWindow).order_by(col(BudgetWindow.period))).first()
        assert window is not None
        return window.used, window.held


def _of(world: World, job_id: str) -> tuple[Job, DocumentVersion]:
    with world.database.read(world.contexts[ASH]) as session:
        job = session.get_one(Job, job_id)
        return job, session.get_one(DocumentVersion, job.version_id)


def _events(world: World, subject: str, event: str) -> int:
    with world.database.read(world.contexts[ASH]) as session:
        found = select(Event).where(col(Event.subject) == subject, col(Event.type) == event)
        return len(session.scalars(found).all())


def _points_match(world: World) -> bool:
    with world.database.read(world.contexts[ASH]) as session:
        return world.vectors(ASH).ids() == sorted(session.scalars(select(col(Chunk.id))))


@pytest.mark.parametrize("survived", range(len(STEPS)))
def test_a_late_owner_changes_nothing_whichever_step_it_wakes_up_in(world: World, survived: int) -> None:
    before, other = _books(world)[0], world.rows(ELM)
    job_id = _submitted(world)
    late = _lease(world, job_id)
    _run(world, late, STEPS[:survived])
    owner = _lease(world, job_id) if survived < 3 else late
    if owner is not late:
        for name in STEPS[survived:]:
            with pytest.raises(LeaseLost):
                _run(world, late, (name,))
        with pytest.raises(LeaseLost):
            world.pipeline.fail(late, "internal_error", "late")
        _run(world, owner, STEPS)
        for name in STEPS:
            with pytest.raises(LeaseLost):
                _run(world, late, (name,))
    job, version = _of(world, job_id)
    assert (job.state, version.state) == ("succeeded", "live")
    assert _events(world, job.document_id, "document.live") == 1
    assert _events(world, job_id, "job.running") == _events(world, job_id, "job.succeeded") == 1
    assert _books(world) == (before + job.tokens_charged, 0)
    assert job.tokens_charged > 0
    assert job.tokens_charged + job.tokens_cached == job.tokens_total
    assert (job.chunks_done, job.tokens_done) == (job.chunks_total, job.tokens_total)
    assert _points_match(world)
    assert world.rows(ELM) == other


def test_a_late_owner_cannot_settle_the_hold_of_the_new_one(world: World) -> None:
    used = _books(world)[0]
    late = world.ledger.for_tenant(world.contexts[ASH], "ingest", epoch=1)
    owner = world.ledger.for_tenant(world.contexts[ASH], "ingest", epoch=2)
    assert late.hold("h", 10, started=True)
    assert owner.hold("h", 10, started=True)
    for call in (lambda: late.settle("h", 10), lambda: late.release("h"), lambda: late.hold("h", 10)):
        with pytest.raises(LeaseLost):
            call()
    assert _books(world) == (used, 10)
    assert owner.settle("h", 10) == 10
    assert _books(world) == (used + 10, 0)


def test_a_finished_job_is_not_taken_up_again(world: World) -> None:
    job_id = _submitted(world)
    process(world.steps(None), world.contexts[ASH].tenant_id, job_id)
    assert world.pipeline.take_up(world.contexts[ASH], job_id) is None
    assert world.pipeline.take_up(world.contexts[ELM], job_id) is None


def test_what_was_read_is_not_read_again_by_whoever_goes_on(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    job_id = _submitted(world, paragraphs=9)
    batches = world.pipeline.read(_lease(world, job_id))
    job, version = _of(world, job_id)
    assert (job.stage, version.read_starts) == ("embedding", 0)
    assert job.chunks_total > 0

    def read(*_arguments: object) -> None:
        raise AssertionError("read again")

    monkeypatch.setattr(InProcessReader, "read", read)
    assert world.pipeline.read(_lease(world, job_id)) == batches == 1
    world.queue.waiting.append((world.contexts[ASH].tenant_id, job_id))
    world.run_jobs()
    assert _of(world, job_id)[1].state == "live"


def test_a_document_whose_reading_never_ends_is_given_up(world: World) -> None:
    job_id = _submitted(world)
    for start in range(1, MAX_READ_STARTS + 1):
        _lease(world, job_id)  # and the worker dies
        job, version = _of(world, job_id)
        assert (job.stage, version.read_starts) == ("reading", start)
    world.queue.waiting.append((world.contexts[ASH].tenant_id, job_id))
    world.run_jobs()
    job, version = _of(world, job_id)
    assert (job.state, job.error_code, version.state) == ("failed", "document_parked", "failed")
    assert f"begun {MAX_READ_STARTS} times" in (job.error_detail or "")


def test_few_documents_are_read_at_the_same_time(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a document that is read, the whole text is in memory."""
    leases = [_lease(world, _submitted_as(world, f"doc-{number}")) for number in range(2 * READERS)]
    lock, reading, most = threading.Lock(), 0, 0
    full, read = threading.Event(), InProcessReader.read

    def slow(*arguments: Any) -> Any:
        nonlocal reading, most
        with lock:
            reading += 1
            most = max(most, reading)
            if reading == READERS:
                full.set()
        assert full.wait(20)
        try:
            return read(*arguments)
        finally:
            with lock:
                reading -= 1

    monkeypatch.setattr(InProcessReader, "read", slow)
    with ThreadPoolExecutor(len(leases)) as pool:
        assert [*pool.map(world.pipeline.read, leases)] == [1] * len(leases)
    assert most == READERS


def _jobs(world: World) -> TenantJobs:
    return Jobs(world.database, system_clock, world.queue).for_tenant(world.contexts[ASH])


@pytest.mark.parametrize("survived", range(3))
def test_a_job_cancelled_between_two_steps_leaves_only_its_content_and_can_be_retried(world: World, survived: int) -> None:
    answer, job_id = world.answer(ASH), _submitted(world)
    _run(world, _lease(world, job_id), STEPS[:survived])
    _jobs(world).cancel(job_id)
    process(world.steps(None), world.contexts[ASH].tenant_id, job_id)
    job, version = _of(world, job_id)
    assert (job.state, job.stage, version.state, version.text_blob) == ("cancelled", "done", "cancelled", None)
    assert job.finished_at is not None
    assert job.error_code is None
    assert world.answer(ASH) == answer
    assert _points_match(world)
    assert _events(world, job.document_id, "document.live") == 0
    again = _jobs(world).retry(job_id)
    world.run_jobs()
    assert _of(world, again.id)[1].state == "live"
    assert len(world.answer(ASH)) > len(answer)


@pytest.mark.parametrize("by", ["the tenant", "a repair"])
def test_another_job_of_a_version_goes_on_however_often_the_first_was_taken_up(world: World, by: str) -> None:
    job_id = _submitted(world)
    for _ in range(3):
        lease = _lease(world, job_id)
    world.pipeline.read(lease)
    world.ledger.for_tenant(world.contexts[ASH], "ingest", epoch=lease.epoch).hold(f"{lease.version_id}:0", 5)
    if by == "the tenant":
        world.pipeline.fail(lease, "internal_error", "for a test")
        world.pipeline.collect(lease)
        _jobs(world).retry(job_id)
    else:
        world.change(ASH, sa.update(Job).where(col(Job.id) == job_id).values(state="succeeded", stage="done", finished_at=1))
        world.reconciler.check(repair=True)
    world.run_jobs()
    _, version = _of(world, job_id)
    assert version.state == "live"
    world.check_invariants()


def test_failed_content_is_kept_until_its_days_are_over(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    job_id = _submitted(world)
    lease = _lease(world, job_id)
    world.pipeline.read(lease)
    world.pipeline.fail(lease, "unreadable_document", "broken")
    world.pipeline.collect(lease)
    job, version = _of(world, job_id)
    assert (job.state, job.stage, job.error_code) == ("failed", "done", "unreadable_document")
    assert world.blobs.path(version.content_blob).exists()
    assert world.reconciler.check(repair=True).findings == []
    later = system_clock() + 25 * 3600 * 1000
    monkeypatch.setattr(world.collector, "_clock", lambda: later)
    assert [finding.kind for finding in world.reconciler.check(repair=True).findings] == ["remains"]
    assert not world.blobs.path(version.content_blob).exists()
    with pytest.raises(InvalidInput, match="not kept"):
        _jobs(world).retry(job_id)


def test_failed_content_goes_when_a_newer_version_comes(world: World) -> None:
    job_id = _submitted(world)
    lease = _lease(world, job_id)
    world.pipeline.fail(lease, "unreadable_document", "broken")
    world.pipeline.collect(lease)
    version = _of(world, job_id)[1]
    world.bring(ASH, "new", text_of(ASH, 10, 2))
    world.run_jobs()
    assert not world.blobs.path(version.content_blob).exists()
    assert _of(world, job_id)[1].content_blob == ""
