"""Vector stores: made, shown with what is in them, changed, deleted, and searched while their policy lets them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session
from sqlmodel import col, select

from config.ids import new_id
from config.profiles import STANDARD
from ingestion.stores.members import STATUS, STATUSES, StoreFiles, with_documents
from ingestion.stores.paging import PageWish, page_of
from ingestion.stores.parts import StoreParts, WantedFile, expires_at, is_expired, require_whole, store_row
from ingestion.stores.settling import Settling
from ingestion.stores.tables import StoredFile, StoreFile, VectorStore
from rag.corpus import Collection, Document
from tenants.context import TenantContext

ACTIVE_MS = 60_000  #: how often at most a search is noted: expiry is in days


@dataclass(frozen=True, slots=True)
class StoreWish:
    name: str = ""
    description: str | None = None
    notes: Mapping[str, str] | None = None
    expires_days: int | None = None
    profile: str = STANDARD


@dataclass(frozen=True, slots=True)
class ShownStore:
    row: VectorStore
    counts: Mapping[str, int]  #: files by status
    usage_bytes: int
    expired: bool

    @property
    def expires_at(self) -> int | None:
        return expires_at(self.row)

    @property
    def status(self) -> str:
        return "expired" if self.expired else "in_progress" if self.counts.get("in_progress") else "completed"


class Stores:
    def __init__(self, parts: StoreParts, files: StoreFiles, settling: Settling) -> None:
        self.parts, self.files, self.settling = parts, files, settling

    def for_tenant(self, context: TenantContext) -> TenantStores:
        return TenantStores(self, context)


class TenantStores:
    def __init__(self, stores: Stores, context: TenantContext) -> None:
        self._parts, self._settling, self._context = stores.parts, stores.settling, context
        self._files = stores.files.for_tenant(context)

    def create(
        self,
        wish: StoreWish,
        files: Sequence[WantedFile] = (),
        record: Callable[[Session, ShownStore], None] | None = None,
    ) -> ShownStore:
        """With its collection, in one transaction. Raise as `TenantStoreFiles.attach` does, NotInPlan."""
        self._files.require_room(files)
        now, made = self._parts.clock(), []

        def add(session: Session, collection: Collection) -> None:
            row = VectorStore(
                id=collection.name,
                tenant_id=collection.tenant_id,
                collection_id=collection.id,
                name=wish.name,
                description=wish.description,
                notes=dict(wish.notes or {}),
                expires_days=wish.expires_days,
                last_active_at=now,
                created_at=now,
            )
            session.add(row)
            session.flush()
            self._files.enlist(session, row, files)
            session.flush()
            made.append(self._shown(session, [row])[0])
            if record is not None:
                record(session, made[-1])

        collections = self._parts.documents.collections.for_tenant(self._context)
        collections.create(new_id("vs"), profile=wish.profile, record=add)
        if files:
            self._settling.bring(self._context)
        return made[-1]

    def list(self, wish: PageWish) -> tuple[Sequence[ShownStore], bool]:
        statement = sa.select(VectorStore).where(col(VectorStore.deleted_at).is_(None))
        if self._context.collections is not None:
            statement = statement.where(col(VectorStore.id).in_(self._context.collections))
        with self._parts.database.read(self._context) as session:
            rows, more = page_of(session, statement, col(VectorStore.id), wish)
            return self._shown(session, [row[0] for row in rows]), more

    def get(self, store_id: str) -> ShownStore:
        with self._parts.database.read(self._context) as session:
            return self._shown(session, [store_row(session, self._context, store_id, self._parts.clock(), active=False)])[0]

    def update(self, store_id: str, changes: Mapping[str, Any]) -> ShownStore:
        """`changes`: of the fields of its row. Raise StoreExpired: what is expired does not come back."""
        require_whole(self._context)
        with self._parts.database.write(self._context) as session:
            row = store_row(session, self._context, store_id, self._parts.clock(), lock=True)
            row.sqlmodel_update(dict(changes))
            session.add(row)
            session.flush()
            return self._shown(session, [row])[0]

    def delete(self, store_id: str) -> None:
        """Gone when this returns; its documents and its collection follow. Its files stay."""
        require_whole(self._context)
        with self._parts.database.write(self._context) as session:
            row = store_row(session, self._context, store_id, self._parts.clock(), active=False, lock=True)
            row.deleted_at = self._parts.clock()
            session.add(row)
        self._settling.settle(self._context)

    def require_searchable(self, store_id: str) -> None:
        """Raise NotFound or StoreExpired; else note, now and then, that the store is in use."""
        now = self._parts.clock()
        with self._parts.database.read(self._context) as session:
            row = store_row(session, self._context, store_id, now)
        if row.expires_days is None or row.last_active_at > now - ACTIVE_MS:
            return
        with self._parts.database.write(self._context) as session:
            session.execute(
                sa.update(VectorStore).where(col(VectorStore.id) == row.id).values(last_active_at=now),
                execution_options={"synchronize_session": False},
            )

    def names(self, file_ids: Sequence[str]) -> dict[str, str]:
        """Names of those that are files of the tenant."""
        with self._parts.database.read(self._context) as session:
            rows = session.execute(select(col(StoredFile.id), col(StoredFile.name)).where(col(StoredFile.id).in_(file_ids)))
            return {row[0]: row[1] for row in rows}

    def _shown(self, session: Session, rows: Sequence[VectorStore]) -> Sequence[ShownStore]:
        now = self._parts.clock()
        counts = _counts(session, [row.collection_id for row in rows])
        shown = []
        for row in rows:
            of_row = counts.get(row.collection_id, {})
            by_status = {status: of_row.get(status, (0, 0))[0] for status in STATUSES}
            usage = sum(size for _, size in of_row.values())
            shown.append(ShownStore(row, by_status, usage, is_expired(row, now)))
        return shown


def _counts(session: Session, collection_ids: Sequence[str]) -> dict[str, dict[str, tuple[int, int]]]:
    """Files and bytes by collection and status."""
    size = sa.func.coalesce(sa.func.sum(col(Document.counted_bytes)), 0)
    columns = (col(StoreFile.collection_id), STATUS, sa.func.count(), size)
    statement = with_documents(*columns).where(col(StoreFile.collection_id).in_(collection_ids))
    found: dict[str, dict[str, tuple[int, int]]] = {}
    for collection_id, status, count, total in session.execute(statement.group_by(columns[0], STATUS)):
        found.setdefault(collection_id, {})[status] = (int(count), int(total))
    return found
