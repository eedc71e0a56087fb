"""Files in stores: put there, shown with what became of their documents, changed, taken out again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session
from sqlmodel import col, select

from config.errors import NotFound, QueueFull, Unavailable
from ingestion.jobs.tables import Job
from ingestion.stores.paging import PageWish, page_of
from ingestion.stores.parts import StoreParts, WantedFile, live_files, require_whole, store_row, take_out
from ingestion.stores.settling import Settling
from ingestion.stores.tables import CANCELLED, REFUSED, REMOVING, WAITING, StoreFile, VectorStore
from rag.attributes import conformed
from rag.corpus import Collection, Document, DocumentVersion
from rag.filters import Value, check_attributes
from rag.profiles import Chunking
from tenants.context import TenantContext

MAX_WAITING = 10_000  #: files of a tenant that wait to become documents
STATUSES = ("in_progress", "completed", "failed", "cancelled")
#: What is wrong with the file itself, by the code of its job; everything else is the service's.
_FAULTS = {
    **dict.fromkeys(("unreadable_document", "document_parked", "invalid_input", "too_large"), "invalid_file"),
    "unsupported_media_type": "unsupported_file",
}


@dataclass(frozen=True, slots=True)
class ShownFile:
    row: StoreFile
    store_id: str
    status: str
    usage_bytes: int
    error: tuple[str, str] | None = None

    @property
    def chunking(self) -> Chunking:
        return Chunking(**self.row.chunking)


#: Of a file with its document, if it has one, in the newest version.
STATUS: sa.ColumnElement[str] = sa.case(
    (col(StoreFile.state) == REFUSED, "failed"),
    (col(StoreFile.state) == CANCELLED, "cancelled"),
    (col(StoreFile.state) == WAITING, "in_progress"),
    (col(DocumentVersion.state) == "queued", "in_progress"),
    (col(DocumentVersion.state).in_(("failed", "cancelled")), col(DocumentVersion.state)),
    else_="completed",
)


def with_documents(*columns: Any) -> sa.Select[Any]:
    """Of the files that are in stores. One whose document is gone was taken out by whoever deleted that."""
    there = (
        col(Document.collection_id) == col(StoreFile.collection_id),
        col(Document.external_id) == col(StoreFile.file_id),
        col(Document.deleted_at).is_(None),
    )
    newest = (
        col(DocumentVersion.document_id) == col(Document.id),
        col(DocumentVersion.number) == col(Document.last_number),
    )
    told = sa.or_(col(StoreFile.state).in_((WAITING, REFUSED, CANCELLED)), col(Document.id).is_not(None))
    return (
        sa.select(*columns)
        .select_from(StoreFile)
        .outerjoin(Document, sa.and_(*there))
        .outerjoin(DocumentVersion, sa.and_(*newest))
        .where(col(StoreFile.state) != REMOVING, told)
    )


_SHOWN = with_documents(StoreFile, STATUS, col(Document.counted_bytes), col(DocumentVersion.id))


class StoreFiles:
    def __init__(self, parts: StoreParts, settling: Settling) -> None:
        self.parts, self.settling = parts, settling

    def for_tenant(self, context: TenantContext) -> TenantStoreFiles:
        return TenantStoreFiles(self, context)


class TenantStoreFiles:
    def __init__(self, files: StoreFiles, context: TenantContext) -> None:
        self._parts, self._settling, self._context = files.parts, files.settling, context

    def attach(self, store_id: str, wanted: WantedFile) -> ShownFile:
        """Into the store, where it becomes a document. One that is there as it is wanted stays as it is.

        Raise Forbidden, NotFound, StoreExpired, BudgetExhausted, QuotaExceeded, QueueFull or InvalidInput.
        """
        self.require_room([wanted])
        with self._parts.database.write(self._context) as session:
            store = store_row(session, self._context, store_id, self._parts.clock(), lock=True)
            self.enlist(session, store, [wanted])
        self._settling.bring(self._context)
        return self.get(store_id, wanted.file_id)

    def require_room(self, wanted: Sequence[WantedFile]) -> None:
        """Refuse as a whole what could not be brought, before anything is noted."""
        require_whole(self._context)
        documents, now = self._parts.documents, self._parts.clock()
        with self._parts.database.read(self._context) as session:
            sizes = sum(file.bytes for file in live_files(session, [one.file_id for one in wanted], now).values())
            waiting = select(sa.func.count()).select_from(StoreFile).where(col(StoreFile.state) == WAITING)
            if (session.scalar(waiting) or 0) + len(wanted) > MAX_WAITING:
                raise QueueFull("Too many files wait; bring more when some are done.", limit=MAX_WAITING, retry_after_s=5)
        if wanted:
            documents.for_tenant(self._context).require_room_for(len(wanted), sizes)
            documents.ledger.for_tenant(self._context, "ingest").require()

    def enlist(self, session: Session, store: VectorStore, wanted: Sequence[WantedFile]) -> None:
        """Note that the files are to be in the store, whose row the session holds."""
        now = self._parts.clock()
        live_files(session, [one.file_id for one in wanted], now)
        collection = session.get_one(Collection, store.collection_id)
        mine = col(StoreFile.collection_id) == store.collection_id
        ids = [one.file_id for one in wanted]
        known = {row.file_id: row for row in session.scalars(select(StoreFile).where(mine, col(StoreFile.file_id).in_(ids)))}
        for one in {one.file_id: one for one in wanted}.values():
            asked: dict[str, Any] = {
                "attributes": conformed(collection.attribute_types, check_attributes(one.attributes)),
                "labels": sorted({*one.labels}),
                "chunking": asdict(self._chunking(collection, one)),
            }
            row = known.get(one.file_id)
            if row is None:
                row = StoreFile(
                    tenant_id=store.tenant_id,
                    collection_id=store.collection_id,
                    file_id=one.file_id,
                    **asked,
                    created_at=now,
                    changed_at=now,
                )
            elif row.state == REMOVING:
                raise Unavailable("The file is just being removed from the store.", field="file_id", retry_after_s=1)
            else:
                again(row, now, **asked)
            session.add(row)
        store.last_active_at = now
        session.add(store)

    def _chunking(self, collection: Collection, wanted: WantedFile) -> Chunking:
        profiles = self._parts.documents.collections.profiles
        if wanted.sizes is None:
            return profiles.get(collection.profile).chunking
        return profiles.sized(collection.profile, *wanted.sizes)

    def list(
        self, store_id: str, wish: PageWish, *, status: str | None = None, among: Sequence[str] | None = None
    ) -> tuple[Sequence[ShownFile], bool]:
        """By file. `among`: only these. What the reader's labels hide leaves pages shorter."""
        with self._parts.database.read(self._context) as session:
            store = store_row(session, self._context, store_id, self._parts.clock(), active=False)
            statement = _SHOWN.where(col(StoreFile.collection_id) == store.collection_id)
            if among is not None:
                statement = statement.where(col(StoreFile.file_id).in_(among))
            if status is not None:
                statement = statement.where(STATUS.in_((status,)))
            rows, more = page_of(session, statement, col(StoreFile.file_id), wish)
            return self._shown(session, store_id, rows), more

    def get(self, store_id: str, file_id: str) -> ShownFile:
        with self._parts.database.read(self._context) as session:
            store = store_row(session, self._context, store_id, self._parts.clock(), active=False)
            return self._get(session, store, file_id)

    def _get(self, session: Session, store: VectorStore, file_id: str) -> ShownFile:
        mine = (col(StoreFile.collection_id) == store.collection_id, col(StoreFile.file_id) == file_id)
        shown = self._shown(session, store.id, session.execute(_SHOWN.where(*mine)).all())
        if not shown:
            raise NotFound("There is no such file in the vector store.", field="file_id")
        return shown[0]

    def _shown(self, session: Session, store_id: str, rows: Sequence[Any]) -> Sequence[ShownFile]:
        held = [row for row in rows if self._context.labels is None or self._context.labels.issuperset(row[0].labels)]
        failed = [row[3] for row in held if row[1] == "failed" and row[3] is not None]
        jobs = select(Job).where(col(Job.version_id).in_(failed)).order_by(col(Job.id)) if failed else None
        errors = {} if jobs is None else {job.version_id: _fault(job) for job in session.scalars(jobs)}
        return [
            ShownFile(row, store_id, status, size or 0, _error(row, errors.get(version)) if status == "failed" else None)
            for row, status, size, version in held
        ]

    def update(self, store_id: str, file_id: str, attributes: Mapping[str, Value]) -> ShownFile:
        """With other attributes; texts stay as they are, so nothing is embedded. They are found by them a moment later."""
        require_whole(self._context)
        now = self._parts.clock()
        with self._parts.database.write(self._context) as session:
            store = store_row(session, self._context, store_id, now, lock=True)
            live_files(session, [file_id], now)  # who deletes it waits, or was first: it must not be brought again
            row = self._get(session, store, file_id).row
            types = session.get_one(Collection, store.collection_id).attribute_types
            again(row, now, attributes=conformed(types, check_attributes(attributes)))
            session.add(row)
        self._settling.bring(self._context)
        return self.get(store_id, file_id)

    def remove(self, store_id: str, file_id: str) -> None:
        """Out of the store; the file itself stays."""
        require_whole(self._context)
        now = self._parts.clock()
        with self._parts.database.write(self._context) as session:
            store = store_row(session, self._context, store_id, now, active=False, lock=True)
            row = self._get(session, store, file_id).row
            take_out(session, now, col(StoreFile.collection_id) == row.collection_id, col(StoreFile.file_id) == file_id)
        self._settling.settle(self._context)

    def text(self, store_id: str, file_id: str) -> str:
        """As it was read. NotFound until it is found by it."""
        document = (
            select(col(Document.id))
            .where(col(Document.external_id) == file_id, col(Document.deleted_at).is_(None))
            .join(VectorStore, col(VectorStore.collection_id) == col(Document.collection_id))
            .where(col(VectorStore.id) == store_id)
        )
        self.get(store_id, file_id)
        with self._parts.database.read(self._context) as session:
            document_id = session.scalars(document).first()
        return self._parts.documents.for_tenant(self._context).text(document_id or "")[1]


def again(row: StoreFile, now: int, **asked: Any) -> None:
    """To be brought once more; what is there already is found to be so then."""
    row.sqlmodel_update(asked)
    row.state, row.revision, row.changed_at = WAITING, row.revision + 1, now
    row.error_code = row.error_detail = None


def _fault(job: Job) -> tuple[str, str]:
    return _FAULTS.get(job.error_code or "", "server_error"), job.error_detail or "The file could not be processed."


def _error(row: StoreFile, of_job: tuple[str, str] | None) -> tuple[str, str]:
    if row.error_code is not None:
        return row.error_code, row.error_detail or ""
    return of_job or ("server_error", "The file could not be processed.")
