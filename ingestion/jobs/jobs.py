"""Jobs as their tenant sees them: shown, listed, cancelled and retried. What a job does is `pipeline`'s.

How a job ends is decided once, in a transaction that holds its document, its row and its version. So a version whose
cancellation was acknowledged never becomes live, and one that became live first is not cancelled.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session, aliased
from sqlmodel import col, select
from sqlmodel.sql.expression import SelectOfScalar

from config.clock import Clock
from config.database import Database
from config.errors import InvalidInput, NotFound, QuotaExceeded, Unavailable
from ingestion.counting import follow
from ingestion.jobs.rows import (
    MAX_AFTER,
    OPEN,
    JobQueue,
    add_job,
    elements_of,
    emit_document,
    emit_job,
    last_epoch,
    let_go,
    release_waiting,
)
from ingestion.jobs.tables import Job
from rag.corpus import Collection, Document, DocumentVersion
from rag.sessions.tables import ChatSession
from tenants.context import TenantContext
from tenants.limits.quotas import UNLIMITED, Quotas

MAX_RETRIED = 100  # by one call


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which jobs a list shows."""

    collection: str | None = None
    state: str | None = None
    error_code: str | None = None
    dead: bool = False  #: only failed ones that somebody should look at: not retried, and nothing newer was brought


EVERY = Wanted()


@dataclass(frozen=True, slots=True)
class Jobs:
    database: Database
    clock: Clock
    queue: JobQueue
    quotas: Quotas = UNLIMITED

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

    def list(self, wanted: Wanted = EVERY, *, after: str | None = None, limit: int) -> tuple[list[Job], str | None]:
        """Up to `limit` jobs, newest first, and where to go on. Jobs that the key must not see leave no gap."""
        with self._parts.database.read(self._context) as session:
            statement = self._chosen(session, wanted).order_by(col(Job.id).desc()).limit(limit + 1)
            if after is not None:
                statement = statement.where(col(Job.id) < after)
            rows = [*session.scalars(statement)]
        return rows[:limit], rows[limit - 1].id if len(rows) > limit else None

    def _chosen(self, session: Session, wanted: Wanted) -> SelectOfScalar[Job]:
        statement = visible(session, self._context).where(col(Collection.session_id).is_(None))
        if wanted.collection is not None:
            statement = statement.where(col(Job.collection_id) == self._collection_id(session, wanted.collection))
        if wanted.state is not None:
            statement = statement.where(col(Job.state) == wanted.state)
        if wanted.error_code is not None:
            statement = statement.where(col(Job.error_code) == wanted.error_code)
        return statement.where(*_dead()) if wanted.dead else statement

    def cancel(self, job_id: str) -> Job:
        """End an ingest job that has not ended; of one that has, nothing changes. Either way the job as it is then."""
        with self._parts.database.write(self._context) as session:
            job, document, version = self._locked(session, job_id)
            if job.kind != "ingest" and not job.held:
                raise InvalidInput("A delete cannot be cancelled: the document is gone from every answer already.")
            if job.state in OPEN and (job.held or (version is not None and version.state == "queued")):
                self._cancel(session, job, version)
                if document is not None:
                    follow(session, document)
        return job

    def _cancel(self, session: Session, job: Job, version: DocumentVersion | None) -> None:
        clock, queue, now = self._parts.clock, self._parts.queue, self._parts.clock()
        job.state, job.updated_at = "cancelled", now
        emit_job(session, clock, "cancelled", job)
        ingests = job.kind == "ingest"
        if version is not None:
            version.state, version.ended_at = "cancelled", now
            emit_document(session, clock, "cancelled", job, version=version.number)
        if ingests:
            job.stage = "collecting"  # a worker removes what was staged, and then says when it was done
        else:  # a delete that waited for other jobs
            job.stage, job.finished_at = "done", now
        if job.held:
            let_go(session, job)
            if ingests:  # also of a document that is gone: of its jobs the last forgets what was embedded
                queue.enqueue(session, job)
        release_waiting(session, queue, job)

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
            parts, rank = self._parts, job.priority
            follow(session, document, parts.quotas)
            clock, queue, epoch = parts.clock, parts.queue, last_epoch(session, version)
            return add_job(
                session, clock, queue, "ingest", document, version, retry_of=job.id, priority=rank, key=job.key, epoch=epoch
            )

    def retry_all(self, wanted: Wanted, *, through: str | None = None, limit: int = MAX_RETRIED) -> tuple[Sequence[Job], bool]:
        """The new jobs for up to `limit` dead ones, oldest first and none younger than `through`; and whether there are more.

        Passed over is what somebody else changed meanwhile, and what the plan has no room for.
        """
        with self._parts.database.read(self._context) as session:
            statement = self._chosen(session, replace(wanted, dead=True)).where(*_can_be_retried())
            if through is not None:
                statement = statement.where(col(Job.id) <= through)
            found = session.scalars(statement.order_by(col(Job.id)).limit(limit + 1)).all()
        retried = []
        for job in found[:limit]:
            with suppress(InvalidInput, NotFound, QuotaExceeded, Unavailable):
                retried.append(self.retry(job.id))
        return retried, len(found) > limit

    def _locked(self, session: Session, job_id: str) -> tuple[Job, Document | None, DocumentVersion | None]:
        """The document first, as everybody locks them, then the job and its version, each as it is now."""
        job = self._seen(session, job_id)
        document = session.get(Document, job.document_id, **_LOCKED)
        held = session.get(Job, job_id, **_LOCKED)
        if held is None:  # it went with its collection, while its document was waited for
            raise NotFound("There is no such job.")
        return held, document, session.get(DocumentVersion, job.version_id or "", **_LOCKED)

    def _seen(self, session: Session, job_id: str) -> Job:
        job = session.scalars(visible(session, self._context).where(col(Job.id) == job_id)).first()
        if job is None:
            raise NotFound("There is no such job.")
        return job

    def _collection_id(self, session: Session, name: str) -> str:
        bounds = self._context.collections
        named = col(Collection.name) == name, col(Collection.session_id).is_(None)
        found = session.scalar(select(col(Collection.id)).where(*named))
        if found is None or (bounds is not None and name not in bounds):
            raise NotFound(f"There is no collection {name!r}.", field="collection")
        return str(found)


