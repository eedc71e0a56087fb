"""Files as they are uploaded: kept, listed, given back. What becomes of them in stores is not this module's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session
from sqlmodel import col, select

from config.database import may_be_committed
from config.errors import InvalidInput, TooLarge, Unavailable
from config.ids import new_id
from ingestion.stores.paging import PageWish, page_of
from ingestion.stores.parts import DAY_MS, StoreParts, live_files, require_whole, take_out
from ingestion.stores.settling import Settling
from ingestion.stores.tables import StoredFile, StoreFile
from tenants.context import TenantContext
from tenants.limits.quotas import UNLIMITED, Counts

PURPOSES = ("assistants", "batch", "fine-tune", "vision", "user_data", "evals")
MAX_NAME_CHARS = 512
BATCH_MS = 30 * DAY_MS  #: how long files of the purpose `batch` are kept, unless something else is asked for


@dataclass(frozen=True, slots=True)
class Upload:
    name: str
    purpose: str
    content: bytes
    lifetime_ms: int | None = None


class Files:
    def __init__(self, parts: StoreParts, settling: Settling) -> None:
        self.parts, self.settling = parts, settling

    def for_tenant(self, context: TenantContext) -> TenantFiles:
        return TenantFiles(self, context)


class TenantFiles:
    """Every method raises Forbidden for a key with bounds."""

    def __init__(self, files: Files, context: TenantContext) -> None:
        require_whole(context)
        self._parts, self._settling, self._context = files.parts, files.settling, context

    def create(self, upload: Upload, record: Callable[[Session, StoredFile], None] | None = None) -> StoredFile:
        """Raise InvalidInput, TooLarge, QuotaExceeded, QueueFull, Overloaded or StorageFull; then nothing is kept."""
        documents = self._parts.documents
        most = documents.for_tenant(self._context).max_bytes()
        if not upload.content or not 1 <= len(upload.name) <= MAX_NAME_CHARS:
            detail = f"A file has content, and a name of 1 to {MAX_NAME_CHARS} characters."
            raise InvalidInput(detail, field="file", limit=MAX_NAME_CHARS)
        if len(upload.content) > most:
            raise TooLarge(f"A file has at most {most} bytes.", field="file", limit=most)
        row = self._row(upload)
        with self._parts.database.read(self._context) as session:
            documents.limits.quotas.require_room(session, row.tenant_id, Counts(bytes=row.bytes))
            documents.queue.require_room(session, row.tenant_id)
        row.blob = self._parts.blobs.put(row.id, upload.content)
        try:
            with self._parts.database.write(self._context) as session:
                session.add(row)
                documents.limits.quotas.add(session, row.tenant_id, Counts(bytes=row.bytes))
                session.flush()
                if record is not None:
                    record(session, row)
                if not self._parts.blobs.path(row.blob).exists():
                    raise Unavailable("The request was interrupted; send it again.", retry_after_s=1)
        except BaseException as error:
            if not may_be_committed(error):
                self._parts.blobs.delete(row.blob)
            raise
        return row

    def _row(self, upload: Upload) -> StoredFile:
        now = self._parts.clock()
        lifetime = upload.lifetime_ms or (BATCH_MS if upload.purpose == "batch" else None)
        return StoredFile(
            id=new_id("file").replace("_", "-"),
            tenant_id=self._context.tenant_id,
            name=upload.name,
            purpose=upload.purpose,
            bytes=len(upload.content),
            blob="",
            created_at=now,
            expires_at=None if lifetime is None else now + lifetime,
        )

    def get(self, file_id: str) -> StoredFile:
        with self._parts.database.read(self._context) as session:
            return live_files(session, [file_id], self._parts.clock())[file_id]

    def list(self, purpose: str | None, wish: PageWish) -> tuple[Sequence[StoredFile], bool]:
        lives = sa.or_(col(StoredFile.expires_at).is_(None), col(StoredFile.expires_at) > self._parts.clock())
        statement = select(StoredFile).where(col(StoredFile.deleted_at).is_(None), lives)
        if purpose is not None:
            statement = statement.where(col(StoredFile.purpose) == purpose)
        with self._parts.database.read(self._context) as session:
            rows, more = page_of(session, statement, col(StoredFile.id), wish)
        return [row[0] for row in rows], more

    def content(self, file_id: str) -> tuple[StoredFile, bytes]:
        row = self.get(file_id)
        return row, self._parts.blobs.get(row.blob)

    def delete(self, file_id: str) -> None:
        """Gone from every list when this returns, and with it from every store; contents and vectors follow."""
        with self._parts.database.write(self._context) as session:
            row = live_files(session, [file_id], self._parts.clock(), alone=True)[file_id]
            give_up(session, row, self._parts.clock())
        self._settling.settle(self._context)


def give_up(session: Session, file: StoredFile, now: int) -> None:
    """The file, which the session holds, is gone, and is to go from every store."""
    file.deleted_at = now
    session.add(file)
    take_out(session, now, col(StoreFile.file_id) == file.id)
    UNLIMITED.add(session, file.tenant_id, Counts(bytes=-file.bytes))
