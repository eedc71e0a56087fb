"""Figures that are kept beside what they count: which version is live, and a month's tokens."""

from __future__ import annotations

from collections.abc import Iterator

import sqlalchemy as sa
from sqlalchemy.orm import Session
from sqlmodel import col, select
from sqlmodel.sql.expression import SelectOfScalar

from ingestion.catalogue import bump_generation
from ingestion.counting import follow
from ingestion.repair.parts import PAGE, Parts
from ingestion.repair.report import Finding
from rag.corpus import Document, DocumentVersion
from tenants.budget import HELD, SETTLED, STARTED, UNSETTLED
from tenants.context import TenantContext
from tenants.tables import BudgetWindow, LedgerEntry

AMOUNTS = ("used", "held", "cost")  # of a window


def check_live_versions(parts: Parts, context: TenantContext, repair: bool) -> Iterator[Finding]:
    """Versions say which of them is live; a document only repeats it."""
    last = ""
    while True:
        page = _disagreeing().where(col(Document.id) > last).order_by(col(Document.id)).limit(PAGE)
        with parts.database.read(context) as session:
            ids = [*session.scalars(page)]
        if not ids:
            return
        for document_id in ids:
            if not repair or _set_live(parts, context, document_id):
                yield Finding("live_version", context.tenant_id, repair, subject=document_id)
        last = ids[-1]


def _disagreeing() -> SelectOfScalar[str]:
    def live(*conditions: sa.ColumnElement[bool]) -> sa.Exists:
        own = col(DocumentVersion.document_id) == col(Document.id)
        return sa.exists().where(own, col(DocumentVersion.state) == "live", *conditions)

    named = col(DocumentVersion.id) == col(Document.live_version_id)
    right = live(named, col(DocumentVersion.number) == col(Document.live_number))
    none = sa.or_(live(), col(Document.live_number) != 0)
    return select(col(Document.id)).where(
        col(Document.deleted_at).is_(None),
        sa.case((col(Document.live_version_id).is_(None), none), else_=sa.or_(~right, live(sa.not_(named)))),
    )


def _set_live(parts: Parts, context: TenantContext, document_id: str) -> bool:
    with parts.database.write(context) as session:
        document = session.get_one(Document, document_id, with_for_update=True)
        if session.scalars(_disagreeing().where(col(Document.id) == document_id)).first() is None:
            return False
        versions = session.scalars(
            select(DocumentVersion)
            .where(col(DocumentVersion.document_id) == document_id, col(DocumentVersion.state) == "live")
            .order_by(col(DocumentVersion.number).desc())
        ).all()
        for older in versions[1:]:
            older.state, older.live_until = "superseded", older.live_until or parts.clock()
            session.add(older)
        document.live_version_id = versions[0].id if versions else None
        document.live_number = versions[0].number if versions else 0
        session.add(document)
        follow(session, document)
        bump_generation(session, document.collection_id)
    return True


def check_windows(parts: Parts, context: TenantContext, repair: bool) -> Iterator[Finding]:
    with parts.database.read(context) as session:
        months = [*session.scalars(_drifted()), *session.scalars(_unfounded())]
    for month in months:
        if not repair or _recount(parts, context, month):
            yield Finding("budget_window", context.tenant_id, repair, subject=month)


def _sum(column: int, *states: str) -> sa.ColumnElement[int]:
    amount = sa.case((col(LedgerEntry.state).in_(states), col(column)), else_=0)
    return sa.func.coalesce(sa.func.sum(amount), 0)


def _amounts() -> list[sa.ColumnElement[int]]:
    """Of a month, as its entries say."""
    used, held = _sum(LedgerEntry.tokens, SETTLED, UNSETTLED), _sum(LedgerEntry.tokens, HELD, STARTED)
    cost = _sum(LedgerEntry.cost, SETTLED, UNSETTLED)
    return [amount.label(name) for name, amount in zip(AMOUNTS, (used, held, cost), strict=True)]


def _drifted() -> sa.Select[str]:
    """Months with entries whose window differs, in one statement: it sees one moment, in which both changed together."""
    sums = sa.select(col(LedgerEntry.month), *_amounts()).group_by(col(LedgerEntry.month)).subquery()
    same = sa.and_(*(col(getattr(BudgetWindow, name)) == sums.c[name] for name in AMOUNTS))
    missing = sa.and_(col(BudgetWindow.month).is_(None), sums.c.used + sums.c.held > 0)
    joined = sa.select(sums.c.month).outerjoin(BudgetWindow, col(BudgetWindow.month) == sums.c.month)
    return joined.where(sa.or_(missing, sa.not_(same)))


def _unfounded() -> sa.Select[str]:
    """Months that count something without having an entry."""
    entries = sa.exists().where(
        col(LedgerEntry.tenant_id) == col(BudgetWindow.tenant_id), col(LedgerEntry.month) == col(BudgetWindow.month)
    )
    nothing = sa.and_(*(col(getattr(BudgetWindow, name)) == 0 for name in AMOUNTS))
    return sa.select(col(BudgetWindow.month)).where(~entries, sa.not_(nothing))


def _recount(parts: Parts, context: TenantContext, month: str) -> bool:
    """Whoever changes an entry's amount changes the window in the same transaction, so holding the window is enough."""
    with parts.database.write(context) as session:
        window = session.get(BudgetWindow, (context.tenant_id, month), with_for_update=True)
        amounts = _sums(session, month)
        if window is not None and window.model_dump(include=set(AMOUNTS)) == amounts:
            return False
        session.merge(BudgetWindow(tenant_id=context.tenant_id, month=month, **amounts))
    return True


def _sums(session: Session, month: str) -> dict[str, int]:
    [row] = session.execute(sa.select(*_amounts()).where(col(LedgerEntry.month) == month)).mappings()
    return {name: int(row[name]) for name in AMOUNTS}  # PostgreSQL sums as decimals, which are exact
