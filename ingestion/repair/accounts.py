"""Figures that are kept beside what they count: which version is live, and what the ledger sums up to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session
from sqlmodel import col, select
from sqlmodel.sql.expression import SelectOfScalar

from config.database import TenantOwned
from ingestion.counting import follow
from ingestion.intake.catalogue import bump_generation
from ingestion.repair.parts import PAGE, Parts
from ingestion.repair.report import Finding
from rag.corpus import Document, DocumentVersion
from tenants.context import TenantContext
from tenants.ledger.bounds import EMBEDDING, LLM
from tenants.ledger.entries import OPEN, PAID
from tenants.tables import BudgetWindow, LedgerEntry, UsageDay


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
        document = session.get(Document, document_id, with_for_update=True)
        if document is None or session.scalars(_disagreeing().where(col(Document.id) == document_id)).first() is None:
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
    for account in (_WINDOWS, _USAGE):
        with parts.database.read(context) as session:
            found = [tuple(row) for row in (*session.execute(account.drifted()), *session.execute(account.unfounded()))]
        for key in found:
            if not repair or account.recount(parts, context, key):
                yield Finding(account.finding, context.tenant_id, repair, subject=" ".join(part for part in key if part))


def _sum(amount: Any, *states: str) -> sa.ColumnElement[int]:
    return sa.func.coalesce(sa.func.sum(sa.case((col(LedgerEntry.state).in_(states), amount), else_=0)), 0)


_TOKENS, _COST = col(LedgerEntry.tokens), col(LedgerEntry.cost)


@dataclass(frozen=True)
class _Account:
    """Rows of a table that are sums over ledger entries: `keys` and `sums` by column, as the entries say."""

    finding: str
    table: type[TenantOwned]
    keys: Sequence[Mapping[str, Any]]  #: an entry counts in one row for each
    sums: Mapping[str, sa.ColumnElement[int]]

    def drifted(self) -> sa.Select[Any]:
        """Keys of entries whose row differs, in one statement: it sees one moment, in which both changed together."""
        parts = [
            sa.select(*(key.label(name) for name, key in keys.items()), *self._labelled()).group_by(*keys.values())
            for keys in self.keys
        ]
        sums = sa.union_all(*parts).subquery()
        names = [*self.keys[0]]
        same = sa.and_(*(self._own(name) == sums.c[name] for name in self.sums))
        anything = sa.or_(*(sums.c[name] != 0 for name in self.sums))
        missing = sa.and_(self._own(names[0]).is_(None), anything)
        joined = sa.select(*(sums.c[name] for name in names)).outerjoin(
            self.table, sa.and_(*(self._own(name) == sums.c[name] for name in names))
        )
        return joined.where(sa.or_(missing, sa.not_(same)))

    def unfounded(self) -> sa.Select[Any]:
        """Keys of rows that count something without having an entry."""
        mine = col(LedgerEntry.tenant_id) == self._own("tenant_id")
        entries = (sa.exists().where(mine, *(key == self._own(name) for name, key in keys.items())) for keys in self.keys)
        nothing = sa.and_(*(self._own(name) == 0 for name in self.sums))
        return sa.select(*map(self._own, self.keys[0])).where(~sa.or_(*entries), sa.not_(nothing))

    def recount(self, parts: Parts, context: TenantContext, key: tuple[str, ...]) -> bool:
        """Whoever changes an entry's amount changes the row in the same transaction, so holding the row is enough."""
        named = {"tenant_id": context.tenant_id, **dict(zip(self.keys[0], key, strict=True))}
        with parts.database.write(context) as session:
            row = session.get(self.table, tuple(named.values()), with_for_update=True)
            amounts = self._sums(session, key)
            if row is not None and row.model_dump(include=set(amounts)) == amounts:
                return False
            row = row or self.table(**named)
            for name, amount in amounts.items():
                setattr(row, name, amount)
            session.add(row)
        return True

    def _sums(self, session: Session, key: tuple[str, ...]) -> dict[str, int]:
        """Of all that an entry can be counted under: a day is no month, so one of them has nothing."""
        found = dict.fromkeys(self.sums, 0)
        for keys in self.keys:
            here = (column == value for column, value in zip(keys.values(), key, strict=True))
            [row] = session.execute(sa.select(*self._labelled()).where(*here)).mappings()
            found = {name: found[name] + int(row[name]) for name in found}  # PostgreSQL sums as decimals, which are exact
        return found

    def _labelled(self) -> list[sa.ColumnElement[int]]:
        return [amount.label(name) for name, amount in self.sums.items()]

    def _own(self, name: str) -> Any:
        return col(getattr(self.table, name))


_KIND = sa.case((col(LedgerEntry.operation) == LLM, LLM), else_=EMBEDDING)  # as `tenants.ledger.bounds.kind_of`
_WINDOWS = _Account(
    "budget_window",
    BudgetWindow,
    [{"kind": _KIND, "period": period} for period in (col(LedgerEntry.day), sa.func.substr(col(LedgerEntry.day), 1, 7))],
    {
        "used": _sum(_TOKENS, *PAID),
        "held": _sum(_TOKENS, *OPEN),
        "cost": _sum(_COST, *PAID),
        "held_cost": _sum(_TOKENS * col(LedgerEntry.price), *OPEN),
    },
)
_USAGE = _Account(
    "usage_day",
    UsageDay,
    [{name: col(getattr(LedgerEntry, name)) for name in ("day", "operation", "key", "collection")}],
    {"charged": _sum(_TOKENS, *PAID), "cost": _sum(_COST, *PAID)},
)
