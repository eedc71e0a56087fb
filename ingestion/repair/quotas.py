"""What tenants are counted to have, against what they have: first each document's own note, then the sum of all."""

from __future__ import annotations

from collections.abc import Iterator

import sqlalchemy as sa
from sqlalchemy.orm import Session
from sqlmodel import col

from ingestion.counting import documents_as_they_are, follow, mismatched
from ingestion.repair.parts import PAGE, Parts
from ingestion.repair.report import Finding
from ingestion.stores.tables import StoredFile
from rag.corpus import Collection, Document
from rag.sessions.tables import GONE, ChatSession
from tenants.context import TenantContext
from tenants.limits.quotas import Counts, open_counts, set_counts, used_of
from tenants.tables import QuotaUse


def check_quotas(parts: Parts, context: TenantContext, repair: bool) -> Iterator[Finding]:
    yield from _documents(parts, context, repair)
    with parts.database.read(context) as session:
        wrong = used_of(session, context.tenant_id) != recount(session)
    if wrong and (not repair or _recounted(parts, context)):
        yield Finding("quota_use", context.tenant_id, repair)


def _documents(parts: Parts, context: TenantContext, repair: bool) -> Iterator[Finding]:
    last = ""
    while True:
        page = documents_as_they_are().where(col(Document.id) > last).order_by(col(Document.id)).limit(PAGE)
        with parts.database.read(context) as session:
            rows = session.execute(page).all()
        if not rows:
            return
        for document_id in mismatched(rows):
            if not repair or _noted(parts, context, document_id):
                yield Finding("quota_use", context.tenant_id, repair, subject=document_id)
        last = rows[-1].id


def _noted(parts: Parts, context: TenantContext, document_id: str) -> bool:
    with parts.database.write(context) as session:
        document = session.get(Document, document_id, with_for_update=True)
        wrong = session.execute(documents_as_they_are().where(col(Document.id) == document_id)).all()
        if document is None or not mismatched(wrong):
            return False
        follow(session, document)
    return True


def recount(session: Session) -> Counts:
    """As the notes on the documents say, in one statement with collections, sessions and files: it sees one moment."""
    notes = (sa.case((col(Document.counted), 1), else_=0), col(Document.counted_chunks), col(Document.counted_bytes))
    sums = [sa.select(sa.func.coalesce(sa.func.sum(note), 0)).scalar_subquery() for note in notes]
    counted = sa.select(sa.func.count(col(Collection.id))).where(col(Collection.session_id).is_(None))
    collections = counted.scalar_subquery()
    living = col(ChatSession.state).not_in(GONE)  # one whose time is up counts until it is swept
    sessions = sa.select(sa.func.count(col(ChatSession.id))).where(living).scalar_subquery()
    kept = sa.select(sa.func.coalesce(sa.func.sum(col(StoredFile.bytes)), 0)).where(col(StoredFile.deleted_at).is_(None))
    *row, files = session.execute(sa.select(*sums, collections, sessions, kept.scalar_subquery())).one()
    return Counts(*map(int, row)) + Counts(bytes=int(files))


def _recounted(parts: Parts, context: TenantContext) -> bool:
    """Whoever changes a note changes the sum in the same transaction, and after it: so holding the sum is enough."""
    with parts.database.write(context) as session:
        open_counts(session, context.tenant_id)
        session.get(QuotaUse, context.tenant_id, with_for_update=True)
        right = recount(session)
        if used_of(session, context.tenant_id) == right:
            return False
        set_counts(session, context.tenant_id, right)
    return True
