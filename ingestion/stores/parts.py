"""What the handles of files and stores share: where things are, and the rules of who may write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import sqlalchemy as sa
from sqlalchemy.orm import Session
from sqlmodel import col, select

from config.clock import Clock
from config.database import Database
from config.errors import Forbidden, NotFound, StoreExpired
from ingestion.blobs import BlobStore
from ingestion.intake.bulk import BulkDocuments
from ingestion.jobs.jobs import Jobs
from ingestion.removal.collections import Removal
from ingestion.stores.tables import REMOVING, StoredFile, StoreFile, VectorStore
from rag.filters import Value
from tenants.context import TenantContext

DAY_MS = 24 * 3600 * 1000


@dataclass(frozen=True, slots=True)
class StoreParts:
    database: Database
    clock: Clock
    blobs: BlobStore
    documents: BulkDocuments
    jobs: Jobs
    removal: Removal


@dataclass(frozen=True, slots=True)
class WantedFile:
    """A file that is to be in a store."""

    file_id: str
    attributes: Mapping[str, Value] = field(default_factory=dict)
    sizes: tuple[int, int] | None = None  #: tokens of a chunk and of its overlap; None: as the collection's profile says
    labels: Sequence[str] = ()


def require_whole(context: TenantContext) -> None:
    """Files are the whole tenant's, and so is what is made of them."""
    if context.collections is not None or context.labels is not None:
        raise Forbidden("Files, and changing vector stores, need a key without bounds of collections and labels.")


def expires_at(store: VectorStore) -> int | None:
    return None if store.expires_days is None else store.last_active_at + store.expires_days * DAY_MS


def is_expired(store: VectorStore, now: int) -> bool:
    at = expires_at(store)
    return store.cleared_at is not None or (at is not None and at <= now)


def store_row(
    session: Session, context: TenantContext, store_id: str, now: int, *, active: bool = True, lock: bool = False
) -> VectorStore:
    """NotFound alike for one that is missing, foreign, deleted or out of the key's bounds; StoreExpired where `active`."""
    statement = select(VectorStore).where(col(VectorStore.id) == store_id, col(VectorStore.deleted_at).is_(None))
    row = session.scalars(statement.with_for_update() if lock else statement).first()
    if row is None or (context.collections is not None and row.id not in context.collections):
        raise NotFound("There is no such vector store.", field="vector_store_id")
    if active and is_expired(row, now):
        raise StoreExpired("The vector store has expired.", field="vector_store_id")
    return row


def live_files(session: Session, file_ids: Sequence[str], now: int, *, alone: bool = False) -> dict[str, StoredFile]:
    """Each of the files, held until the transaction ends; raise NotFound for one that is missing, foreign or gone.

    `alone`: by nobody else meanwhile, for whoever changes it: two that only shared it would wait for each other.
    """
    statement = select(StoredFile).where(col(StoredFile.id).in_(file_ids), col(StoredFile.deleted_at).is_(None))
    rows = session.scalars(statement.order_by(col(StoredFile.id)).with_for_update(read=not alone))
    found = {row.id: row for row in rows if row.expires_at is None or row.expires_at > now}
    if len(found) < len({*file_ids}):
        raise NotFound("There is no such file.", field="file_id")
    return found


def take_out(session: Session, now: int, *which: sa.ColumnElement[bool]) -> None:
    """These files are to leave their stores, whatever else was to become of them there."""
    leaving = sa.update(StoreFile).where(*which)
    values = {"state": REMOVING, "revision": col(StoreFile.revision) + 1, "changed_at": now}
    session.execute(leaving.values(values), execution_options={"synchronize_session": False})
