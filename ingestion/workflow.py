"""The order of a job's steps, whatever runs them: the durable queue, or a queue in memory for tests."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

from config.errors import CarrelError, Unavailable
from config.logs import job_id as current_job
from ingestion.pipeline import Pipeline
from ingestion.tables import Job
from tenants.context import TenantContext

log = logging.getLogger(__name__)

MAX_TRIES, MAX_PAUSE_S = 40, 30.0  # of a step that meets something unavailable: about 20 minutes in all

#: How a step ended: None or its result, or an error's code, detail and whether to try again. Plain data, because a durable
#: queue keeps it, and could keep an exception only by pickling it.
Outcome = dict[str, Any]
Step = Callable[..., Outcome | None]
_NO_FAILURE: Outcome = {"code": None, "detail": None}
ContextOfJob = Callable[[str, str], TenantContext]


@dataclass(frozen=True, slots=True)
class Steps:
    """Each takes tenant id and job id first. `pause` sleeps for a number of seconds."""

    read: Step
    embed_batch: Step
    switch: Step
    collect: Step
    finish: Step
    pause: Callable[[float], None]

    @classmethod
    def of(
        cls,
        pipeline: Pipeline,
        context_of_job: ContextOfJob,
        *,
        pause: Callable[[float], None],
        wrap: Callable[[str, Step], Step] = lambda _name, step: step,
    ) -> Steps:
        """The pipeline's steps, guarded. `wrap` makes each durable under its name."""

        def read(context: TenantContext, job_id: str) -> Outcome:
            return {"batches": pipeline.read(context, job_id)}

        def guarded(name: str, work: Callable[..., Outcome | None]) -> Step:
            return wrap(name, _guarded(context_of_job, work))

        return cls(
            read=guarded("read", read),
            embed_batch=guarded("embed_batch", pipeline.embed_batch),
            switch=guarded("switch", pipeline.switch),
            collect=guarded("collect", pipeline.collect),
            finish=guarded("finish", pipeline.finish),
            pause=pause,
        )


def _guarded(context_of_job: ContextOfJob, work: Callable[..., Outcome | None]) -> Step:
    def step(tenant_id: str, job_id: str, *args: Any) -> Outcome | None:
        in_log = current_job.set(job_id)
        try:
            return work(context_of_job(tenant_id, job_id), job_id, *args)
        except Unavailable as error:
            log.warning("a step waits", extra={"reason": error.detail})
            return {"code": error.code, "detail": error.detail, "retry": True}
        except CarrelError as error:
            return {"code": error.code, "detail": error.detail, "retry": False}
        except FileNotFoundError:
            log.exception("a stored content is missing")
            detail = "The stored content is missing; bring the document again."
            return {"code": CarrelError.code, "detail": detail, "retry": False}
        except (OperationalError, IntegrityError, PoolTimeout, OSError) as error:  # locked, restarting, full: these pass
            log.warning("a step waits", extra={"reason": repr(error)})
            return {"code": Unavailable.code, "detail": "Database or disk did not answer.", "retry": True}
        except Exception:
            log.exception("a step failed")
            detail = "The job failed inside the service; its log has the reason."
            return {"code": CarrelError.code, "detail": detail, "retry": False}
        finally:
            current_job.reset(in_log)

    return step


def process(steps: Steps, tenant_id: str, job_id: str, kind: str) -> str:
    """Run a job to its end; return "succeeded" or the code of its failure."""
    if kind == "ingest":
        # Finished first: a failed version must be marked dead before collecting, or its points would be kept for it;
        # and one that is live has succeeded, whatever becomes of its predecessor's remains.
        failure = _ingest(steps, tenant_id, job_id) or _NO_FAILURE
        _however_long(steps, steps.finish, tenant_id, job_id, failure["code"], failure["detail"])
        _however_long(steps, steps.collect, tenant_id, job_id)
    else:
        failure = _however_long(steps, steps.collect, tenant_id, job_id) or _NO_FAILURE
        _however_long(steps, steps.finish, tenant_id, job_id, failure["code"], failure["detail"])
    return str(failure["code"] or "succeeded")


def _ingest(steps: Steps, tenant_id: str, job_id: str) -> Outcome | None:
    outcome = _until_available(steps, steps.read, tenant_id, job_id)
    if outcome is None or "batches" not in outcome:
        return outcome
    for batch in range(outcome["batches"]):
        if failure := _until_available(steps, steps.embed_batch, tenant_id, job_id, batch):
            return failure
    return _until_available(steps, steps.switch, tenant_id, job_id)


def _until_available(steps: Steps, step: Step, *args: Any) -> Outcome | None:
    outcome = step(*args)
    for attempt in range(MAX_TRIES):
        if outcome is None or not outcome.get("retry"):
            break
        steps.pause(min(0.2 * 2**attempt, MAX_PAUSE_S))
        outcome = step(*args)
    return outcome


def _however_long(steps: Steps, step: Step, *args: Any) -> Outcome | None:
    """For what must be done in the end: a job's result is recorded and its remains are removed, when that is possible."""
    while (outcome := _until_available(steps, step, *args)) is not None and outcome.get("retry"):
        steps.pause(MAX_PAUSE_S)
    return outcome


class MemoryQueue:
    """Jobs in this process's memory: for tests, which decide what runs when. Not durable."""

    def __init__(self) -> None:
        self.waiting: deque[tuple[str, str, str]] = deque()  #: tenant id, job id, kind
        self.running: set[str] = set()  #: job ids, kept by whoever takes jobs out

    def enqueue(self, session: Session, job: Job) -> None:
        self.waiting.append((job.tenant_id, job.id, job.kind))

    def unfinished(self, job_ids: Sequence[str]) -> set[str]:
        held = {job_id for _, job_id, _ in [*self.waiting]} | self.running
        return held.intersection(job_ids)

    def requeue(self, session: Session, job: Job) -> bool:
        if self.unfinished([job.id]):
            return False
        self.enqueue(session, job)
        return True
