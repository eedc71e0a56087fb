"""Jobs that survive their worker: DBOS, on the same database as everything else. The only file that imports it.

Settings that are not its defaults, each for a reason that was met: a fixed application version (its own hash of the code
would strand running jobs after any edit), JSON instead of pickle, WAL on the shared SQLite file, a short polling interval,
and a recovery limit that process deaths do not reach (parser deaths are counted per document, in `pipeline`).
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from typing import Any

from dbos import DBOS, DBOSClient, DBOSConfig, EnqueueOptions
from dbos._serialization import Serializer
from sqlalchemy.orm import Session

from config.database import Database
from config.errors import CarrelError, Unavailable
from ingestion.pipeline import Pipeline
from ingestion.tables import Job
from tenants.context import TenantContext

log = logging.getLogger(__name__)

APPLICATION, APPLICATION_VERSION = "carrel", "1"
QUEUE, WORKFLOW = "documents", "process_document"
POLL_S = 0.05  # a job is picked up within 36/62 ms (p50/p99)
MAX_RECOVERIES = 1_000_000
MAX_TRIES, MAX_PAUSE_S = 40, 30.0  # of a step that meets something unavailable: about 20 minutes in all
KEEP_FINISHED_MS = 24 * 3600 * 1000

#: How a step ended: None, or an error's code, detail and whether to try again.
Outcome = dict[str, Any]


class JsonSerializer(Serializer):
    def serialize(self, data: Any) -> str:
        return json.dumps(data, default=repr)

    def deserialize(self, serialized_data: str) -> Any:
        return json.loads(serialized_data)

    def name(self) -> str:
        return "carrel_json"


class DurableQueue:
    """The requests' side: a job is enqueued in the transaction that writes its row."""

    def __init__(self, database: Database) -> None:
        self._client = DBOSClient(system_database_engine=database.engine, serializer=JsonSerializer(), lazy=True)

    def enqueue(self, session: Session, job: Job) -> None:
        options = EnqueueOptions(queue_name=QUEUE, workflow_name=WORKFLOW, workflow_id=job.id, app_version=APPLICATION_VERSION)
        self._client.enqueue_in_transaction(session.connection(), options, job.tenant_id, job.id, job.kind)

    def close(self) -> None:
        self._client.destroy()


def migrate_queue_tables(database: Database) -> None:
    DBOS.migrate(system_database_url=database.url)


