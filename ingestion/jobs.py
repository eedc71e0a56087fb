"""Jobs as their tenant sees them: shown, listed, cancelled and retried. What a job does is `pipeline`'s.

How a job ends is decided once, in a transaction that holds its document, its row and its version. So a version whose
cancellation was acknowledged never becomes live, and one that became live first is not cancelled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import sqlalchemy as sa
from sqlalchemy.orm import Session
from sqlmodel import col, select
from sqlmodel.sql.expression import SelectOfScalar

from config.clock import Clock
from config.database import Database
from config.errors import InvalidInput, NotFound, Unavailable
from config.ids import new_id
from config.profiles import PRIORITIES
from ingestion.tables import DOCUMENTS, FETCHES, Job
from rag.corpus import Collection, Document, DocumentVersion
from tenants.context import TenantContext
from tenants.events import emit

OPEN = ("queued", "running")


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
class Jobs:
    database: Database
    clock: Clock
    queue: JobQueue

    def for_tenant(self, context: TenantContext) -> TenantJobs:
        return TenantJobs(self, context)


class TenantJobs:
    def __init__(self, parts: Jobs, context: TenantContext) -> None:
        self._parts, self._context = parts, context

    def get(self, job_id: str) -> Job:
        with self._parts.database.read(self._context) as session:
            return self._seen(session, job_id)

    def row(self, job_id: str) -> Job | None:
        """The job whatever the key's bounds are: for polling on behalf of readers of whom each was checked with `get`."""
        with self._parts.database.read(self._context) as session:
            return session.get(Job, job_id)

    def list(
        self, *, collection: str | None = None, state: str | None = None, after: str | None = None, limit: int
    ) -> tuple[list[Job], str | None]:
        """Up to `limit` jobs, newest first, and where to go on. Jobs that the key must not see leave no gap."""
        with self._parts.database.read(self._context) as session:
            statement = self._visible(session).order_by(col(Job.id).desc()).limit(limit + 1)
            if collection is not None:
                statement = statement.where(col(Job.collection_id) == self._collection_id(session, collection))
            if state is not None:
                statement = statement.where(col(Job.state) == state)
            if after is not None:
                statement = statement.where(col(Job.id) < after)
            rows = [*session.scalars(statement)]
        return rows[:limit], rows[limit - 1].id if len(rows) > limit else None

    def cancel(self, job_id: str) -> Job:
        """End an ingest job that has not ended; of one that has, nothing changes. Either way the job as it is then."""
        with self._parts.database.write(self._context) as session:
            job, _, version = self._locked(session, job_id)
            if job.kind != "ingest":
                raise InvalidInput("A delete cannot be cancelled: the document is gone from every answer already.")
            if job.state in OPEN and version is not None and version.state == "queued":
                version.state = job.state = "cancelled"
                version.ended_at = job.updated_at = self._parts.clock()
                job.stage = "collecting"  # a worker removes what was staged, and then says when it was done
                emit_job(session, self._parts.clock, "cancelled", job)
                emit_document(session, self._parts.clock, "cancelled", job, version=version.number)
        return job

    def retry(self, job_id: str) -> Job:
        """Another job for what a failed or cancelled one did not bring live. Asked again, the same other job."""
        with self._parts.database.write(self._context) as session:
            job, document, version = self._locked(session, job_id)
            again = select(Job).where(col(Job.document_id) == job.document_id, col(Job.retry_of) == job.id)
            if other := session.scalars(again).first():
                return other
            document, version = _retriable(job, document, version)
            version.state, version.ended_at = "queued", None
            version.parser_deaths = version.read_starts = 0
            session.add(version)
            parts = self._parts
            return add_job(
                session, parts.clock, parts.queue, "ingest", document, version, retry_of=job.id, priority=job.priority
            )

    def _locked(self, session: Session, job_id: str) -> tuple[Job, Document | None, DocumentVersion | None]:
        """The document first, as everybody locks them, then the job and its version, each as it is now."""
        job = self._seen(session, job_id)
        document = session.get(Document, job.document_id, **_LOCKED)
        job = session.get_one(Job, job_id, **_LOCKED)
        return job, document, session.get(DocumentVersion, job.version_id or "", **_LOCKED)

    def _seen(self, session: Session, job_id: str) -> Job:
        job = session.scalars(self._visible(session).where(col(Job.id) == job_id)).first()
        if job is None:
            raise NotFound("There is no such job.")
        return job

    def _visible(self, session: Session) -> SelectOfScalar[Job]:
        """Jobs in the key's collections, on documents whose live and newest version have no label that the key lacks."""
        statement = select(Job).join(Collection, col(Collection.id) == col(Job.collection_id))
        if self._context.collections is not None:
            statement = statement.where(col(Collection.name).in_(self._context.collections))
        if self._context.labels is None:
            return statement
        # Of a purged document only the job is left, and nobody can say any more who was to see it.
        exists = sa.exists().where(col(Document.id) == col(Job.document_id))
        return statement.where(exists, ~_beyond(session, sorted(self._context.labels)))

    def _collection_id(self, session: Session, name: str) -> str:
        bounds = self._context.collections
        found = session.scalar(select(col(Collection.id)).where(col(Collection.name) == name))
        if found is None or (bounds is not None and name not in bounds):
            raise NotFound(f"There is no collection {name!r}.", field="collection")
        return str(found)


