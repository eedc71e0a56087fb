"""A job's row from its making to its end: its place in the queue, its events, and the jobs that wait for it.

A job that is to run after others is `held`: it is in no queue, and takes no worker's place, until the transaction that ends
the last of them puts it there. It is a graph without cycles by construction: only jobs that exist can be named.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import sqlalchemy as sa
from sqlalchemy.orm import Session
from sqlmodel import col, select

from config.clock import Clock
from config.errors import InvalidInput
from config.ids import new_id
from config.profiles import PRIORITIES
from ingestion.jobs.tables import ALL_SUCCEEDED, DOCUMENTS, FETCHES, Job, JobDependency
from rag.corpus import Document, DocumentVersion
from tenants.events import emit

OPEN = ("queued", "running")
MAX_AFTER = 20  # jobs that one waits for
MAX_WAITING = 1_000  # jobs that wait for one: all are put into the queue by the transaction that ends it
_NO_SYNC = {"synchronize_session": False}
#: Made once, since every job asks when it ends: nearly always there is nobody.
_WAITING = (
    select(Job)
    .join(JobDependency, col(JobDependency.job_id) == col(Job.id))
    .where(col(JobDependency.needs_id) == sa.bindparam("ended"), col(Job.held).is_(True))
    .order_by(col(Job.id))
    .with_for_update(of=Job)
    .execution_options(populate_existing=True)
)


class JobQueue(Protocol):
    """Where jobs wait for a worker, durably and in the transaction of the session."""

    def require_room(self, session: Session, tenant_id: str) -> None:
        """Raise QueueFull, Overloaded or StorageFull if no new document is taken in."""

    def enqueue(self, session: Session, job: Job) -> None: ...

    def unfinished(self, job_ids: Sequence[str]) -> set[str]:
        """Those of the jobs that wait in the queue or are being run."""

    def requeue(self, session: Session, job: Job) -> bool:
        """Enqueue a job again whose row the session holds; False, and nothing done, if it is in the queue already."""


@dataclass(frozen=True, slots=True)
class After:
    """Jobs that are to end before another begins, and what must have become of them."""

    ids: tuple[str, ...] = ()
    policy: str = ALL_SUCCEEDED


AT_ONCE = After()


def add_job(
    session: Session,
    clock: Clock,
    queue: JobQueue,
    kind: str,
    document: Document,
    version: DocumentVersion | None,
    *,
    retry_of: str | None = None,
    priority: int = PRIORITIES["normal"],
    after: After = AT_ONCE,
    key: str = "",
    epoch: int = 0,
) -> Job:
    """Row, queue entry and event of a new job, in the session's transaction. Raise as `JobQueue.require_room` does.

    `epoch`: for a version that had a job before, that of `last_epoch`.
    """
    if kind == "ingest":
        queue.require_room(session, document.tenant_id)
    now = clock()
    job = Job(
        id=new_id("job"),
        tenant_id=document.tenant_id,
        kind=kind,
        collection_id=document.collection_id,
        document_id=document.id,
        version_id=None if version is None else version.id,
        retry_of=retry_of,
        priority=priority,
        epoch=epoch,
        queue=FETCHES if version is not None and version.url is not None else DOCUMENTS,
        key=key,
        after=list(after.ids),
        after_policy=after.policy,
        held=bool(_open(session, after.ids)),
        created_at=now,
        updated_at=now,
    )
    session.add(job)
    session.flush()
    if job.held:
        _wait(session, job)
    else:
        queue.enqueue(session, job)
    emit_job(session, clock, "queued", job)
    return job


def last_epoch(session: Session, version: DocumentVersion) -> int:
    """Of the version's jobs: what they reserved is fenced by it, and the next one must be able to go on with that."""
    return session.scalar(select(sa.func.max(col(Job.epoch))).where(col(Job.version_id) == version.id)) or 0


def _open(session: Session, ids: Sequence[str]) -> Sequence[str]:
    """Those that have not ended, held until the transaction ends: what ends then finds the row that waits for it."""
    if not ids:
        return []
    unfinished = select(col(Job.id)).where(col(Job.id).in_(ids), col(Job.state).in_(OPEN))
    return session.scalars(unfinished.order_by(col(Job.id)).with_for_update(read=True)).all()


def _wait(session: Session, job: Job) -> None:
    session.add_all(JobDependency(tenant_id=job.tenant_id, job_id=job.id, needs_id=needed) for needed in job.after)
    session.flush()
    crowd = (
        select(col(JobDependency.needs_id))
        .where(col(JobDependency.needs_id).in_(job.after))
        .group_by(col(JobDependency.needs_id))
        .having(sa.func.count() > MAX_WAITING)
    )
    if session.scalars(crowd).first() is not None:
        raise InvalidInput(f"At most {MAX_WAITING} jobs can wait for one.", field="after", limit=MAX_WAITING)


def release_waiting(session: Session, queue: JobQueue, ended: Job) -> None:
    """In the transaction that ends a job: enqueue those that waited for it and for no other any more.

    Their rows are held first: of two that end at once, the later one then sees the other's end.
    """
    session.flush()
    for job in session.scalars(_WAITING, {"ended": ended.id}):
        release(session, queue, job)


def release(session: Session, queue: JobQueue, job: Job) -> bool:
    """Enqueue a held job, whose row the session holds, if nothing that it waits for is open; return whether it was."""
    if waits_for(session, job):
        return False
    let_go(session, job)
    queue.enqueue(session, job)
    return True


def waits_for(session: Session, job: Job) -> bool:
    needed = select(col(JobDependency.needs_id)).where(col(JobDependency.job_id) == job.id)
    still = select(col(Job.id)).where(col(Job.id).in_(needed), col(Job.state).in_(OPEN))
    return session.scalars(still.limit(1)).first() is not None


def let_go(session: Session, job: Job) -> None:
    """The job waits for no other any more."""
    job.held = False
    session.add(job)
    session.execute(sa.delete(JobDependency).where(col(JobDependency.job_id) == job.id), execution_options=_NO_SYNC)


def unmet(session: Session, job: Job) -> str | None:
    """The first of the jobs before this one that did not succeed, where that matters; all of them have ended."""
    if not job.after or job.after_policy != ALL_SUCCEEDED:
        return None
    lost = select(col(Job.id)).where(col(Job.id).in_(job.after), col(Job.state) != "succeeded")
    return session.scalars(lost.order_by(col(Job.id)).limit(1)).first()


def elements_of(session: Session, texts: Any) -> sa.TableValuedAlias:
    """A row for each text in a column that is a list of them; its only column is `value`."""
    elements = sa.func.json_each if session.get_bind().dialect.name == "sqlite" else sa.func.json_array_elements_text
    return elements(texts).table_valued("value", joins_implicitly=True)


def emit_job(session: Session, clock: Clock, verb: str, job: Job, **more: object) -> None:
    """An event of type job.`verb`."""
    data = {"kind": job.kind, "collection_id": job.collection_id, "document_id": job.document_id, "version_id": job.version_id}
    emit(session, clock, job.tenant_id, f"job.{verb}", job.id, **data, retry_of=job.retry_of, **more)


def emit_document(session: Session, clock: Clock, verb: str, job: Job, **more: object) -> None:
    """An event of type document.`verb`, about the document that the job works on."""
    data = {"collection_id": job.collection_id, "version_id": job.version_id, "job_id": job.id}
    emit(session, clock, job.tenant_id, f"document.{verb}", job.document_id, **data, **more)
