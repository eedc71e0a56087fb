"""Stored contents and the versions that name them against each other, folder by folder."""

from __future__ import annotations

from collections.abc import Iterator

import sqlalchemy as sa
from sqlalchemy.orm import Session
from sqlalchemy.sql.elements import SQLCoreOperations
from sqlmodel import col, select

from ingestion.blobs import FOLDERS
from ingestion.repair.parts import Parts
from ingestion.repair.report import Finding
from ingestion.stores.tables import StoredFile
from rag.corpus import Document, DocumentVersion

MARGIN_MS = 1_000  # between the clocks of processes and of the disk; less than a process takes to start
NEEDED = ("queued", "live")  # states of versions whose contents must exist


def horizon(parts: Parts) -> int:
    """Contents older than this were written before any living api started, so no request is about to name them.

    What a worker writes belongs to a version that has a row already.
    """
    started = [instance.started_at for instance in parts.instances.living() if instance.kind == "api"]
    return min([*started, parts.clock()]) - MARGIN_MS


def check_blobs(parts: Parts, folder: str, repair: bool, before: int) -> Iterator[Finding]:
    """Files are listed before rows are read: whoever wrote a row has written its file before."""
    files = parts.blobs.listed(folder)
    with parts.database.system_read() as session:  # one for both: there are 256 folders, and most are empty
        versions, named = _versions(session, folder), _files(session, folder)
    named |= {name for version in versions for name in (version.content_blob, version.text_blob) if name}
    # A waiting version's text is named only after it was written, and a repeated step takes the one that is there.
    waiting = {version.content_blob.partition("-")[0] for version in versions if version.state == "queued"}
    for name, modified in files.items():
        if name not in named and modified < before and not (name.partition("-")[0] in waiting and _is_whole(name)):
            if repair:
                parts.blobs.delete(name)
            yield Finding("blob_without_version", None, repair, subject=name)
    for version in versions:
        missing = [name for name in (version.content_blob, version.text_blob) if name and name not in files]
        if version.state in NEEDED and missing and _still_missing(parts, version):
            yield Finding("version_without_blob", version.tenant_id, False, len(missing), subject=version.document_id)


def _is_whole(name: str) -> bool:
    return "." not in name


def _versions(session: Session, folder: str) -> list[DocumentVersion]:
    """Those whose contents lie in the folder; both names of a version begin alike."""
    conditions = _within(col(DocumentVersion.content_blob), folder)
    columns = (DocumentVersion.id, DocumentVersion.tenant_id, DocumentVersion.document_id, DocumentVersion.state)
    names = (DocumentVersion.content_blob, DocumentVersion.text_blob)
    rows = session.execute(sa.select(*map(col, columns), *map(col, names)).where(*conditions))
    return [DocumentVersion(**row._mapping) for row in rows]


def _files(session: Session, folder: str) -> set[str]:
    """Contents of uploaded files."""
    return {*session.scalars(select(col(StoredFile.blob)).where(*_within(col(StoredFile.blob), folder)))}


def _within(name: SQLCoreOperations[str], folder: str) -> list[sa.ColumnElement[bool]]:
    index = FOLDERS.index(folder)
    # Two characters are compared, not names: how hyphens sort depends on the database's collation, digits do not.
    conditions = [name >= folder]
    if index + 1 < len(FOLDERS):
        conditions.append(name < FOLDERS[index + 1])
    return conditions


def _still_missing(parts: Parts, version: DocumentVersion) -> bool:
    """Not if it was replaced or deleted since, with the contents that it named then."""
    statement = (
        select(DocumentVersion)
        .join(Document, col(Document.id) == col(DocumentVersion.document_id))
        .where(col(DocumentVersion.id) == version.id, col(Document.deleted_at).is_(None))
    )
    with parts.database.system_read() as session:
        now = session.scalars(statement).first()
    if now is None or now.state not in NEEDED:
        return False
    return any(name and not parts.blobs.path(name).exists() for name in (now.content_blob, now.text_blob))
