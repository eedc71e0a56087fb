"""Who works on a job: taking it up raises its epoch, and whoever holds an earlier one can change nothing any more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.orm import Session
from sqlmodel import SQLModel, col, select
from sqlmodel.sql.expression import SelectOfScalar

from config.clock import Clock
from config.database import Database
from config.errors import CarrelError, LeaseLost
from ingestion.jobs.rows import OPEN, emit_job, unmet
from ingestion.jobs.tables import FETCHES, Job
from rag.corpus import Collection, Document, DocumentVersion
from tenants.context import TenantContext

T = TypeVar("T", bound=SQLModel)


def _locking(table: type[T], key: Any) -> SelectOfScalar[T]:
    """Made once: a step's transactions ask for the same three rows again and again, and building that took a third of them."""
    statement = select(table).where(col(key) == sa.bindparam("key"))
    return statement.with_for_update().execution_options(populate_existing=True)


_DOCUMENT, _JOB, _VERSION = (
    _locking(Document, Document.id),
    _locking(Job, Job.id),
    _locking(DocumentVersion, DocumentVersion.id),
)


def _locked(session: Session, statement: SelectOfScalar[T], key: str | None) -> T | None:
    """The row as it is now, held until the transaction ends."""
    return session.scalars(statement, {"key": key}).one_or_none()


#: As which its tokens are booked; what is attached to a session is booked on no collection.
_NAME = select(col(Collection.name)).where(col(Collection.id) == sa.bindparam("id"), col(Collection.session_id).is_(None))


class DocumentGone(CarrelError):
    """The document was deleted while its job ran."""

    code, title = "document_deleted", "The document was deleted"


class JobCancelled(CarrelError):
    """Somebody cancelled the job while it ran."""

    code, title = "job_cancelled", "The job was cancelled"


@dataclass(frozen=True, slots=True)
class Lease:
    """One owner's hold on a job. Every transaction of a step begins by asking whether it still stands."""

    context: TenantContext
    job_id: str
    epoch: int
    kind: str
    collection_id: str
    document_id: str
    version_id: str
    fetches: bool = False  #: whether the content has to be fetched, or had to be
    key: str = ""  #: on which its tokens are booked
    collection: str = ""  #: by name
    unmet: str | None = None  #: a job before this one that did not succeed, so that this one must fail


@dataclass(frozen=True, slots=True)
class Work:
    """A job with what it works on, as it is now."""

    job: Job
    document: Document
    version: DocumentVersion


def take_up(database: Database, clock: Clock, context: TenantContext, job_id: str) -> Lease | None:
    """Become the job's owner, whoever it was before; None if the job has ended and nothing is left to do."""
    with database.write(context) as session:
        job = _locked(session, _JOB, job_id)
        if job is None or (job.stage == "done" and job.state not in OPEN):
            return None
        job.epoch += 1
        if job.kind == "ingest" and job.stage in ("waiting", "reading"):
            _count_start(session, job)
        if job.state == "queued":
            job.state = "running"
            emit_job(session, clock, "running", job)
        job.updated_at = clock()
        session.add(job)
        return Lease(
            context=context,
            job_id=job.id,
            epoch=job.epoch,
            kind=job.kind,
            collection_id=job.collection_id,
            document_id=job.document_id,
            version_id=job.version_id or "",
            fetches=job.queue == FETCHES,
            key=job.key,
            collection=session.scalar(_NAME, {"id": job.collection_id}) or "",
            unmet=unmet(session, job),
        )


def _count_start(session: Session, job: Job) -> None:
    """A document that takes the worker down with it whenever it is read must not do so for ever: `Reading` looks at this."""
    job.stage = "reading"
    version = _locked(session, _VERSION, job.version_id)
    if version is not None and version.state == "queued":
        version.read_starts += 1
        session.add(version)


def owned(session: Session, lease: Lease) -> Job:
    """The job's row, held until the transaction ends; raise LeaseLost if another took the job up."""
    job = _locked(session, _JOB, lease.job_id)
    if job is None or job.epoch != lease.epoch:
        raise LeaseLost(f"job {lease.job_id} was taken up by another worker")
    return job


def work(session: Session, lease: Lease) -> Work:
    """What the job works on, held until the transaction ends, the document first, as everybody locks them.

    Raise LeaseLost, DocumentGone or JobCancelled.
    """
    document = _locked(session, _DOCUMENT, lease.document_id)
    job = owned(session, lease)
    version = _locked(session, _VERSION, lease.version_id)
    if document is None or version is None or document.deleted_at is not None:
        raise DocumentGone("The document was deleted while its job ran.")
    if version.state == "cancelled" or job.state not in (*OPEN, "succeeded"):
        raise JobCancelled("The job was cancelled.")
    return Work(job, document, version)