def visible(session: Session, context: TenantContext) -> SelectOfScalar[Job]:
    """Jobs in the key's collections, on documents whose live and newest version have no label that the key lacks; and those
    on what is attached to sessions that it reaches."""
    statement = select(Job).join(Collection, col(Collection.id) == col(Job.collection_id))
    if context.collections is not None:
        named, attached = col(Collection.name).in_(context.collections), col(Collection.session_id).is_not(None)
        statement = statement.where(sa.or_(named, attached))
    if context.subject is not None:
        own = select(col(ChatSession.id)).where(col(ChatSession.subject) == context.subject)
        statement = statement.where(sa.or_(col(Collection.session_id).is_(None), col(Collection.session_id).in_(own)))
    if context.labels is None:
        return statement
    # Of a purged document only the job is left, and nobody can say any more who was to see it.
    exists = sa.exists().where(col(Document.id) == col(Job.document_id))
    return statement.where(exists, ~_beyond(session, sorted(context.labels)))


def require_seen(session: Session, context: TenantContext, job_ids: Sequence[str]) -> None:
    """Raise InvalidInput for too many; NotFound alike for what is missing, foreign or outside the key's bounds."""
    if len(job_ids) > MAX_AFTER:
        raise InvalidInput(f"A job waits for at most {MAX_AFTER} others.", field="after", limit=MAX_AFTER)
    if not job_ids:
        return
    found = session.scalars(visible(session, context).where(col(Job.id).in_(job_ids))).all()
    if len(found) < len({*job_ids}):
        raise NotFound("There is no such job.", field="after")


def _dead() -> Sequence[sa.ColumnElement[bool]]:
    """Failed, not retried, and still what the document is waiting for."""
    again = aliased(Job)
    retried = sa.exists().where(col(again.document_id) == col(Job.document_id), col(again.retry_of) == col(Job.id))
    newest = (
        select(sa.literal(1))
        .select_from(Document)
        .join(DocumentVersion, col(DocumentVersion.document_id) == col(Document.id))
        .where(
            col(Document.id) == col(Job.document_id),
            col(Document.deleted_at).is_(None),
            col(DocumentVersion.number) == col(Document.last_number),
            sa.or_(col(DocumentVersion.id) == col(Job.version_id), col(Job.kind) == "delete"),
        )
        .correlate(Job)
        .exists()
    )
    return col(Job.state) == "failed", ~retried, newest


def _can_be_retried() -> Sequence[sa.ColumnElement[bool]]:
    kept = sa.exists().where(
        col(DocumentVersion.id) == col(Job.version_id),
        sa.or_(col(DocumentVersion.content_blob) != "", col(DocumentVersion.url).is_not(None)),
    )
    return col(Job.kind) == "ingest", col(Job.stage) == "done", kept


_LOCKED: dict[str, Any] = {"with_for_update": True, "populate_existing": True}


def _beyond(session: Session, labels: Sequence[str]) -> sa.ColumnElement[bool]:
    """Whether the live or the newest version of the job's document has a label other than these."""
    label = elements_of(session, col(DocumentVersion.labels))
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
