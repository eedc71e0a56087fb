"""The order of a job's steps, whatever runs them: the durable queue, or a queue in memory for tests."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import event
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

from config.errors import CarrelError, DependencyFailed, LeaseLost, SiteUnavailable, Unavailable
from config.logs import job_id as log_job_id
from ingestion.intake.admission import Admission
from ingestion.jobs.leases import Lease
from ingestion.jobs.tables import Job
from ingestion.pipeline.pipeline import Pipeline
from tenants.context import TenantContext

log = logging.getLogger(__name__)

MAX_TRIES, MAX_PAUSE_S = 40, 30.0  # of a step that meets something unavailable: about 20 minutes in all
MAX_SITE_TRIES, MAX_SITE_PAUSE_S = 3, 60.0  # after the first, of a site that says it is busy or does not answer

#: What passes by itself: locked, restarting, full.
PASSING = (OperationalError, IntegrityError, PoolTimeout, OSError)
#: How a step ended: None or its result, or an error's code, detail and whether to try again.
Outcome = dict[str, Any]
Step = Callable[..., Outcome | None]
ContextOfJob = Callable[[str, str], TenantContext]


@dataclass(frozen=True, slots=True)
class Steps:
    """Each takes a lease first and may be run again: whoever goes on with a job takes it up anew and begins with the first.

    `pause` sleeps (seconds).
    """

    take_up: Callable[[str, str], Lease | None]
    fetch: Step
    read: Step
    embed_batch: Step
    complete: Step
    collect: Step
    fail: Step
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
        """The pipeline's steps, guarded. `wrap` stands around each, under its name."""

        def guarded(name: str, work: Callable[..., Outcome | None]) -> Step:
            return wrap(name, _guarded(work))

        return cls(
            take_up=lambda tenant_id, job_id: pipeline.take_up(context_of_job(tenant_id, job_id), job_id),
            fetch=guarded("fetch", pipeline.fetch),
            read=guarded("read", lambda lease: {"batches": pipeline.read(lease)}),
            embed_batch=guarded("embed_batch", pipeline.embed_batch),
            complete=guarded("complete", lambda lease, batch: _completed(pipeline.complete(lease, batch))),
            collect=guarded("collect", pipeline.collect),
            fail=guarded("fail", pipeline.fail),
            pause=pause,
        )


def _completed(leftovers: bool | None) -> Outcome:
    return {"again": True} if leftovers is None else {"leftovers": leftovers}


def _guarded(work: Callable[..., Outcome | None]) -> Step:
    def step(lease: Lease, *args: Any) -> Outcome | None:
        try:
            return work(lease, *args)
        except Unavailable as error:
            log.warning("a step waits", extra={"reason": error.detail})
            outcome = {"code": error.code, "detail": error.detail, "retry": True}
            return outcome | _bounds(error) if isinstance(error, SiteUnavailable) else outcome
        except CarrelError as error:
            return {"code": error.code, "detail": error.detail, "retry": False}
        except FileNotFoundError:
            log.exception("a stored content is missing")
            detail = "The stored content is missing; bring the document again."
            return {"code": CarrelError.code, "detail": detail, "retry": False}
        except PASSING as error:
            log.warning("a step waits", extra={"reason": repr(error)})
            return {"code": Unavailable.code, "detail": "Database or disk did not answer.", "retry": True}
        except Exception:
            log.exception("a step failed")
            detail = "The job failed inside the service; its log has the reason."
            return {"code": CarrelError.code, "detail": detail, "retry": False}

    return step


def _bounds(error: SiteUnavailable) -> Outcome:
    """A site is none of ours: it is asked a few times, when it likes, and may not keep a worker busy."""
    return {"tries": MAX_SITE_TRIES, "after_s": min(error.retry_after_s or 0.0, MAX_SITE_PAUSE_S)}


def process(steps: Steps, tenant_id: str, job_id: str) -> str:
    """Run a job to its end; return "succeeded" or the code of its failure. Raise LeaseLost if another worker took it up."""
    token = log_job_id.set(job_id)
    try:
        lease = _take_up(steps, tenant_id, job_id)
        return "succeeded" if lease is None else _run(steps, lease)
    except LeaseLost:
        log.warning("another worker took the job up")
        raise  # past the queue's own handlers: an outcome recorded here would be taken for the new owner's
    finally:
        log_job_id.reset(token)


