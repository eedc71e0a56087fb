"""How a worker takes waiting jobs: in the tables of the durable queue, which leaves both what is asked and whose turn it is
to us. Called through `durable`; whatever is taken, the queue's own statement takes it, one tenant at a time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlmodel import col

from config.database import Database, past_the_wall
from ingestion.jobs.fair_gate import Places, take_fairly
from ingestion.jobs.tables import DOCUMENTS, FETCHES, Job
from rag.fairness import FairClock

TENANTS_AT_ONCE = 64  # that are considered when jobs are taken: others come the next time, 50 ms later
NAMED_AT_ONCE = 1_000


def poll_cheaply(system: Any) -> None:
    """Let DBOS ask for jobs only where one waits: its own question takes 2 ms, twenty times a second, this one 0.1 ms."""
    status, scopes = system.tables.workflow_status, system.dequeue_scopes
    waiting = (
        sa.select(sa.literal(1)).where(status.c.queue_name == sa.bindparam("queue"), status.c.status == "ENQUEUED").limit(1)
    )

    def dequeue_scopes(queue: str) -> list[Any]:
        with system.engine.connect() as connection:
            found = connection.scalar(waiting, {"queue": queue})
        return [] if found is None else list(scopes(queue))

    system.dequeue_scopes = dequeue_scopes


def take_in_turns(system: Any, active: Any, places: Mapping[str, Places]) -> None:
    """Let DBOS take jobs as `fair_gate` says whose come next, for `places` of each queue.

    `active`: what this process runs. Each worker looks at its own places only: a tenant has its share in every one.
    """
    take = system.start_queued_workflows
    lines = {queue: _Line(system, queue) for queue in places}

    def start_queued_workflows(queue: Any, executor: str, version: str, *more: Any, **named: Any) -> tuple[list[str], Any]:
        if queue.name not in lines:
            found: tuple[list[str], Any] = take(queue, executor, version, *more, **named)
            return found

        def of_tenant(tenant: str, number: int) -> list[str]:
            running = queue._worker_concurrency - number  # it takes as many as there is room for
            ids: list[str] = take(queue, executor, version, tenant, running, **named)[0]
            return ids

        line, running = lines[queue.name], _running(active, queue.name)
        return take_fairly(places[queue.name], line.clock, line.waiting(), running, of_tenant), None

    system.start_queued_workflows = start_queued_workflows


def _running(active: Any, queue: str) -> Counter[str]:
    """By tenant, what this process has taken of the queue."""
    with active._lock:
        buckets = [bucket for found in active._m.values() for bucket in found if bucket is not None]
    return Counter(tenant for name, tenant in buckets if name == queue)


class _Line:
    """Tenants with jobs in a queue, in alphabetical order, so many at a time."""

    def __init__(self, system: Any, queue: str) -> None:
        self.clock, self._system, self._queue, self._after = FairClock(), system, queue, ""
        self._statement = _tenants_of(system)

    def waiting(self) -> list[str]:
        with self._system.engine.connect() as connection:
            found = [*connection.scalars(self._statement, {"queue": self._queue, "after": self._after})]
        self._after = found[-1] if len(found) == TENANTS_AT_ONCE else ""
        return found


def under_way(system: Any) -> sa.ColumnElement[bool]:
    """The condition of the queue's partial indexes, word by word: SQLite uses them for no other."""
    condition: sa.ColumnElement[bool] = system._in_flight_status_prover()
    return condition


def _tenants_of(system: Any) -> sa.Select[tuple[str]]:
    """From one tenant to the next through the index: as many steps as tenants, however many jobs each has."""
    status = system.tables.workflow_status
    tenant = status.c.queue_partition_key
    first = sa.select(sa.func.min(tenant).label("tenant")).where(
        status.c.queue_name == sa.bindparam("queue"), status.c.status == "ENQUEUED", under_way(system)
    )
    found = first.where(tenant > sa.bindparam("after")).cte("tenants", recursive=True)
    following = first.where(tenant > found.c.tenant).scalar_subquery()
    found = found.union_all(sa.select(following).where(found.c.tenant.is_not(None)))
    return sa.select(found.c.tenant).where(found.c.tenant.is_not(None)).limit(TENANTS_AT_ONCE)


def name_tenants(database: Database, system: Any) -> None:
    """Jobs that were enqueued by a version that named no tenants get theirs, or nobody would ever take them."""
    status = system.tables.workflow_status
    mine = sa.update(status).where(status.c.workflow_uuid == sa.bindparam("job"))
    nameless = (
        sa.select(status.c.workflow_uuid)
        .where(status.c.queue_name.in_((DOCUMENTS, FETCHES)), status.c.queue_partition_key.is_(None))
        .where(status.c.status.in_(("ENQUEUED", "PENDING")))
        .where(status.c.workflow_uuid > sa.bindparam("after"))
        .order_by(status.c.workflow_uuid)
        .limit(NAMED_AT_ONCE)
    )
    with database.system_write() as session, past_the_wall(session) as connection:
        system._apply_caller_schema(connection)
        after = ""
        while ids := [*connection.scalars(nameless, {"after": after})]:
            after = ids[-1]
            rows = connection.execute(sa.select(col(Job.id), col(Job.tenant_id)).where(col(Job.id).in_(ids)))
            if named := [{"job": job_id, "tenant": tenant_id} for job_id, tenant_id in rows]:
                connection.execute(mine.values(queue_partition_key=sa.bindparam("tenant")), named)
