"""Jobs that run after others, on both databases: they wait in no queue, and are let go by what ends the last one."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from config.clock import system_clock
from config.database import Database
from config.errors import Conflict, InvalidInput, NotFound
from ingestion.intake.submission import Submission
from ingestion.jobs.jobs import Jobs, TenantJobs
from ingestion.jobs.rows import After
from ingestion.jobs.tables import ANY_END, Job, JobDependency
from ingestion.queue.durable import DurableQueue
from ingestion.queue.workflow import process
from ingestion.removal.collections import Removal
from rag.corpus import Document, DocumentVersion
from rag.store.memory import MemoryStore
from tests.world import TENANTS, World

MINE, OTHERS = TENANTS


@pytest.fixture
def world(database: Database, tmp_path: Path) -> Iterator[World]:
    world = World(database, MemoryStore(), tmp_path, keep_failed_days=1)
    world.bring(OTHERS, "theirs", "of somebody else")
    yield world
    world.close()


def _bring(world: World, key: str, *after: Job, policy: str = "all_succeeded", text: str = "", **fields: Any) -> Job:
    submission = Submission((text or f"the text of {key}").encode(), external_id=key, media_type="text/plain", **fields)
    submitted = world.of(MINE).submit(submission, after=After(tuple(job.id for job in after), policy))
    assert submitted.job is not None
    return submitted.job


def _jobs(world: World, name: str = MINE, **bounds: Any) -> TenantJobs:
    return Jobs(world.database, system_clock, world.queue).for_tenant(replace(world.contexts[name], **bounds))


def _state(world: World, *jobs: Job) -> list[tuple[str, bool]]:
    found = [_jobs(world).get(job.id) for job in jobs]
    return [(job.state, job.held) for job in found]


def _waiting(world: World) -> list[str]:
    return [job_id for tenant_id, job_id in world.queue.waiting if tenant_id == world.contexts[MINE].tenant_id]


def _run_one(world: World, job: Job) -> None:
    """This job and nothing that it lets go."""
    others = [item for item in world.queue.waiting if item[1] != job.id]
    world.queue.waiting.clear()
    world.queue.waiting.append((world.contexts[MINE].tenant_id, job.id))
    process(world.steps(None), *world.queue.waiting.popleft())
    world.queue.waiting.extendleft(others)


def _broken(world: World, key: str, *after: Job, **fields: Any) -> Job:
    """A job that fails when it is run: nothing can be read of its document."""
    job = _bring(world, key, *after, **fields)
    _break(world, job)
    return job


def _break(world: World, job: Job) -> None:
    with world.database.write(world.contexts[MINE]) as session:
        version = session.get_one(DocumentVersion, job.version_id)
        version.read_starts = 99
        session.add(version)


def test_a_job_waits_in_no_queue_until_the_last_one_before_it_has_ended(world: World) -> None:
    one, two = _bring(world, "one"), _bring(world, "two")
    three = _bring(world, "three", one, two)
    assert (three.stage, three.held, three.after) == ("waiting", True, [one.id, two.id])
    assert three.id not in _waiting(world)
    _run_one(world, one)
    assert (_state(world, one, three), three.id in _waiting(world)) == ([("succeeded", False), ("queued", True)], False)
    _run_one(world, two)
    assert (_state(world, three), three.id in _waiting(world)) == ([("queued", False)], True)
    world.run_jobs()
    assert _state(world, three) == [("succeeded", False)]
    assert world.all(MINE, JobDependency) == []


def test_a_chain_runs_in_its_order(world: World) -> None:
    jobs = [_bring(world, "0")]
    for number in range(1, 6):
        jobs.append(_bring(world, str(number), *jobs))
    world.run_jobs()
    assert _state(world, *jobs) == [("succeeded", False)] * 6
    rows = {job.id: job for job in world.all(MINE, Job)}
    finished = [rows[job.id].finished_at for job in jobs]
    assert finished == sorted(finished)


def test_what_comes_after_ended_jobs_does_not_wait(world: World) -> None:
    one = _bring(world, "one")
    world.run_jobs()
    two = _bring(world, "two", one)
    assert (two.held, two.id in _waiting(world)) == (False, True)


@pytest.mark.parametrize("policy", ["all_succeeded", ANY_END])
@pytest.mark.parametrize("end", ["failed", "cancelled"])
def test_after_one_that_did_not_succeed_a_job_fails_unless_any_end_will_do(world: World, policy: str, end: str) -> None:
    one = _broken(world, "one")
    two = _bring(world, "two", one, policy=policy)
    three = _bring(world, "three", two)
    if end == "cancelled":
        _jobs(world).cancel(one.id)
    world.run_jobs()
    found = [_jobs(world).get(job.id) for job in (one, two, three)]
    expected = "succeeded" if policy == ANY_END else "failed"
    assert [job.state for job in found] == [end, expected, expected]
    if policy != ANY_END:
        assert [job.error_code for job in found[1:]] == ["dependency_failed"] * 2
        assert one.id in str(found[1].error_detail)
        again = _jobs(world).retry(two.id)
        assert (again.after, again.held) == ([], False)
        world.run_jobs()
        assert _state(world, again) == [("succeeded", False)]


@pytest.mark.parametrize("waits", [True, False])
def test_a_collection_stays_while_a_job_elsewhere_is_to_fail_for_one_of_its(world: World, waits: bool) -> None:
    """Whether that waits for others too, or for a worker alone."""
    for name in TENANTS:
        world.documents.collections.for_tenant(world.contexts[name]).create("brief")
    removal = Removal(world.database, world.documents.collections)
    good, lost = _bring(world, "good", collection="brief"), _broken(world, "lost", collection="brief")
    others = [_bring(world, "other")] if waits else []
    after_good, after_lost = _bring(world, "content", good, *others), _bring(world, "sad", lost, *others)
    _bring(world, "whatever", lost, *others, policy=ANY_END)
    for job in (good, lost):
        _run_one(world, job)
        _run_one(world, world.of(MINE).delete(job.document_id))
    with pytest.raises(Conflict, match="another collection"):
        removal.remove(world.contexts[MINE], "brief")
    removal.remove(world.contexts[OTHERS], "brief")
    world.run_jobs()
    found = [_jobs(world).get(job.id) for job in (after_good, after_lost)]
    assert [(job.state, job.error_code) for job in found] == [("succeeded", None), ("failed", "dependency_failed")]
    removal.remove(world.contexts[MINE], "brief")


def test_a_foreign_job_is_a_missing_one_and_so_is_one_that_the_key_must_not_see(world: World) -> None:
    [theirs] = world.all(OTHERS, Job)
    red = _bring(world, "red", labels=["red"])
    missing = Job(**{**theirs.model_dump(), "id": "job_0000000000000000000000000"})
    said = set()
    for job in (theirs, missing):
        with pytest.raises(NotFound) as refused:
            _bring(world, "one", red, job)
        said.add((str(refused.value), refused.value.field))
    outsider = world.documents.for_tenant(replace(world.contexts[MINE], labels=frozenset()))
    submission = Submission(b"text", external_id="one", media_type="text/plain")
    with pytest.raises(NotFound) as refused:
        outsider.submit(submission, after=After((red.id,)))
    assert said == {(str(refused.value), refused.value.field)} == {("There is no such job.", "after")}
    with pytest.raises(NotFound):
        world.of(MINE).delete(red.document_id, after=After((theirs.id,)))
    assert [document.external_id for document in world.all(MINE, Document)] == ["red"]
    assert len(world.files()) == 2


def test_the_number_of_jobs_is_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    one = _bring(world, "one")
    with pytest.raises(InvalidInput, match="at most 20"):
        _bring(world, "two", *[one] * 21)
    monkeypatch.setattr("ingestion.jobs.rows.MAX_WAITING", 2)
    _bring(world, "two", one)
    _bring(world, "three", one)
    with pytest.raises(InvalidInput, match="At most 2 jobs"):
        _bring(world, "four", one)
    world.run_jobs()
    assert {state for state, _ in _state(world, *world.all(MINE, Job))} == {"succeeded"}


def test_a_waiting_job_can_be_cancelled_and_leaves_nothing(world: World) -> None:
    one = _bring(world, "one")
    two = _bring(world, "two", one)
    three = _bring(world, "three", two, policy=ANY_END)
    assert _jobs(world).cancel(two.id).state == "cancelled"
    assert _state(world, two, three) == [("cancelled", False), ("queued", False)]
    world.run_jobs()
    row = _jobs(world).get(two.id)
    assert (row.state, row.stage, row.error_code) == ("cancelled", "done", None)
    assert _state(world, one, three) == [("succeeded", False)] * 2


def test_a_delete_waits_and_leaves_the_document_until_then(world: World) -> None:
    old = _bring(world, "old")
    world.run_jobs()
    new = _bring(world, "new")
    gone = world.of(MINE).delete(old.document_id, after=After((new.id,)))
    assert gone.held
    assert world.of(MINE).get(old.document_id).version.state == "live"
    world.run_jobs()
    with pytest.raises(NotFound):
        world.of(MINE).get(old.document_id)
    assert _state(world, gone) == [("succeeded", False)]
    assert [document.external_id for document in world.all(MINE, Document)] == ["new"]


@pytest.mark.parametrize("end", ["failed", "cancelled"])
def test_a_delete_that_waited_in_vain_leaves_the_document(world: World, end: str) -> None:
    old = _bring(world, "old")
    world.run_jobs()
    new = _broken(world, "new")
    gone = world.of(MINE).delete(old.document_id, after=After((new.id,)))
    if end == "cancelled":
        assert _jobs(world).cancel(gone.id).stage == "done"
    world.run_jobs()
    assert _state(world, gone) == [(end, False)]
    assert world.of(MINE).get(old.document_id).version.state == "live"
    assert world.answer(MINE)
    assert world.reconciler.check(repair=True).findings == []


def test_jobs_that_end_at_the_same_moment_let_the_next_one_go_once(world: World) -> None:
    for round_ in range(4):
        before = [_bring(world, f"{round_}-{number}") for number in range(6)]
        last = _bring(world, f"{round_}-last", *before)
        start = threading.Barrier(6)

        def cancel(job: Job, start: threading.Barrier = start) -> None:
            start.wait(20)
            _jobs(world).cancel(job.id)

        with ThreadPoolExecutor(6) as pool:
            list(pool.map(cancel, before))
        assert _waiting(world).count(last.id) == 1
    world.run_jobs()


def test_jobs_that_are_brought_while_the_one_before_ends_are_never_forgotten(world: World) -> None:
    one = _bring(world, "one")
    start = threading.Barrier(8)

    def act(number: int) -> Job:
        start.wait(20)
        return _jobs(world).cancel(one.id) if number == 0 else _bring(world, str(number), one, policy=ANY_END)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(act, range(8)))
    world.run_jobs()
    assert {job.state for job in world.all(MINE, Job)} == {"cancelled", "succeeded"}
    assert not any(job.held for job in world.all(MINE, Job))


class Killed(BaseException):
    pass


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_kill_at_the_end_of_the_one_before_loses_nothing(world: World, when: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process dies around the transaction that ends it: then both happened, or neither."""
    one = _bring(world, "one")
    two = _bring(world, "two", one)
    steps, tenant_id = world.steps(None), world.contexts[MINE].tenant_id
    complete = steps.complete

    def dies(*args: Any) -> Any:
        if when == "after":
            complete(*args)
        raise Killed

    with pytest.raises(Killed):
        process(replace(steps, complete=dies), *next(item for item in world.queue.waiting if item[1] == one.id))
    assert _state(world, two) == [("queued", when == "before")]
    assert (tenant_id, two.id) in world.queue.waiting or when == "before"
    world.run_jobs()
    assert _state(world, one, two) == [("succeeded", False)] * 2


