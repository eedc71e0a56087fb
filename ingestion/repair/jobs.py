"""Work that nobody does any more: versions and deletions without a job, jobs without a workflow, remains without either."""

from __future__ import annotations

from collections.abc import Iterator

import sqlalchemy as sa
from sqlalchemy.orm import Session
from sqlmodel import col, select
from sqlmodel.sql.expression import SelectOfScalar

from config.errors import CarrelError
from ingestion.intake import duplicates
from ingestion.jobs.rows import add_job, last_epoch, release, release_waiting, waits_for
from ingestion.jobs.tables import Job
from ingestion.removal.collector import ENDED
from ingestion.repair.parts import PAGE, UNFINISHED, Parts
from ingestion.repair.report import Finding
from rag.corpus import Chunk, Document, DocumentVersion, VersionChunk
from tenants.context import TenantContext

_COLLECTS = col(Job.stage) == "collecting"
RECENT_JOBS = 50  # of one document, that may still be collecting after their result was recorded


def check_jobs(parts: Parts, context: TenantContext, repair: bool) -> Iterator[Finding]:
    yield from _stranded_jobs(parts, context, repair)
    yield from _waiting_versions(parts, context, repair)
    yield from _deletions(parts, context, repair)
    yield from _remains(parts, context, repair)
    yield from _linked(parts, context, repair)


def pages(parts: Parts, context: TenantContext, statement: SelectOfScalar[str]) -> Iterator[list[str]]:
    """Ids in pages; each page is read when the one before has been dealt with."""
    by = statement.selected_columns[0]
    last = ""
    while True:
        with parts.database.read(context) as session:
            ids = [*session.scalars(statement.where(by > last).order_by(by).limit(PAGE))]
        if not ids:
            return
        yield ids
        last = ids[-1]


def _stranded_jobs(parts: Parts, context: TenantContext, repair: bool) -> Iterator[Finding]:
    """Also those that have their result and collect: until that is done they cannot be retried, nor can their collection go."""
    for ids in pages(parts, context, select(col(Job.id)).where(sa.or_(col(Job.state).in_(UNFINISHED), _COLLECTS))):
        held = parts.queue.unfinished(ids)
        for job_id in ids:
            if job_id not in held and (finding := _take_up(parts, context, job_id, repair)):
                yield finding


def _take_up(parts: Parts, context: TenantContext, job_id: str, repair: bool) -> Finding | None:
    """Looks again, since a job that was unfinished a moment ago may just have ended."""
    with parts.database.write(context) if repair else parts.database.read(context) as session:
        job = session.get(Job, job_id, with_for_update=repair)
        if job is None or not (job.state in UNFINISHED or job.stage == "collecting"):
            return None
        ended = _ended_version(session, job) if job.state in UNFINISHED else None
        if job.held and ended is None:
            return _held(parts, session, context, job, repair)
        if not repair:
            pass
        elif ended is None:
            if not parts.queue.requeue(session, job):
                return None
        else:  # run again, it would find nothing to do and call itself successful
            now = parts.clock()
            job.state, job.stage, job.updated_at, job.finished_at = ended, "done", now, now
            job.error_code = job.error_code or CarrelError.code
            job.error_detail = job.error_detail or "The job ended without a record of why; bring the document again."
            session.add(job)
            release_waiting(session, parts.queue, job)
    kind = "job_without_workflow" if ended is None else "job_unlike_version"
    return Finding(kind, context.tenant_id, repair, subject=job_id)


def _held(parts: Parts, session: Session, context: TenantContext, job: Job, repair: bool) -> Finding | None:
    """A job that waits for others is in no queue; damage is one whose others have all ended."""
    if waits_for(session, job) or (repair and not release(session, parts.queue, job)):
        return None
    return Finding("job_without_workflow", context.tenant_id, repair, subject=job.id)


def _linked(parts: Parts, context: TenantContext, repair: bool) -> Iterator[Finding]:
    """Documents that are found through one that is live no more."""
    for ids in pages(parts, context, duplicates.dangling()):
        for version_id in ids:
            if repair:
                with parts.database.write(context) as session:
                    if not duplicates.release(session, parts.clock, parts.queue, version_id):
                        continue
            yield Finding("link_without_original", context.tenant_id, repair, subject=version_id)