_LOCKED: dict[str, Any] = {"with_for_update": True, "populate_existing": True}


def _beyond(session: Session, labels: Sequence[str]) -> sa.ColumnElement[bool]:
    """Whether the live or the newest version of the job's document has a label other than these."""
    elements = sa.func.json_each if session.get_bind().dialect.name == "sqlite" else sa.func.json_array_elements_text
    label = elements(col(DocumentVersion.labels)).table_valued("value", joins_implicitly=True)
    return (
        select(sa.literal(1))
        .select_from(Document, DocumentVersion, label)
        .where(
            col(Document.id) == col(Job.document_id),
            col(DocumentVersion.document_id) == col(Document.id),
            col(DocumentVersion.number).in_((col(Document.live_number), col(Document.last_number))),
            label.c.value.not_in(labels),
        )
        .correlate(Job)
        .exists()
    )


def _retriable(job: Job, document: Document | None, version: DocumentVersion | None) -> tuple[Document, DocumentVersion]:
    """What the new job is to work on; or raise, saying why there can be none."""
    if job.kind != "ingest":
        raise InvalidInput("A delete needs no retry: it is tried until it succeeds.")
    if job.state not in ("failed", "cancelled"):
        raise InvalidInput(f"Only a failed or cancelled job can be retried; this one is {job.state}.")
    if document is None or version is None or document.deleted_at is not None:
        raise InvalidInput("The document was deleted; bring it again.")
    if version.number != document.last_number:
        raise InvalidInput("A newer version of the document was brought since; this one is not needed any more.")
    if version.content_blob == "" and version.url is None:
        raise InvalidInput("The content is not kept any more; bring the document again.")
    if job.stage != "done":  # its worker may still be at a step, and must not take the new job's version for its own
        raise Unavailable("What the job left is still being removed; it can be retried after that.", retry_after_s=1)
    return document, version


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
) -> Job:
    """Row, queue entry and event of a new job, in the session's transaction. Raise as `JobQueue.require_room` does."""
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
        queue=FETCHES if version is not None and version.url is not None else DOCUMENTS,
        created_at=now,
        updated_at=now,
    )
    session.add(job)
    session.flush()
    queue.enqueue(session, job)
    emit_job(session, clock, "queued", job)
    return job


def emit_job(session: Session, clock: Clock, verb: str, job: Job, **more: object) -> None:
    """An event of type job.`verb`."""
    data = {"kind": job.kind, "collection_id": job.collection_id, "document_id": job.document_id, "version_id": job.version_id}
    emit(session, clock, job.tenant_id, f"job.{verb}", job.id, **data, retry_of=job.retry_of, **more)


def emit_document(session: Session, clock: Clock, verb: str, job: Job, **more: object) -> None:
    """An event of type document.`verb`, about the document that the job works on."""
    data = {"collection_id": job.collection_id, "version_id": job.version_id, "job_id": job.id}
    emit(session, clock, job.tenant_id, f"document.{verb}", job.document_id, **data, **more)