def test_what_was_missed_is_found_by_the_reconciler(world: World) -> None:
    one = _bring(world, "one")
    two = _bring(world, "two", one)
    findings = [finding for finding in world.reconciler.check(repair=True).findings if finding.subject == two.id]
    assert findings == []
    with world.database.write(world.contexts[MINE]) as session:
        row = session.get_one(Job, one.id)
        row.state, row.stage = "succeeded", "done"  # by a hand that let nobody go
        session.add(row)
    assert "job_without_workflow" in {finding.kind for finding in world.reconciler.check(repair=True).findings}
    assert (_state(world, two), two.id in _waiting(world)) == ([("queued", False)], True)


def test_the_durable_queue_has_no_place_for_a_job_that_waits(world: World, queue: DurableQueue) -> None:
    documents = replace(world.documents, queue=queue).for_tenant(world.contexts[MINE])

    def bring(key: str, *after: str) -> Job:
        submission = Submission(key.encode(), external_id=key, media_type="text/plain")
        job = documents.submit(submission, after=After(after)).job
        assert job is not None
        return job

    one = bring("one")
    two = bring("two", one.id)
    assert queue.unfinished([one.id, two.id]) == {one.id}
    Jobs(world.database, system_clock, queue).for_tenant(world.contexts[MINE]).cancel(one.id)
    assert queue.unfinished([one.id, two.id]) == {one.id, two.id}
