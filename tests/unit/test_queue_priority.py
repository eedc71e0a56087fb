"""Which job a worker takes first: the durable queue and a real worker, over tables of each database."""

from __future__ import annotations

from typing import Any, cast

import sqlalchemy as sa

from config.database import Database, past_the_wall
from config.profiles import PRIORITIES
from ingestion.jobs.fair_gate import Places
from ingestion.jobs.leases import Lease
from ingestion.jobs.tables import Job
from ingestion.pipeline.pipeline import Pipeline
from ingestion.queue.durable import DurableQueue, DurableWorker
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


def _work_off(database: Database, count: int, *, fair: bool = True) -> list[str]:
    """Run a worker that does one job at a time until `count` were taken."""
    noting = Noting()
    worker = DurableWorker(
        database,
        cast(Pipeline, noting),
        lambda tenant_id, _job_id: cast(TenantContext, FakeScope(tenant_id)),
        places=Places(1),
        fair=fair,
        executor_id="worker-1",
    )
    worker.start()
    try:
        wait_for(lambda: len(noting.taken) >= count, what="the jobs", timeout_s=30)
    finally:
        worker.close()
    return noting.taken


def _fill(database: Database, queue: DurableQueue) -> None:
    """Ids that sort by age, as real ones: SQLite tells the moments of enqueueing to the second."""
    waiting = [("a", LOW), ("b", NORMAL), ("a", NORMAL), ("b", HIGH), ("a", LOW), ("a", HIGH)]
    for number, (tenant, priority) in enumerate(waiting):
        _enqueue(database, queue, tenant, f"{tenant}-{number:02}", priority)
    queue._client.cancel_workflow("a-04")  # one that was lost, and is taken up anew
    with database.write(FakeScope("a")) as session:
        assert queue.requeue(session, session.get_one(Job, "a-04"))
    _enqueue(database, queue, "b", "b-06", NORMAL)


def _in_order(taken: list[str], expected: list[str]) -> bool:
    """But for neighbours: two jobs are in flight, and which of two threads comes first nobody decides."""
    return len(taken) == len(expected) and all(abs(taken.index(job) - at) <= 1 for at, job in enumerate(expected))


def test_tenants_take_turns_and_each_has_its_urgent_and_old_jobs_first(database: Database, queue: DurableQueue) -> None:
    """Whoever floods the queue with urgent jobs, and also where a former version enqueued them and named no tenants."""
    _fill(database, queue)
    flood = [f"a-{number}" for number in range(10, 30)]
    for job_id in flood:
        _enqueue(database, queue, "a", job_id, HIGH)
    system = queue._client._sys_db
    with database.system_write() as session, past_the_wall(session) as connection:
        system._apply_caller_schema(connection)
        connection.execute(sa.update(system.tables.workflow_status).values(queue_partition_key=None))
    taken = _work_off(database, 27)
    assert _in_order([job for job in taken if job[0] == "a"], ["a-05", *flood, "a-02", "a-00", "a-04"]), taken
    assert _in_order([job for job in taken if job[0] == "b"], ["b-03", "b-01", "b-06"]), taken
    assert taken.index("b-06") < 12, taken  # of two places each has one; 6 where every job takes as long as the others


def test_without_turns_priority_and_age_decide_among_all(database: Database, queue: DurableQueue) -> None:
    _fill(database, queue)
    assert _work_off(database, 7, fair=False) == ["b-03", "a-05", "b-01", "a-02", "b-06", "a-00", "a-04"]
