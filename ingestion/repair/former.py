"""Former versions whose time is over: they go as if their collection had never kept them."""

from __future__ import annotations

import sqlalchemy as sa
from sqlmodel import col

from ingestion.repair.parts import PAGE, Parts
from rag.corpus import Document, DocumentVersion


def expire(parts: Parts) -> int:
    """Documents that lost versions. One that is written meanwhile is safe: the collector looks again at each step."""
    over = (
        sa.select(col(Document.tenant_id), col(Document.collection_id), col(Document.id))
        .join(DocumentVersion, col(DocumentVersion.document_id) == col(Document.id))
        .where(
            col(DocumentVersion.live_until).is_not(None),
            col(DocumentVersion.text_blob).is_not(None),
            col(DocumentVersion.state) == "superseded",
            col(Document.deleted_at).is_(None),
            sa.not_(parts.collector.kept()),
        )
        .distinct()
        .order_by(col(Document.id))
        .limit(PAGE)
    )
    count, last = 0, ""
    while True:
        with parts.database.system_read() as session:
            rows = session.execute(over.where(col(Document.id) > last)).all()
        for tenant_id, collection_id, document_id in rows:
            parts.collector.collect(
                parts.registry.context_of_job(tenant_id, "former versions"), collection_id, document_id, None
            )
        if not rows:
            return count
        count, last = count + len(rows), rows[-1][2]
