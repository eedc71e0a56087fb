"""Removes everything of a tenant whose deletion was asked for, and writes down how much there was and how much is left.

    counted → hidden (no document is in any answer) → emptied (points, blobs, vectors in the cache; documents' rows)
    → once no job of the tenant is at work: every other row → the tenant itself, and the receipt

How far it is follows from what is still there. So it may die at any instant, and be done by two at once. Audit entries stay,
with the checkpoints by which they are verified and end with their age: they are the operator's proof, and hold ids, never
content.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence

import sqlalchemy as sa
from sqlalchemy.orm import Session
from sqlmodel import SQLModel, col, select

from config.clock import Clock
from config.database import Database
from config.errors import Unavailable
from ingestion.blobs import BlobStore
from ingestion.counting import follow
from ingestion.jobs.tables import Job
from ingestion.removal.collector import Collector
from ingestion.stores.tables import StoredFile
from rag.corpus import Document, DocumentVersion, SpaceRow
from rag.embedding.service import EmbeddingService
from rag.store.base import Space, TenantVectors, VectorStore
from tenants.context import TenantContext
from tenants.registry import TenantRegistry
from tenants.tables import TenantDeletion

log = logging.getLogger(__name__)

PAGE, ROWS = 100, 1_000  # documents in one transaction; rows
SLICE_S = 3.0  # of one call: others are looked after in between
#: Requests that were let in before the deletion was asked for end in this time, or find nothing to write to.
GRACE_MS = 5_000
#: What stays, with who reads it then.
KEPT = dict.fromkeys(("audit_entries", "audit_checkpoints", "tenant_deletions"), "the operator")
_NO_SYNC = {"synchronize_session": False}


class TenantRemoval:
    """`grace_ms`: how long after it was asked for the last rows go."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        registry: TenantRegistry,
        blobs: BlobStore,
        store: VectorStore,
        embedding: EmbeddingService,
        collector: Collector,
        *,
        grace_ms: int = GRACE_MS,
    ) -> None:
        self._database, self._clock, self._registry, self._blobs = database, clock, registry, blobs
        self._store, self._embedding, self._collector, self._grace_ms = store, embedding, collector, grace_ms

    def run_once(self) -> None:
        """Go on with the deletions that are not done, for SLICE_S at most."""
        with self._database.system_read() as session:
            running = select(TenantDeletion).where(col(TenantDeletion.state) == "running").order_by(col(TenantDeletion.id))
            deletions = session.scalars(running.limit(PAGE)).all()
        until = time.monotonic() + SLICE_S
        for deletion in deletions:
            try:
                self._go_on(deletion, until)
            except Unavailable:
                raise  # a part that all of them need
            except Exception:
                log.exception("a tenant's deletion failed; it is tried again", extra={"deletion": deletion.id})

    def _go_on(self, deletion: TenantDeletion, until: float) -> None:
        context = self._registry.context_of_job(deletion.tenant_id, deletion.id)
        if deletion.step == "":
            self._note(deletion, "counted", before=self.count(context))
        steps = ((self._hide, "hidden"), (self._empty, "emptied"))
        for work, name in steps:
            for _ in work(context, deletion):
                if time.monotonic() > until:
                    return
            self._note(deletion, name)
        if self._at_work(context) or self._clock() < deletion.requested_at + self._grace_ms:
            return
        for _ in self._remove_rows(context):
            if time.monotonic() > until:
                return
        self._finish(deletion, context)

    def _note(self, deletion: TenantDeletion, step: str, before: Mapping[str, int] | None = None) -> None:
        with self._database.system_write() as session:
            row = session.get_one(TenantDeletion, deletion.id, with_for_update=True)
            row.step = step
            if before is not None and not row.before:
                row.before = dict(before)
            session.add(row)

    def count(self, context: TenantContext) -> dict[str, int]:
        """Rows by table, and what lies elsewhere; of KEPT nothing, which stays."""
        with self._database.system_read() as session:
            found = {table.name: _count(session, table, context.tenant_id) for table in owned_tables()}
        found["points"] = sum(vectors.count() for vectors in self._vectors(context))
        found["blobs"] = sum(self._blobs.path(name).exists() for name in self._blobs_of(context))
        found["cached_vectors"] = self._embedding.holdings(context).vectors
        return found

    def _blobs_of(self, context: TenantContext, document_id: str | None = None) -> Sequence[str]:
        """Names of contents and texts of versions, and of uploaded files."""
        names = (col(DocumentVersion.content_blob), col(DocumentVersion.text_blob))
        mine = sa.true() if document_id is None else col(DocumentVersion.document_id) == document_id
        with self._database.read(context) as session:
            rows = session.execute(sa.select(*names).where(mine)).all()
            files = [] if document_id else session.scalars(select(col(StoredFile.blob))).all()
        return sorted({name for row in rows for name in row if name} | {*files})

    def _note_left(self, deletion: TenantDeletion, blobs: int) -> None:
        """Files that are there although their rows are gone: nothing that is looked at in the end could name them."""
        if blobs:
            with self._database.system_write() as session:
                row = session.get_one(TenantDeletion, deletion.id, with_for_update=True)
                row.after = {"blobs": row.after.get("blobs", 0) + blobs}
                session.add(row)

    def _hide(self, context: TenantContext, _deletion: TenantDeletion) -> Iterator[None]:
        """No document is live from here on, so no job makes one so, and each finds its document gone."""
        page = select(Document).where(col(Document.deleted_at).is_(None)).order_by(col(Document.id)).limit(PAGE)
        while True:
            with self._database.write(context) as session:
                documents = session.scalars(page.with_for_update()).all()
                for document in documents:
                    document.deleted_at, document.live_version_id = self._clock(), None
                    session.add(document)
                    follow(session, document)
            if not documents:
                return
            yield

    def _empty(self, context: TenantContext, deletion: TenantDeletion) -> Iterator[None]:
        """As single deletes are collected: points, then vectors in the cache, then rows with their blobs."""
        page = select(Document).order_by(col(Document.id)).limit(PAGE)
        while True:
            with self._database.read(context) as session:
                documents = session.scalars(page).all()
            for document in documents:
                blobs = self._blobs_of(context, document.id)
                self._collector.collect(context, document.collection_id, document.id, None)
                self._note_left(deletion, sum(self._blobs.path(name).exists() for name in blobs))
                yield
            if not documents:
                break
        yield from self._empty_files(context)
        for vectors in self._vectors(context):  # of no document: what a repair would find
            while points := vectors.page(None, ROWS):
                vectors.delete_points([point_id for point_id, _ in points])
                yield

    def _empty_files(self, context: TenantContext) -> Iterator[None]:
        """Uploaded files, each content before its row."""
        page = select(StoredFile).order_by(col(StoredFile.id)).limit(PAGE)
        while True:
            with self._database.read(context) as session:
                files = session.scalars(page).all()
            for file in files:
                self._blobs.delete(file.blob)
            ids = [file.id for file in files]
            with self._database.write(context) as session:
                session.execute(sa.delete(StoredFile).where(col(StoredFile.id).in_(ids)), execution_options=_NO_SYNC)
            if not files:
                return
            yield

    def _at_work(self, context: TenantContext) -> bool:
        with self._database.read(context) as session:
            return session.scalars(select(col(Job.id)).where(col(Job.finished_at).is_(None)).limit(1)).first() is not None

    def _remove_rows(self, context: TenantContext) -> Iterator[None]:
        self._embedding.forget_all(context)
        for table in owned_tables():
            if table.name != "quota_use":  # it keeps the tenant closed until there is none
                while self._removed(table, context.tenant_id):
                    yield

    def _removed(self, table: sa.Table, tenant_id: str) -> int:
        keys = [*table.primary_key.columns]
        some = sa.select(*keys).where(table.c.tenant_id == tenant_id).limit(ROWS)
        with self._database.system_write() as session:
            result = session.execute(sa.delete(table).where(sa.tuple_(*keys).in_(some)))
            removed: int = result.rowcount  # type: ignore[attr-defined]
        return removed

    def _finish(self, deletion: TenantDeletion, context: TenantContext) -> None:
        """The tenant and the receipt in one transaction, unless something came in between: then the next call goes on."""
        found = self.count(context)
        if left := {name: count for name, count in found.items() if count and name != "quota_use"}:
            log.warning("a deleted tenant has something again", extra={"tenant": context.tenant_id, "left": left})
            return
        with self._database.system_write() as session:
            for table in ("quota_use", "tenants"):
                columns = SQLModel.metadata.tables[table].c
                owner = columns.id if table == "tenants" else columns.tenant_id
                session.execute(sa.delete(owner.table).where(owner == context.tenant_id))
            row = session.get_one(TenantDeletion, deletion.id, with_for_update=True)
            rows = {table.name: _count(session, table, context.tenant_id) for table in owned_tables()}
            row.after = {**found, **rows, **row.after}
            row.state, row.step, row.finished_at = "done", "removed", self._clock()
            session.add(row)
        log.info("a tenant was deleted", extra={"tenant": context.tenant_id, "deletion": deletion.id})

    def _vectors(self, context: TenantContext) -> list[TenantVectors]:
        """In every space: the collections that would say in which it has points may be gone."""
        with self._database.system_read() as session:
            spaces = [Space(row.id, row.dimensions) for row in session.scalars(select(SpaceRow))]
        return [self._store.for_tenant(context, space) for space in spaces]


def owned_tables() -> Sequence[sa.Table]:
    """Every table whose rows name a tenant, those first that refer to others; a new table is among them by itself."""
    tables = reversed(SQLModel.metadata.sorted_tables)
    return [table for table in tables if "tenant_id" in table.columns and table.name not in KEPT]


def _count(session: Session, table: sa.Table, tenant_id: str) -> int:
    count = sa.select(sa.func.count()).select_from(table).where(table.c.tenant_id == tenant_id)
    return session.scalar(count) or 0
