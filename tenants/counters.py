"""Rows that count: the month's window of a budget, and usage by day. Changed by statements that are made once, because
building them anew took a third of a debit. Each function works in a transaction of its caller's.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session
from sqlmodel import SQLModel, col, select

from tenants.tables import BudgetWindow, Tenant, UsageDay


def take(session: Session, tenant_id: str, window: str, tokens: int, *, held: bool) -> bool:
    """Use or hold tokens of a month, unless that would pass the limit: one conditional statement, which no other can pass."""
    taking, given = _HOLD if held else _USE, {"tenant": tenant_id, "window": window, "amount": tokens}
    if _rows(session, taking, given):
        return True
    insert_missing(session, BudgetWindow, {"tenant_id": tenant_id, "month": window, "used": 0, "held": 0})
    return _rows(session, taking, given) > 0


def move(session: Session, tenant_id: str, window: str, *, used: int, held: int) -> None:
    """Add to both, or take away."""
    given = {"tenant": tenant_id, "window": window, "more_used": used, "more_held": held}
    _rows(session, _MOVE, given)


def limit_of(session: Session, tenant_id: str) -> int | None:
    return session.scalar(select(col(Tenant.monthly_tokens)).where(col(Tenant.id) == tenant_id))


def count_usage(
    session: Session,
    tenant_id: str,
    operation: str,
    on: str,
    *,
    charged: int = 0,
    cached: int = 0,
    deduplicated: int = 0,
) -> None:
    amounts = {"charged": charged, "cached": cached, "deduplicated": deduplicated}
    row = {"tenant_id": tenant_id, "day": on, "operation": operation, **amounts}
    given = {f"given_{name}": value for name, value in row.items()}
    if _rows(session, _COUNT, given) == 0 and not insert_missing(session, UsageDay, row):
        _rows(session, _COUNT, given)  # somebody else made the row at the same moment


def _rows(session: Session, statement: sa.Update, given: Mapping[str, Any]) -> int:
    """Execute an update and return how many rows met its condition."""
    result = session.execute(statement, given, execution_options={"synchronize_session": False})
    count: int = result.rowcount  # type: ignore[attr-defined]
    return count


def insert_missing(session: Session, table: type[SQLModel], row: Mapping[str, Any]) -> bool:
    """Insert the row, all columns given, unless its key is taken, by whoever at the same moment too; tell whether it was."""
    statement = _insert_missing(session.get_bind().dialect.name, table)
    return session.execute(statement, row, execution_options={"dml_strategy": "raw"}).first() is not None


@cache
def _insert_missing(dialect: str, table: type[SQLModel]) -> sa.Insert:
    insert = postgresql.insert if dialect == "postgresql" else sqlite.insert
    key = next(iter(table.__table__.primary_key.columns))  # type: ignore[attr-defined]
    return insert(table).on_conflict_do_nothing().returning(key)  # psycopg counts no rows of such an insert


def _taking(column: str) -> sa.Update:
    used, held, amount = col(BudgetWindow.used), col(BudgetWindow.held), sa.bindparam("amount", type_=sa.BigInteger())
    limit = select(col(Tenant.monthly_tokens)).where(col(Tenant.id) == sa.bindparam("tenant")).scalar_subquery()
    return (
        sa.update(BudgetWindow)
        .where(
            col(BudgetWindow.tenant_id) == sa.bindparam("tenant"),
            col(BudgetWindow.month) == sa.bindparam("window"),
            sa.or_(limit.is_(None), used + held + amount <= limit),
        )
        .values({column: col(getattr(BudgetWindow, column)) + amount})
    )


#: Statements of every query, made once: building them anew took a third of a debit.
_USE, _HOLD = _taking("used"), _taking("held")
_COUNT = (
    sa.update(UsageDay)
    .where(*(col(getattr(UsageDay, name)) == sa.bindparam(f"given_{name}") for name in ("tenant_id", "day", "operation")))
    .values(
        {
            name: col(getattr(UsageDay, name)) + sa.bindparam(f"given_{name}", type_=sa.BigInteger())
            for name in ("charged", "cached", "deduplicated")
        }
    )
)
_MOVE = (
    sa.update(BudgetWindow)
    .where(col(BudgetWindow.tenant_id) == sa.bindparam("tenant"), col(BudgetWindow.month) == sa.bindparam("window"))
    .values(
        used=col(BudgetWindow.used) + sa.bindparam("more_used", type_=sa.BigInteger()),
        held=col(BudgetWindow.held) + sa.bindparam("more_held", type_=sa.BigInteger()),
    )
)
