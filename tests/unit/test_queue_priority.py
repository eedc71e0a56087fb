"""Which job a worker takes first: the durable queue and a real worker, over tables of each database."""

from __future__ import annotations

from typing import Any, cast

from config.database import Database
from config.profiles import PRIORITIES
from ingestion.durable import DurableQueue, DurableWorker
from ingestion.leases import Lease
from ingestion.pipeline import Pipeline
from ingestion.tables import Job
from tenants.context import TenantContext
from tests.support import FakeScope, wait_for

HIGH, NORMAL, LOW = PRIORITIES["high"], PRIORITIES["normal"], PRIORITIES["low"]


class Noting:
    """In the pipeline's place: notes which jobs are taken up, and has no work for any."""

    def __init__(self) -> None:
        self.taken: list[str] = []

    def take_up(self, _context: TenantContext, job_id: str) -> Lease | None:
        self.taken.append(job_id)
        return None

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


def _enqueue(database: Database, queue: DurableQueue, tenant: str, job_id: str, priority: int) -> None:
    common = {"kind": "ingest", "collection_id": "col", "document_id": "doc", "created_at": 0, "updated_at": 0}
    job = Job(id=job_id, tenant_id=tenant, priority=priority, **common)
    with database.write(FakeScope(tenant)) as session:
        session.add(job)
        session.flush()
        queue.enqueue(session, job)


def _work_off(database: Database, count: int) -> list[str]:
    """Run a worker that does one job at a time until `count` were taken."""
    noting = Noting()
    worker = DurableWorker(
        database,
        cast(Pipeline, noting),
        lambda tenant_id, _job_id: cast(TenantContext, FakeScope(tenant_id)),
        concurrency=1,
        executor_id="worker-1",
    )
    worker.start()
    try:
        wait_for(lambda: len(noting.taken) >= count, what="the jobs", timeout_s=30)
    finally:
        worker.close()
    return noting.taken


def test_jobs_of_higher_priority_are_taken_first_and_equal_ones_in_their_order(database: Database, queue: DurableQueue) -> None:
    waiting = [("a", LOW), ("b", NORMAL), ("a", NORMAL), ("b", HIGH), ("a", LOW), ("a", HIGH)]
    for number, (tenant, priority) in enumerate(waiting):
        _enqueue(database, queue, tenant, f"job-{number}", priority)
    queue._client.cancel_workflow("job-4")  # one that was lost, and is taken up anew
    with database.write(FakeScope("a")) as session:
        assert queue.requeue(session, session.get_one(Job, "job-4"))
    _enqueue(database, queue, "b", "job-6", NORMAL)
    taken = _work_off(database, len(waiting) + 1)
    assert taken == ["job-3", "job-5", "job-1", "job-2", "job-6", "job-0", "job-4"]
