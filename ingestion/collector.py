"""Removes points, chunks and blobs that nothing uses any more, without ever removing one that a newer version took up.

A chunk row is what a new version looks at to know whether its point exists. So a point is deleted only inside a transaction
that holds its row, and only if the row was marked as not indexed in an earlier one: whatever instant this dies at, a row
that says `indexed` has its point.
"""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.orm import Session
from sqlmodel import col, select

from config.database import Database
from ingestion.blobs import BlobStore
from rag.corpus import Chunk, Collection, Document, DocumentVersion, SpaceRow, VersionChunk
from rag.store.base import Space, TenantVectors, VectorStore
from tenants.context import TenantContext

PAGE = 500
DEAD = ("superseded", "failed", "cancelled")


class Collector:
    def __init__(self, database: Database, blobs: BlobStore, store: VectorStore) -> None:
        self._database, self._blobs, self._store = database, blobs, store

    def collect(self, context: TenantContext, collection_id: str, document_id: str, version_id: str | None) -> None:
        """`version_id`: the job's own, whose blobs go with a deleted document even if its row is gone already."""
        with self._database.read(context) as session:
            document = session.get(Document, document_id)
            vectors = self._store.for_tenant(context, _space_of(session, collection_id))
        if document is None or document.deleted_at is not None:
            vectors.delete_document(document_id)
            self._purge(context, document_id)
            self._blobs.delete_owned(version_id or "")
        else:
            self._drop_dead_versions(context, document_id)
            self._drop_unused_chunks(context, document_id, vectors)

    def _purge(self, context: TenantContext, document_id: str) -> None:
        with self._database.write(context) as session:
            versions = session.scalars(select(DocumentVersion).where(col(DocumentVersion.document_id) == document_id)).all()
            ids = [version.id for version in versions]
            session.execute(sa.delete(VersionChunk).where(col(VersionChunk.version_id).in_(ids)), execution_options=_NO_SYNC)
            session.execute(sa.delete(Chunk).where(col(Chunk.document_id) == document_id), execution_options=_NO_SYNC)
            session.execute(
                sa.delete(DocumentVersion).where(col(DocumentVersion.document_id) == document_id),
                execution_options=_NO_SYNC,
            )
            session.execute(sa.delete(Document).where(col(Document.id) == document_id), execution_options=_NO_SYNC)
            # Inside the transaction: should this die between, the rows that name the blobs are still there.
            self._delete_blobs(versions)

    def _drop_dead_versions(self, context: TenantContext, document_id: str) -> None:
        with self._database.write(context) as session:
            dead = session.scalars(
                select(DocumentVersion).where(
                    col(DocumentVersion.document_id) == document_id,
                    col(DocumentVersion.state).in_(DEAD),
                    col(DocumentVersion.content_blob) != "",
                )
            ).all()
            for version in dead:
                session.execute(
                    sa.delete(VersionChunk).where(col(VersionChunk.version_id) == version.id),
                    execution_options=_NO_SYNC,
                )
            self._delete_blobs(dead)
            for version in dead:
                version.content_blob, version.text_blob = "", None
                session.add(version)

    def _drop_unused_chunks(self, context: TenantContext, document_id: str, vectors: TenantVectors) -> None:
        with self._database.write(context) as session:
            session.execute(sa.update(Chunk).where(*_unused(document_id)).values(indexed=False), execution_options=_NO_SYNC)
        page = select(col(Chunk.id)).where(*_unused(document_id), col(Chunk.indexed).is_(False)).limit(PAGE)
        while True:
            with self._database.write(context) as session:
                ids = [*session.scalars(page.with_for_update())]
                if not ids:
                    return
                vectors.delete_points(ids)
                session.execute(sa.delete(Chunk).where(col(Chunk.id).in_(ids)), execution_options=_NO_SYNC)

    def _delete_blobs(self, versions: Sequence[DocumentVersion]) -> None:
        for version in versions:
            self._blobs.delete_owned(version.id)


_NO_SYNC = {"synchronize_session": False}


def _unused(document_id: str) -> tuple[sa.ColumnElement[bool], ...]:
    used = sa.exists().where(col(VersionChunk.chunk_id) == col(Chunk.id))
    return (col(Chunk.document_id) == document_id, ~used)


def _space_of(session: Session, collection_id: str) -> Space:
    collection = session.get_one(Collection, collection_id)
    row = session.get_one(SpaceRow, collection.space_id)
    return Space(row.id, row.dimensions)
