"""What each document is counted as in its tenant's quotas, noted on its own row.

A document counts while it has a version that waits or is live, with the bytes of those and the chunks of the live one. When a
transaction that changed a document commits, what it counts as is worked out anew, and the tenant's counts get the difference.
So it does not matter how often, or on which way, a version comes to its end.
"""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.orm import Session
from sqlmodel import col

from config.commits import at_commit
from config.database import ROWS_BY_KEY
from rag.corpus import Document, DocumentVersion, VersionChunk
from tenants.limits.quotas import NOTHING, UNLIMITED, Counts, Quotas

COUNTING = ("queued", "live")  # states of versions
_NO_SYNC = {"synchronize_session": False}


def follow(session: Session, document: Document, quotas: Quotas = UNLIMITED) -> None:
    """Count the document, whose row the session holds or makes, as it is when the session commits.

    Then it raises QuotaExceeded, if `quotas` are given and their limits passed.
    """
    work = at_commit(session, _Followed)
    work.ids[document.id] = document.tenant_id
    if quotas is not UNLIMITED:
        work.quotas = quotas


class _Followed:
    def __init__(self, session: Session) -> None:
        self._session, self.quotas = session, UNLIMITED
        self.ids: dict[str, str] = {}  #: of documents, with their tenant

    def __call__(self) -> None:
        for row in self._session.execute(_BY_ID, {"ids": [*self.ids]}):
            noted, now = Counts(int(row.counted), row.counted_chunks, row.counted_bytes), counts_of(row)
            if noted == now:
                continue
            values = {"document": row.id, "is": now.documents > 0, "chunks": now.chunks, "bytes": now.bytes}
            self._session.execute(_NOTE, values, execution_options=_NO_SYNC)
            self.quotas.add(self._session, self.ids[row.id], difference(now, noted))


def difference(now: Counts, noted: Counts) -> Counts:
    return now + Counts(-noted.documents, -noted.chunks, -noted.bytes)


def counts_of(row: sa.Row[tuple[object, ...]]) -> Counts:
    """Of a row of `documents_as_they_are`."""
    return Counts(int(row.versions > 0), int(row.chunks), int(row.bytes)) if row.deleted_at is None else NOTHING


def documents_as_they_are() -> sa.Select[tuple[object, ...]]:
    """Documents with what is noted on them, and what should be."""
    waits = (col(DocumentVersion.document_id) == col(Document.id), col(DocumentVersion.state).in_(COUNTING))
    count, size = sa.func.count(), sa.func.coalesce(sa.func.sum(col(DocumentVersion.bytes)), 0)
    versions = [sa.select(one).select_from(DocumentVersion).where(*waits).correlate(Document) for one in (count, size)]
    live = sa.select(col(DocumentVersion.id)).where(waits[0], col(DocumentVersion.state) == "live").correlate(Document)
    chunks = sa.select(count).select_from(VersionChunk).where(col(VersionChunk.version_id).in_(live))
    return sa.select(
        col(Document.id),
        col(Document.deleted_at),
        col(Document.counted),
        col(Document.counted_bytes),
        col(Document.counted_chunks),
        versions[0].scalar_subquery().label("versions"),
        versions[1].scalar_subquery().label("bytes"),
        chunks.correlate(Document).scalar_subquery().label("chunks"),
    )


#: Made once: building them costs more than SQLite takes for them.
_BY_ID = (
    documents_as_they_are()
    .where(col(Document.id).in_(sa.bindparam("ids", expanding=True)))
    .order_by(col(Document.id))
    .execution_options(**ROWS_BY_KEY)
)
_NOTE = (
    sa.update(Document)
    .where(col(Document.id) == sa.bindparam("document"))
    .values(counted=sa.bindparam("is"), counted_chunks=sa.bindparam("chunks"), counted_bytes=sa.bindparam("bytes"))
)


def mismatched(rows: Sequence[sa.Row[tuple[object, ...]]]) -> list[str]:
    """Ids of those that are not noted as they are."""
    return [row.id for row in rows if counts_of(row) != Counts(int(row.counted), row.counted_chunks, row.counted_bytes)]