class DurableWorker:
    """Runs jobs until closed. One a process: DBOS keeps its registry in the module."""

    def __init__(
        self,
        database: Database,
        pipeline: Pipeline,
        context_of_job: Callable[[str, str], TenantContext],
        *,
        concurrency: int,
        executor_id: str,
    ) -> None:
        self._pipeline, self._context_of_job = pipeline, context_of_job
        self._concurrency = concurrency
        config = DBOSConfig(
            name=APPLICATION,
            system_database_url=database.url,
            application_version=APPLICATION_VERSION,
            executor_id=executor_id,  # the same after a restart: that is how a killed worker's jobs are found again
            serializer=JsonSerializer(),
            use_listen_notify=False,
            log_level="WARNING",
        )
        self._dbos = DBOS(config=config)
        # DBOS marks what it decorates, and a bound method cannot be marked: each is wrapped in a function.
        self._read, self._embed, self._switch, self._collect, self._finish = (
            DBOS.step(name=method.__name__.removeprefix("_do_"))(_function(method))
            for method in (self._do_read, self._do_embed, self._do_switch, self._do_collect, self._do_finish)
        )
        DBOS.workflow(name=WORKFLOW, max_recovery_attempts=MAX_RECOVERIES)(_function(self._process))

    def start(self) -> None:
        DBOS.launch()
        DBOS.register_queue(QUEUE, worker_concurrency=self._concurrency, polling_interval_sec=POLL_S)

    def close(self) -> None:
        """Stop taking jobs, give running steps a moment; what is unfinished goes on at the next start."""
        DBOS.destroy(workflow_completion_timeout_sec=5)

    def purge_finished(self) -> None:
        """Forget workflows that ended a day ago: the job's own row keeps what users ask for."""
        before = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - KEEP_FINISHED_MS / 1000))
        ended = DBOS.list_workflows(
            status=["SUCCESS", "ERROR", "CANCELLED"], completed_before=before, limit=1_000, load_input=False
        )
        DBOS.delete_workflows([workflow.workflow_id for workflow in ended])

    def _process(self, tenant_id: str, job_id: str, kind: str) -> str:
        failure = self._ingest(tenant_id, job_id) if kind == "ingest" else None
        code, detail = (failure["code"], failure["detail"]) if failure else (None, None)
        if failure:
            # The version must be dead before collecting, or its points would be kept for it.
            self._until_done(self._finish, tenant_id, job_id, code, detail)
        uncollected = self._until_done(self._collect, tenant_id, job_id)
        if uncollected and not failure:
            code, detail = uncollected["code"], uncollected["detail"]
        if not failure:
            self._until_done(self._finish, tenant_id, job_id, code, detail)
        return str(code or "succeeded")

    def _ingest(self, tenant_id: str, job_id: str) -> Outcome | None:
        outcome = self._until_done(self._read, tenant_id, job_id)
        if outcome is None or "batches" not in outcome:
            return outcome
        for batch in range(outcome["batches"]):
            if failure := self._until_done(self._embed, tenant_id, job_id, batch):
                return failure
        return self._until_done(self._switch, tenant_id, job_id)

    def _until_done(self, step: Callable[..., Outcome | None], *args: Any) -> Outcome | None:
        """Run a step; while what it needs is unavailable, sleep durably and run it again."""
        outcome = step(*args)
        for attempt in range(MAX_TRIES):
            if outcome is None or not outcome.get("retry"):
                break
            DBOS.sleep(min(0.2 * 2**attempt, MAX_PAUSE_S))
            outcome = step(*args)
        return outcome

    def _do_read(self, tenant_id: str, job_id: str) -> Outcome | None:
        def work(context: TenantContext) -> Outcome:
            return {"batches": self._pipeline.read(context, job_id)}

        return self._guarded(tenant_id, job_id, work)

    def _do_embed(self, tenant_id: str, job_id: str, batch: int) -> Outcome | None:
        return self._guarded(tenant_id, job_id, lambda context: self._pipeline.embed_batch(context, job_id, batch))

    def _do_switch(self, tenant_id: str, job_id: str) -> Outcome | None:
        return self._guarded(tenant_id, job_id, lambda context: self._pipeline.switch(context, job_id))

    def _do_collect(self, tenant_id: str, job_id: str) -> Outcome | None:
        return self._guarded(tenant_id, job_id, lambda context: self._pipeline.collect(context, job_id))

    def _do_finish(self, tenant_id: str, job_id: str, code: str | None, detail: str | None) -> Outcome | None:
        return self._guarded(tenant_id, job_id, lambda context: self._pipeline.finish(context, job_id, code, detail))

    def _guarded(self, tenant_id: str, job_id: str, work: Callable[[TenantContext], Outcome | None]) -> Outcome | None:
        """Errors leave a step as plain data: the queue would have to pickle exceptions to keep them."""
        try:
            return work(self._context_of_job(tenant_id, job_id))
        except Unavailable as error:
            log.warning("a step waits", extra={"job": job_id, "reason": error.detail})
            return {"code": error.code, "detail": error.detail, "retry": True}
        except CarrelError as error:
            return {"code": error.code, "detail": error.detail, "retry": False}
        except Exception:
            log.exception("a step failed", extra={"job": job_id})
            return {
                "code": "internal_error",
                "detail": "The job failed inside the service; its log has the reason.",
                "retry": False,
            }


def _function(method: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any) -> Any:
        return method(*args)

    call.__name__ = call.__qualname__ = method.__name__
    return call
