"""The durable queue as requests and repairs use it: over its real tables, without a worker."""

from __future__ import annotations

import pytest
from sqlmodel import col, select

from config.database import Database
from ingestion.jobs.tables import DOCUMENTS, FETCHES, Job
from ingestion.queue.durable import DurableQueue
from ingestion.queue.taking import poll_cheaply
from tests.support import FakeScope

A = FakeScope("a")


def _job(database: Database, queue: DurableQueue | None, job_id: str) -> None:
    job = Job(id=job_id, tenant_id="a", kind="ingest", collection_id="col", document_id="doc", created_at=0, updated_at=0)
    with database.write(A) as session:
        session.add(job)
        session.flush()
        if queue is not None:
            queue.enqueue(session, job)


def _requeue(database: Database, queue: DurableQueue, job_id: str) -> bool:
    with database.write(A) as session:
        return queue.requeue(session, session.scalars(select(Job).where(col(Job.id) == job_id)).one())


def test_unfinished_are_those_that_the_queue_holds(database: Database, queue: DurableQueue) -> None:
    _job(database, queue, "job_held")
    _job(database, None, "job_lost")
    assert queue.unfinished(["job_held", "job_lost", "job_unknown"]) == {"job_held"}
    assert queue.unfinished([]) == set()


def test_a_job_that_the_queue_holds_is_not_enqueued_twice(database: Database, queue: DurableQueue) -> None:
    _job(database, queue, "job_held")
    assert not _requeue(database, queue, "job_held")
    assert queue.unfinished(["job_held"]) == {"job_held"}


@pytest.mark.parametrize("ended", [True, False])
def test_a_job_whose_workflow_ended_or_is_missing_gets_another(database: Database, queue: DurableQueue, ended: bool) -> None:
    _job(database, queue if ended else None, "job_lost")
    _job(database, queue, "job_other")
    if ended:
        queue._client.cancel_workflow("job_lost")
    assert queue.unfinished(["job_lost", "job_other"]) == {"job_other"}
    assert _requeue(database, queue, "job_lost")
    assert queue.unfinished(["job_lost", "job_other"]) == {"job_lost", "job_other"}
    assert not _requeue(database, queue, "job_lost")


def test_nothing_is_enqueued_again_by_a_transaction_that_fails(database: Database, queue: DurableQueue) -> None:
    _job(database, None, "job_lost")
    with database.write(A) as session:
        assert queue.requeue(session, session.scalars(select(Job)).one())
        session.rollback()
    assert queue.unfinished(["job_lost"]) == set()


def test_dbos_is_asked_for_jobs_only_where_one_waits(
    database: Database, queue: DurableQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    system, asked = queue._client._sys_db, []  # type: ignore[var-annotated]
    monkeypatch.setattr(system, "dequeue_scopes", lambda name: asked.append(name) or ["a scope"])
    poll_cheaply(system)
    assert (system.dequeue_scopes(DOCUMENTS), asked) == ([], [])
    _job(database, queue, "job_waiting")
    assert (system.dequeue_scopes(FETCHES), asked) == ([], [])
    assert (system.dequeue_scopes(DOCUMENTS), asked) == (["a scope"], [DOCUMENTS])