def _take_up(steps: Steps, tenant_id: str, job_id: str) -> Lease | None:
    for attempt in range(MAX_TRIES):
        try:
            return steps.take_up(tenant_id, job_id)
        except PASSING as error:
            log.warning("a job waits to be taken up", extra={"reason": repr(error)})
            steps.pause(min(0.2 * 2**attempt, MAX_PAUSE_S))
    return steps.take_up(tenant_id, job_id)


def _run(steps: Steps, lease: Lease) -> str:
    if lease.unmet is not None:
        detail = f"Job {lease.unmet} did not succeed, and this one was to run after it."
        outcome: Outcome = {"code": DependencyFailed.code, "detail": detail}
    elif lease.kind == "delete":
        _however_long(steps, steps.collect, lease)
        return "succeeded"
    else:
        outcome = _ingest(steps, lease)
    if failed := "code" in outcome:
        # Before collecting: a failed version must be marked dead, or its points would be kept for it.
        _however_long(steps, steps.fail, lease, outcome["code"], outcome["detail"])
    if failed or outcome.get("leftovers"):
        _however_long(steps, steps.collect, lease)
    return str(outcome.get("code", "succeeded"))


def _ingest(steps: Steps, lease: Lease) -> Outcome:
    if lease.fetches and (failure := _until_available(steps, steps.fetch, lease)):
        return failure
    while True:
        outcome = _embedded(steps, lease)
        if not outcome.get("again"):
            return outcome


def _embedded(steps: Steps, lease: Lease) -> Outcome:
    outcome = _until_available(steps, steps.read, lease)
    if outcome is None or "batches" not in outcome:
        return outcome or {}
    last = outcome["batches"] - 1
    for batch in range(last):
        if failure := _until_available(steps, steps.embed_batch, lease, batch):
            return failure
    return _until_available(steps, steps.complete, lease, last) or {}


def _until_available(steps: Steps, step: Step, *args: Any) -> Outcome | None:
    outcome = step(*args)
    for attempt in range(MAX_TRIES):
        if outcome is None or not outcome.get("retry") or attempt >= outcome.get("tries", MAX_TRIES):
            break
        steps.pause(max(min(0.2 * 2**attempt, MAX_PAUSE_S), outcome.get("after_s", 0.0)))
        outcome = step(*args)
    return outcome


def _however_long(steps: Steps, step: Step, *args: Any) -> None:
    """For what must be done in the end: a job's result is recorded and its remains are removed, when that is possible."""
    while (outcome := _until_available(steps, step, *args)) is not None and "code" in outcome:
        log.error("a step that must succeed did not; it is tried again", extra={"reason": outcome["detail"]})
        steps.pause(MAX_PAUSE_S)


class MemoryQueue:
    """Jobs in this process's memory: for tests, which decide what runs when. Not durable."""

    def __init__(self) -> None:
        self.waiting: deque[tuple[str, str]] = deque()  #: tenant id, job id
        self.running: set[str] = set()  #: job ids, kept by whoever takes jobs out
        self.admission: Admission | None = None

    def require_room(self, _session: Session, tenant_id: str) -> None:
        if self.admission is not None:
            self.admission.require(tenant_id, self._count)

    def _count(self, tenant_id: str | None, most: int) -> int:
        return min(most, sum(tenant_id in (None, owner) for owner, _ in [*self.waiting]))

    def enqueue(self, session: Session, job: Job) -> None:
        """It is held from now on, and can be taken once its row is on record."""
        tenant_id, job_id = job.tenant_id, job.id
        self.running.add(job_id)
        if self.admission is not None:
            self.admission.taken(tenant_id)

        def committed(_session: Session) -> None:
            self.waiting.append((tenant_id, job_id))
            self.running.discard(job_id)

        event.listen(session, "after_commit", committed, once=True)
        event.listen(session, "after_rollback", lambda _session: self.running.discard(job_id), once=True)

    def unfinished(self, job_ids: Sequence[str]) -> set[str]:
        held = {job_id for _, job_id in [*self.waiting]} | self.running
        return held.intersection(job_ids)

    def requeue(self, session: Session, job: Job) -> bool:
        if self.unfinished([job.id]):
            return False
        self.enqueue(session, job)
        return True
