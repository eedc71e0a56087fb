"""Jobs that survive their worker: DBOS, on the same database as everything else. The only file that imports it.

Settings that are not its defaults, each for a reason that was met: a fixed application version (its own hash of the code
would strand running jobs after any edit), JSON instead of pickle, a short polling interval, and a recovery limit that
process deaths do not reach (parser deaths are counted per document, in `pipeline`). A job's partition is its tenant; which
tenant's jobs are taken is decided here, because its own partitions have fixed sizes and are served at random.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import sqlalchemy as sa
from dbos import DBOS, DBOSClient, DBOSConfig, EnqueueOptions
from dbos._dbos import _get_dbos_instance
from dbos._serialization import Serializer
from sqlalchemy.orm import Session

from config.database import SYSTEM_ROLE, Database, past_the_wall
from ingestion.intake.admission import Admission
from ingestion.jobs.fair_gate import Places
from ingestion.jobs.tables import DOCUMENTS, FETCHES, Job
from ingestion.pipeline.pipeline import Pipeline
from ingestion.queue.taking import name_tenants, poll_cheaply, take_in_turns, under_way
from ingestion.queue.workflow import ContextOfJob, Steps, process

APPLICATION, APPLICATION_VERSION = "carrel", "1"
WORKFLOW = "process_document"
POLL_S = 0.05  # a job is picked up within 36/62 ms (p50/p99)
FETCHES_AT_ONCE = 4  # in a worker, beside the documents in flight
FETCH_POLL_S = 0.25  # fetching takes longer anyway
MAX_RECOVERIES = 1_000_000
KEEP_FINISHED_S = 24 * 3600
PURGE_LIMIT = 1_000
OWNERS_LIMIT = 1_000  # jobs under way that are looked at: many more than workers have in flight
STOP_S = 3  # that running steps are given to end
ACTIVE = ("ENQUEUED", "PENDING", "DELAYED")  # states of workflows that have not ended


class JsonSerializer(Serializer):
    def serialize(self, data: Any) -> str:
        return json.dumps(data, default=repr)

    def deserialize(self, serialized_data: str) -> Any:
        return json.loads(serialized_data)

    def name(self) -> str:
        return "carrel_json"


class DurableQueue:
    """The requests' side: a job is enqueued in the transaction that writes its row."""

    def __init__(self, database: Database, admission: Admission | None = None) -> None:
        """Without an `admission` every job is taken: what repairs bring was taken in before."""
        self._client = DBOSClient(system_database_engine=database.engine, serializer=JsonSerializer(), lazy=True)
        self._admission = admission

    def require_room(self, session: Session, tenant_id: str) -> None:
        if self._admission is not None:
            self._admission.require(tenant_id, partial(self._waiting, session))

    def _waiting(self, session: Session, tenant_id: str | None, most: int) -> int:
        """Jobs of the tenant, or of all, that nobody has taken yet, counted up to `most`."""
        system = self._client._sys_db
        status = system.tables.workflow_status
        waiting = sa.select(sa.literal(1)).where(
            status.c.queue_name.in_((DOCUMENTS, FETCHES)),
            status.c.status == "ENQUEUED",
            under_way(system),
            status.c.queue_partition_key.is_not(None),
        )
        if tenant_id is not None:
            waiting = waiting.where(status.c.queue_partition_key == tenant_id)
        with past_the_wall(session) as connection:
            system._apply_caller_schema(connection)
            return connection.scalar(sa.select(sa.func.count()).select_from(waiting.limit(most).subquery())) or 0

    def enqueue(self, session: Session, job: Job) -> None:
        options = EnqueueOptions(
            queue_name=job.queue,
            workflow_name=WORKFLOW,
            workflow_id=job.id,
            app_version=APPLICATION_VERSION,
            priority=job.priority,
            queue_partition_key=job.tenant_id,
        )
        with past_the_wall(session) as connection:
            self._client.enqueue_in_transaction(connection, options, job.tenant_id, job.id)
        if self._admission is not None:
            self._admission.taken(job.tenant_id)

    def unfinished(self, job_ids: Sequence[str]) -> set[str]:
        if not job_ids:
            return set()  # no ids would mean all workflows
        found = self._client.list_workflows(workflow_ids=list(job_ids), status=[*ACTIVE], load_input=False, load_output=False)
        return {workflow.workflow_id for workflow in found}

    def requeue(self, session: Session, job: Job) -> bool:
        # What `DBOSClient.delete_workflows` does, but in the session's transaction: its own would wait for this one for ever,
        # and between the two another could take the job up.
        queue = self._client._sys_db
        with past_the_wall(session) as connection:
            queue._apply_caller_schema(connection)
            tables = queue.tables
            status = tables.workflow_status
            state = connection.scalar(sa.select(status.c.status).where(status.c.workflow_uuid == job.id))
            if state in ACTIVE:
                return False
            for table in (tables.workflow_input, tables.workflow_output, tables.operation_outputs, status):
                connection.execute(sa.delete(table).where(table.c.workflow_uuid == job.id))
        self.enqueue(session, job)
        return True

    def close(self) -> None:
        self._client.destroy()


