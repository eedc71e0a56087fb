"""Removes a collection that has nothing left in it: with it goes every row that names it."""

from __future__ import annotations

from collections.abc import Iterator

import sqlalchemy as sa
from sqlalchemy.orm import Session
from sqlmodel import col, select

from config.database import Database, TenantOwned
from config.errors import Conflict
from ingestion.jobs.rows import OPEN, elements_of
from ingestion.jobs.tables import ALL_SUCCEEDED, Job, JobDependency
from rag.collections import Collections
from rag.corpus import Collection, Document
from tenants.context import TenantContext
from tenants.limits.quotas import UNLIMITED

_NO_SYNC = {"synchronize_session": False}


class Removal:
    def __init__(self, database: Database, collections: Collections) -> None:
        self._database, self._collections = database, collections

    def remove(self, context: TenantContext, name: str) -> Collection:
        """Raise Conflict while there is a document in it, or a job on one that has not ended to the last step, or while a job
        elsewhere is to learn from one of its jobs that it must fail."""
        with self._database.write(context) as session:
            found = self._collections.for_tenant(context).hold(session, name)
            jobs = select(col(Job.id)).where(col(Job.collection_id) == found.id)
            left = select(col(Document.id)).where(col(Document.collection_id) == found.id)
            if session.scalar(left.limit(1)) or session.scalar(jobs.where(col(Job.finished_at).is_(None)).limit(1)):
                raise Conflict("There are documents in the collection, or work on them: delete them and wait.", field="name")
            if session.scalar(_to_fail_for(session, found.id)):
                detail = "A job of another collection is to fail because one of this failed or was cancelled; wait for it."
                raise Conflict(detail, field="name")
            for job_id in (JobDependency.job_id, JobDependency.needs_id):
                session.execute(sa.delete(JobDependency).where(col(job_id).in_(jobs)), execution_options=_NO_SYNC)
            session.execute(sa.delete(Job).where(col(Job.collection_id) == found.id), execution_options=_NO_SYNC)
            for table, column in _naming():
                session.execute(sa.delete(table).where(column == found.id), execution_options=_NO_SYNC)
            session.execute(sa.delete(Collection).where(col(Collection.id) == found.id), execution_options=_NO_SYNC)
            UNLIMITED.removed_collection(session, context.tenant_id)
        return found


def _to_fail_for(session: Session, collection_id: str) -> sa.Select[str]:
    """A job of another collection that one of this one's, by not having succeeded, will make fail."""
    lost = select(col(Job.id)).where(col(Job.collection_id) == collection_id, col(Job.state) != "succeeded")
    needed = elements_of(session, col(Job.after))
    return (
        sa.select(col(Job.id))
        .select_from(Job, needed)
        .where(
            col(Job.collection_id) != collection_id,
            col(Job.state).in_(OPEN),
            col(Job.after_policy) == ALL_SUCCEEDED,
            needed.c.value.in_(lost),
        )
        .limit(1)
    )


def _naming() -> Iterator[tuple[type[TenantOwned], sa.ColumnElement[str]]]:
    """The tables whose rows belong to a collection, but for documents, which must be gone before."""
    for mapper in TenantOwned._sa_registry.mappers:
        for column in mapper.local_table.columns if issubclass(mapper.class_, TenantOwned) else ():
            if mapper.class_ is not Document and any(key.column.table.name == "collections" for key in column.foreign_keys):
                yield mapper.class_, getattr(mapper.class_, column.key)
