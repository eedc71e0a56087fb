"""Carries out what stores were told: waiting files become documents, removed ones lose theirs, deleted stores their collection.

Every change is first noted on a row, in the transaction that is answered. What is done here follows from these notes, so it
may die at any instant and be done by two at once: by the request that noted it, and by whoever keeps house.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import sqlalchemy as sa
from sqlalchemy.orm import Session
from sqlmodel import col, select

from config.errors import CarrelError, Conflict, InvalidInput, NotFound, Unavailable, UnsupportedMedia
from ingestion.intake.documents import Submitted
from ingestion.intake.submission import Submission
from ingestion.stores.parts import DAY_MS, StoreParts
from ingestion.stores.tables import BROUGHT, REFUSED, REMOVING, WAITING, FileBatch, StoredFile, StoreFile, VectorStore
from rag.corpus import Document
from rag.profiles import Chunking
from tenants.context import TenantContext

PAGE = 32  # files in one transaction, and of MAX_BYTES together but for a single one
MAX_BYTES = 16 * 1024 * 1024
REMOVED = 100  # files, or documents of a store, whose end one request waits for; the others follow
_NO_SYNC = {"synchronize_session": False}
Waiting = tuple[StoreFile, StoredFile, str]


class Settling:
    def __init__(self, parts: StoreParts) -> None:
        self._parts = parts

    def settle(self, context: TenantContext, *, quiet_ms: int = 0) -> None:
        """Everything of the tenant that is to be done; `quiet_ms`: of what waits, only what has waited for so long."""
        self.bring(context, quiet_ms=quiet_ms)
        self._remove_files(context)
        self._empty_stores(context)

    def bring(self, context: TenantContext, *, quiet_ms: int = 0) -> None:
        """Waiting files become documents until none is left, or the queue takes no more."""
        after = ("", "")
        while waiting := self._waiting(context, after, quiet_ms):
            if not self._bring(context, waiting):
                return
            after = (waiting[-1][0].collection_id, waiting[-1][0].file_id)

    def _waiting(self, context: TenantContext, after: tuple[str, str], quiet_ms: int) -> list[Waiting]:
        place = sa.tuple_(col(StoreFile.collection_id), col(StoreFile.file_id))
        statement = (
            select(StoreFile, StoredFile, VectorStore.id)
            .join(StoredFile, col(StoredFile.id) == col(StoreFile.file_id))
            .join(VectorStore, col(VectorStore.collection_id) == col(StoreFile.collection_id))
            .where(
                col(StoreFile.state) == WAITING,
                col(StoreFile.changed_at) <= self._parts.clock() - quiet_ms,
                col(VectorStore.deleted_at).is_(None),
                place > after,
            )
            .order_by(col(StoreFile.collection_id), col(StoreFile.file_id))
            .limit(PAGE)
        )
        with self._parts.database.read(context) as session:
            rows = [(row[0], row[1], row[2]) for row in session.execute(statement)]
        total, found = 0, list[Waiting]()
        for row in rows:
            total += row[1].bytes
            if found and total > MAX_BYTES:
                break
            found.append(row)
        return found

    def _bring(self, context: TenantContext, waiting: Sequence[Waiting]) -> bool:
        """Whether to go on."""
        # One store after another: a batch knows its documents by their names alone, and a file may be in several stores.
        stores = dict.fromkeys(store for _, _, store in waiting)
        return all(self._bring_into(context, [one for one in waiting if one[2] == store]) for store in stores)

    def _bring_into(self, context: TenantContext, waiting: Sequence[Waiting]) -> bool:
        rows = {row.file_id: row for row, _, _ in waiting}

        def record(session: Session, kept: Sequence[Submitted]) -> None:
            for submitted in kept:
                if not _mark(session, rows[submitted.shown.document.external_id], BROUGHT):
                    raise Unavailable("The file was changed or removed meanwhile.", retry_after_s=1)

        items = [self._submission(*one) for one in waiting]
        outcomes = self._parts.documents.for_tenant(context).take(items, most_refused=len(items) + 1, record=record)
        for (row, _, _), outcome in zip(waiting, outcomes, strict=False):
            if isinstance(outcome, CarrelError) and outcome.retryable:
                return False
            with self._parts.database.write(context) as session:
                _mark(session, row, *_told(outcome))
        return True

    def _submission(self, row: StoreFile, file: StoredFile, store_id: str) -> Submission | CarrelError:
        try:
            content = self._parts.blobs.get(file.blob)
        except FileNotFoundError:
            return NotFound("The file's content is missing.")
        return Submission(
            content=content,
            file_name=file.name,
            collection=store_id,
            external_id=row.file_id,
            source=file.name,
            attributes=row.attributes,
            labels=row.labels,
            chunking=Chunking(**row.chunking),
        )

    def _remove_files(self, context: TenantContext) -> None:
        """Files that leave their stores."""
        leaving = select(StoreFile).where(col(StoreFile.state) == REMOVING).limit(REMOVED)
        with self._parts.database.read(context) as session:
            rows = session.scalars(leaving).all()
        for row in rows:
            self._delete_documents(
                context, col(Document.collection_id) == row.collection_id, col(Document.external_id) == row.file_id
            )
            with self._parts.database.write(context) as session:
                session.execute(sa.delete(StoreFile).where(*_same(row)), execution_options=_NO_SYNC)

    def purge_files(self, context: TenantContext) -> None:
        """What is left of deleted files that are in no store any more."""
        left = sa.exists().where(col(StoreFile.file_id) == col(StoredFile.id))
        gone = select(StoredFile).where(col(StoredFile.deleted_at).is_not(None), ~left).limit(REMOVED)
        with self._parts.database.read(context) as session:
            files = session.scalars(gone).all()
        for file in files:
            self._parts.blobs.delete(file.blob)  # first: while the row is there, somebody comes back for it
            with self._parts.database.write(context) as session:
                session.execute(sa.delete(StoredFile).where(col(StoredFile.id) == file.id), execution_options=_NO_SYNC)

    def _delete_documents(self, context: TenantContext, *which: sa.ColumnElement[bool]) -> int:
        """By ordinary deletes, a job each; how many there were."""
        found = select(col(Document.id)).where(*which, col(Document.deleted_at).is_(None)).limit(REMOVED)
        with self._parts.database.read(context) as session:
            ids = session.scalars(found).all()
        documents = self._parts.documents.for_tenant(context)
        for document_id in ids:
            with suppress(NotFound):  # by another who does the same
                documents.delete(document_id)
        return len(ids)

    def _empty_stores(self, context: TenantContext) -> None:
        with self._parts.database.read(context) as session:
            stores = session.scalars(select(VectorStore).where(ended(self._parts.clock())).limit(REMOVED)).all()
        for store in stores:
            if not self._delete_documents(context, col(Document.collection_id) == store.collection_id):
                self._end(context, store, gone=store.deleted_at is not None)

    def _end(self, context: TenantContext, store: VectorStore, *, gone: bool) -> None:
        """It has no documents any more, but perhaps rows of them, which their jobs take away."""
        with suppress(Conflict, NotFound):
            if gone:
                self._parts.removal.remove(context, store.id)
            else:
                self._clear(context, store)

    def _clear(self, context: TenantContext, store: VectorStore) -> None:
        """Raise Conflict if it has a document after all: whoever brings one marks its file in the same transaction, and so has
        done it before the files go, or cannot any more."""
        with self._parts.database.write(context) as session:
            row = session.get(VectorStore, store.id, with_for_update=True)
            for table in (StoreFile, FileBatch):
                mine = col(table.collection_id) == store.collection_id
                session.execute(sa.delete(table).where(mine), execution_options=_NO_SYNC)
            left = select(col(Document.id)).where(
                col(Document.collection_id) == store.collection_id, col(Document.deleted_at).is_(None)
            )
            if session.scalar(left.limit(1)) is not None:
                raise Conflict("A file was brought meanwhile.")
            if row is not None:
                row.cleared_at = self._parts.clock()
                session.add(row)


def ended(now: int) -> sa.ColumnElement[bool]:
    """Stores that are to be emptied: deleted ones, and expired ones that were not yet."""
    lifetime = sa.cast(col(VectorStore.expires_days), sa.BigInteger) * DAY_MS  # 25 days are more than 32 bits hold
    over = col(VectorStore.last_active_at) + lifetime <= now
    return sa.or_(col(VectorStore.deleted_at).is_not(None), sa.and_(col(VectorStore.cleared_at).is_(None), over))


def _same(row: StoreFile) -> Sequence[sa.ColumnElement[bool]]:
    """As it was read: not if it was changed since."""
    return (
        col(StoreFile.collection_id) == row.collection_id,
        col(StoreFile.file_id) == row.file_id,
        col(StoreFile.revision) == row.revision,
    )


def _mark(session: Session, row: StoreFile, state: str, code: str | None = None, detail: str | None = None) -> bool:
    changed = sa.update(StoreFile).where(*_same(row), col(StoreFile.state).in_((WAITING, state)))
    result = session.execute(changed.values(state=state, error_code=code, error_detail=detail), execution_options=_NO_SYNC)
    return bool(result.rowcount)  # type: ignore[attr-defined]


def _told(outcome: Submitted | CarrelError) -> tuple[str, str | None, str | None]:
    if not isinstance(outcome, CarrelError):
        return BROUGHT, None, None
    if isinstance(outcome, UnsupportedMedia):
        return REFUSED, "unsupported_file", outcome.detail
    return REFUSED, "invalid_file" if isinstance(outcome, InvalidInput) else "server_error", outcome.detail
