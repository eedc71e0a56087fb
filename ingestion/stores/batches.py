"""Several files that are put into a store by one request, which is followed and cancelled as one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session
from sqlmodel import col, select

from config.errors import InvalidInput, NotFound
from config.ids import new_id
from ingestion.jobs.tables import Job
from ingestion.stores.members import STATUS, ShownFile, StoreFiles, with_documents
from ingestion.stores.paging import PageWish
from ingestion.stores.parts import StoreParts, WantedFile, require_whole, store_row
from ingestion.stores.settling import Settling
from ingestion.stores.tables import CANCELLED, WAITING, FileBatch, StoreFile, VectorStore
from rag.corpus import DocumentVersion
from tenants.context import TenantContext

MAX_FILES = 2_000
_NO_SYNC = {"synchronize_session": False}


@dataclass(frozen=True, slots=True)
class ShownBatch:
    row: FileBatch
    store_id: str
    counts: Mapping[str, int]  #: by status, of those that are still in the store

    @property
    def status(self) -> str:
        if self.row.cancelled_at is not None:
            return "cancelled"
        if self.counts.get("in_progress"):
            return "in_progress"
        return "failed" if self.counts and set(self.counts) == {"failed"} else "completed"


class Batches:
    def __init__(self, parts: StoreParts, files: StoreFiles, settling: Settling) -> None:
        self.parts, self.files, self.settling = parts, files, settling

    def for_tenant(self, context: TenantContext) -> TenantBatches:
        return TenantBatches(self, context)


class TenantBatches:
    def __init__(self, batches: Batches, context: TenantContext) -> None:
        self._parts, self._settling, self._context = batches.parts, batches.settling, context
        self._files = batches.files.for_tenant(context)

    def create(
        self,
        store_id: str,
        wanted: Sequence[WantedFile],
        record: Callable[[Session, ShownBatch], None] | None = None,
    ) -> ShownBatch:
        """Raise as `TenantStoreFiles.attach` does. A file that cannot be brought fails alone."""
        if not 1 <= len(wanted) <= MAX_FILES:
            raise InvalidInput(f"A batch has 1 to {MAX_FILES} files.", field="file_ids", limit=MAX_FILES)
        self._files.require_room(wanted)
        with self._parts.database.write(self._context) as session:
            store = store_row(session, self._context, store_id, self._parts.clock(), lock=True)
            self._files.enlist(session, store, wanted)
            row = FileBatch(
                id=new_id("vsfb"),
                tenant_id=store.tenant_id,
                collection_id=store.collection_id,
                file_ids=list(dict.fromkeys(one.file_id for one in wanted)),
                created_at=self._parts.clock(),
            )
            session.add(row)
            session.flush()
            shown = self._shown(session, store, row)
            if record is not None:
                record(session, shown)
        self._settling.bring(self._context)
        return shown

    def get(self, store_id: str, batch_id: str) -> ShownBatch:
        with self._parts.database.read(self._context) as session:
            return self._shown(session, *self._found(session, store_id, batch_id))

    def list_files(
        self, store_id: str, batch_id: str, wish: PageWish, *, status: str | None = None
    ) -> tuple[Sequence[ShownFile], bool]:
        with self._parts.database.read(self._context) as session:
            _, row = self._found(session, store_id, batch_id)
        return self._files.list(store_id, wish, status=status, among=row.file_ids)

    def cancel(self, store_id: str, batch_id: str) -> ShownBatch:
        """End what has not ended. A batch that has ended stays as it is."""
        require_whole(self._context)
        with self._parts.database.write(self._context) as session:
            store, row = self._found(session, store_id, batch_id, lock=True)
            if self._shown(session, store, row).counts.get("in_progress"):
                row.cancelled_at = self._parts.clock()
                session.add(row)
            waits = (
                col(StoreFile.collection_id) == row.collection_id,
                col(StoreFile.file_id).in_(row.file_ids),
                col(StoreFile.state) == WAITING,
            )
            ended = sa.update(StoreFile).where(*waits).values(state=CANCELLED, revision=col(StoreFile.revision) + 1)
            session.execute(ended, execution_options=_NO_SYNC)
        self._cancel_jobs(row)
        return self.get(store_id, batch_id)

    def _cancel_jobs(self, row: FileBatch) -> None:
        queued = with_documents(col(DocumentVersion.id)).where(
            col(StoreFile.collection_id) == row.collection_id,
            col(StoreFile.file_id).in_(row.file_ids),
            col(DocumentVersion.state) == "queued",
        )
        with self._parts.database.read(self._context) as session:
            versions = session.scalars(queued).all()
            ids = session.scalars(select(col(Job.id)).where(col(Job.version_id).in_(versions))).all()
        jobs = self._parts.jobs.for_tenant(self._context)
        for job_id in ids:
            with suppress(NotFound, InvalidInput):
                jobs.cancel(job_id)

    def _found(self, session: Session, store_id: str, batch_id: str, *, lock: bool = False) -> tuple[VectorStore, FileBatch]:
        store = store_row(session, self._context, store_id, self._parts.clock(), active=False)
        mine = (col(FileBatch.id) == batch_id, col(FileBatch.collection_id) == store.collection_id)
        statement = select(FileBatch).where(*mine)
        row = session.scalars(statement.with_for_update() if lock else statement).first()
        if row is None:
            raise NotFound("There is no such file batch.", field="batch_id")
        return store, row

    def _shown(self, session: Session, store: VectorStore, row: FileBatch) -> ShownBatch:
        mine = (col(StoreFile.collection_id) == row.collection_id, col(StoreFile.file_id).in_(row.file_ids))
        counts: Counter[str] = Counter()
        for status, count in session.execute(with_documents(STATUS, sa.func.count()).where(*mine).group_by(STATUS)):
            counts[status] = int(count)
        return ShownBatch(row, store.id, counts)