def _ended_version(session: Session, job: Job) -> str | None:
    """How the job's version ended without becoming live, if it did."""
    version = session.get(DocumentVersion, job.version_id) if job.version_id else None
    return version.state if version is not None and version.state in ("failed", "cancelled") else None


def _waiting_versions(parts: Parts, context: TenantContext, repair: bool) -> Iterator[Finding]:
    waiting = (
        select(col(DocumentVersion.id))
        .join(Document, col(Document.id) == col(DocumentVersion.document_id))
        .where(
            col(DocumentVersion.state) == "queued",
            col(Document.deleted_at).is_(None),
            ~_unfinished_job(col(Job.version_id) == col(DocumentVersion.id)),
        )
    )
    for ids in pages(parts, context, waiting):
        for version_id in ids:
            if not repair or _give_job(parts, context, waiting.where(col(DocumentVersion.id) == version_id)):
                yield Finding("version_without_job", context.tenant_id, repair, subject=version_id)


def _deletions(parts: Parts, context: TenantContext, repair: bool) -> Iterator[Finding]:
    deleted = select(col(Document.id)).where(
        col(Document.deleted_at).is_not(None),
        ~_unfinished_job(col(Job.document_id) == col(Document.id), col(Job.kind) == "delete"),
    )
    for ids in pages(parts, context, deleted):
        for document_id in ids:
            if not repair or _give_job(parts, context, deleted.where(col(Document.id) == document_id)):
                yield Finding("deletion_without_job", context.tenant_id, repair, subject=document_id)


def _unfinished_job(*conditions: sa.ColumnElement[bool]) -> sa.Exists:
    return sa.exists().where(*conditions, col(Job.state).in_(UNFINISHED))


def _give_job(parts: Parts, context: TenantContext, still: SelectOfScalar[str]) -> bool:
    """A new job for the version or document, if the statement still finds it while its document is held."""
    with parts.database.write(context) as session:
        found = session.scalars(still).first()
        if found is None:
            return False
        version = session.get(DocumentVersion, found)
        document_id = found if version is None else version.document_id
        document = session.get(Document, document_id, with_for_update=True)
        if document is None or session.scalars(still).first() is None:  # somebody did the same, and the row was waited for
            return False
        kind, epoch = ("delete", 0) if version is None else ("ingest", last_epoch(session, version))
        add_job(session, parts.clock, parts.queue, kind, document, version, epoch=epoch)
    return True


def _remains(parts: Parts, context: TenantContext, repair: bool) -> Iterator[Finding]:
    """Contents of ended versions, and chunks that no version places, of documents that no job works on."""
    ended = sa.and_(col(DocumentVersion.state).in_(ENDED), sa.not_(parts.collector.kept()))
    texts = sa.and_(ended, col(DocumentVersion.text_blob).is_not(None))
    contents = sa.and_(col(DocumentVersion.content_blob) != "", parts.collector.given_up())
    dead = sa.exists().where(col(DocumentVersion.document_id) == col(Document.id), sa.or_(texts, contents))
    placed = sa.exists().where(col(VersionChunk.chunk_id) == col(Chunk.id))
    unplaced = sa.exists().where(col(Chunk.document_id) == col(Document.id), ~placed)
    kept = select(col(Document.id)).where(
        col(Document.deleted_at).is_(None),
        sa.or_(dead, unplaced),
        ~_unfinished_job(col(Job.document_id) == col(Document.id)),
    )
    for ids in pages(parts, context, kept):
        for document_id in ids:
            if being_collected(parts, context, document_id):
                continue
            with parts.database.read(context) as session:  # again: a job may have collected it since it was listed
                left = session.scalars(kept.where(col(Document.id) == document_id)).first()
                document = None if left is None else session.get(Document, left)
            if document is None:
                continue
            if repair:
                parts.collector.collect(context, document.collection_id, document_id, None)
            yield Finding("remains", context.tenant_id, repair, subject=document_id)


def being_collected(parts: Parts, context: TenantContext, document_id: str) -> bool:
    """An ingest job collects after its result was recorded."""
    recent = select(col(Job.id)).where(col(Job.document_id) == document_id).order_by(col(Job.id).desc()).limit(RECENT_JOBS)
    with parts.database.read(context) as session:
        ids = [*session.scalars(recent)]
    return bool(parts.queue.unfinished(ids))
