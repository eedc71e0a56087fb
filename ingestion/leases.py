"""Who works on a job: taking it up raises its epoch, and whoever holds an earlier one can change nothing any more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from config.clock import Clock
from config.database import Database
from config.errors import CarrelError, LeaseLost
from ingestion.jobs import OPEN, emit_job
from ingestion.tables import FETCHES, Job
from rag.corpus import Document, DocumentVersion
from tenants.context import TenantContext

LOCKED: dict[str, Any] = {"with_for_update": True, "populate_existing": True}


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


@dataclass(frozen=True, slots=True)
class Work:
    """A job with what it works on, as it is now."""

    job: Job
    document: Document
    version: DocumentVersion


def take_up(database: Database, clock: Clock, context: TenantContext, job_id: str) -> Lease | None:
    """Become the job's owner, whoever it was before; None if the job has ended and nothing is left to do."""
    with database.write(context) as session:
        job = session.get(Job, job_id, **LOCKED)
        if job is None or (job.stage == "done" and job.state not in OPEN):
            return None
        job.epoch += 1
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
        )


def owned(session: Session, lease: Lease) -> Job:
    """The job's row, held until the transaction ends; raise LeaseLost if another took the job up."""
    job = session.get(Job, lease.job_id, **LOCKED)
    if job is None or job.epoch != lease.epoch:
        raise LeaseLost(f"job {lease.job_id} was taken up by another worker")
    return job


def work(session: Session, lease: Lease) -> Work:
    """What the job works on, held until the transaction ends, the document first, as everybody locks them.

    Raise LeaseLost, DocumentGone or JobCancelled.
    """
    document = session.get(Document, lease.document_id, **LOCKED)
    job = owned(session, lease)
    version = session.get(DocumentVersion, lease.version_id, **LOCKED)
    if document is None or version is None or document.deleted_at is not None:
        raise DocumentGone("The document was deleted while its job ran.")
    if version.state == "cancelled" or job.state not in (*OPEN, "succeeded"):
        raise JobCancelled("The job was cancelled.")
    return Work(job, document, version)