def migrate_queue_tables(database: Database) -> None:
    role = SYSTEM_ROLE if database.is_postgresql else None
    DBOS.migrate(system_database_url=database.url, application_role=role)


class DurableWorker:
    """Runs jobs until closed. One a process: DBOS keeps its registry in its module."""

    def __init__(
        self,
        database: Database,
        pipeline: Pipeline,
        context_of_job: ContextOfJob,
        *,
        places: Places,
        fair: bool = True,
        executor_id: str,
    ) -> None:
        """`places`: for jobs in flight. `fair`: tenants share them; otherwise whoever came first is first.

        `executor_id`: the same after a restart; that is how a killed worker's jobs are found again.
        """
        self._database, self._executor_id, self._fair = database, executor_id, fair
        self._engine = database.queue_engine()
        self._places = {DOCUMENTS: places, FETCHES: replace(places, count=FETCHES_AT_ONCE)}
        DBOS(
            config=DBOSConfig(
                name=APPLICATION,
                system_database_url=database.url,
                system_database_engine=self._engine,
                application_version=APPLICATION_VERSION,
                executor_id=executor_id,
                serializer=JsonSerializer(),
                use_listen_notify=False,
                log_level="WARNING",
            )
        )
        steps = Steps.of(pipeline, context_of_job, pause=time.sleep)

        @DBOS.workflow(name=WORKFLOW, max_recovery_attempts=MAX_RECOVERIES)
        def process_document(tenant_id: str, job_id: str) -> str:
            return process(steps, tenant_id, job_id)

    def start(self) -> None:
        DBOS.launch()
        instance = _get_dbos_instance()
        poll_cheaply(instance._sys_db)
        if self._fair:
            name_tenants(self._database, instance._sys_db)
            take_in_turns(instance._sys_db, instance._active_workflows_set, self._places)
        for queue, poll_s in ((DOCUMENTS, POLL_S), (FETCHES, FETCH_POLL_S)):
            places = self._places[queue]
            most = places.most if self._fair else places.count
            DBOS.register_queue(queue, worker_concurrency=most, polling_interval_sec=poll_s)

    def close(self) -> None:
        """Stop taking jobs, give running steps a moment; what is unfinished goes on at the next start."""
        DBOS.destroy(workflow_completion_timeout_sec=STOP_S)
        self._engine.dispose()  # it was not made by the library, which leaves its connections open

    def owners(self) -> set[str]:
        """The executors that have jobs under way, dead ones included."""
        found = DBOS.list_workflows(status=["PENDING"], limit=OWNERS_LIMIT, load_input=False, load_output=False)
        return {workflow.executor_id for workflow in found if workflow.executor_id is not None}

    def take_over(self, executors: Sequence[str]) -> int:
        """Put the jobs that these dead executors have under way back into the queue; return how many.

        One statement a job, on condition that it still is theirs: two who do this at once enqueue it once, and a job that
        somebody else runs by now stays with them. A dead one that lives after all finds its steps fenced.
        """
        others = [executor for executor in executors if executor != self._executor_id]
        return len(DBOS._recover_pending_workflows(others)) if others else 0

    def purge_finished(self) -> None:
        """Forget workflows that ended a day ago: the job's own row keeps what users ask for."""
        before = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - KEEP_FINISHED_S))
        ended = [""] * PURGE_LIMIT
        while len(ended) == PURGE_LIMIT:
            found = DBOS.list_workflows(
                status=["SUCCESS", "ERROR", "CANCELLED"], completed_before=before, limit=PURGE_LIMIT, load_input=False
            )
            ended = [workflow.workflow_id for workflow in found]
            DBOS.delete_workflows(ended)
