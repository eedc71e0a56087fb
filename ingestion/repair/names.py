"""Names of texts that outlived their document: what they lead to in the cache is erased, and they go."""

from __future__ import annotations

from collections.abc import Iterator

import sqlalchemy as sa
from sqlmodel import col, select

from ingestion.repair.jobs import being_collected, pages
from ingestion.repair.parts import Parts
from ingestion.repair.report import Finding
from rag.corpus import Document, FormerText
from tenants.context import TenantContext


def check_names(parts: Parts, context: TenantContext, repair: bool) -> Iterator[Finding]:
    """A job of the document may yet embed one of its texts, and forgets them itself when it ends."""
    exists = sa.exists().where(col(Document.id) == col(FormerText.document_id))
    for ids in pages(parts, context, select(col(FormerText.document_id)).where(~exists).distinct()):
        for document_id in ids:
            if not being_collected(parts, context, document_id):
                if repair and not parts.collector.forget_gone(context, document_id):
                    continue
                yield Finding("names_without_document", context.tenant_id, repair, subject=document_id)
