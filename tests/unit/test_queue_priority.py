"""Which job a worker takes first: the durable queue and a real worker, over tables of each database."""

from __future__ import annotations

from typing import Any, cast

import sqlalchemy as sa

from config.database import Database, past_the_wall
from config.profiles import PRIORITIES
from ingestion.durable import DurableQueue, DurableWorker
from ingestion.fair_gate import Places
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
    waiting = [("a", LOW), ("b", NORMAL), ("a", NORMAL), ("b", HIGH), ("a", LOW), ("a", HIGH)]
    for number, (tenant, priority) in enumerate(waiting):
        _enqueue(database, queue, tenant, f"{tenant}-{number}", priority)
    queue._client.cancel_workflow("a-4")  # one that was lost, and is taken up anew
    with database.write(FakeScope("a")) as session:
        assert queue.requeue(session, session.get_one(Job, "a-4"))
    _enqueue(database, queue, "b", "b-6", NORMAL)


def _started(database: Database, queue: DurableQueue) -> dict[str, int]:
    """When each job was taken, as the queue has it: threads that begin at the same moment note it in any order."""
    system = queue._client._sys_db
    status = system.tables.workflow_status
    with database.system_write() as session, past_the_wall(session) as connection:
        system._apply_caller_schema(connection)
        rows = connection.execute(sa.select(status.c.workflow_uuid, status.c.started_at_epoch_ms))
        return {job: started for job, started in rows}  # noqa: C416  rows are no pairs to the type checker


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
    _work_off(database, 27)
    at = _started(database, queue)
    for expected in (["a-5", *flood, "a-2", "a-0", "a-4"], ["b-3", "b-1", "b-6"]):
        times = [at[job] for job in expected]
        assert times == sorted(times), at
    assert at["b-6"] < at[flood[-5]], at  # of two places each has one: after three of the other's, or a few more


def test_without_turns_priority_and_age_decide_among_all(database: Database, queue: DurableQueue) -> None:
    _fill(database, queue)
    assert _work_off(database, 7, fair=False) == ["b-3", "a-5", "b-1", "a-2", "b-6", "a-0", "a-4"]
