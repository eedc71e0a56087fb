"""Rows that count: the month's window of a budget, and usage by day. Changed by statements that are made once, because
building them anew took a third of a debit. Each function works in a transaction of its caller's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session
from sqlmodel import SQLModel, col, select

from tenants.tables import BudgetWindow, Tenant, UsageDay


@dataclass(frozen=True, slots=True)
class Amounts:
    """What is counted of a day: tokens, texts, and picodollars."""

    charged: int = 0
    cached: int = 0
    deduplicated: int = 0
    hits: int = 0
    cost: int = 0
    saved_cost: int = 0


AMOUNTS = tuple(Amounts.__dataclass_fields__)


def reserve(session: Session, tenant_id: str, window: str, tokens: int) -> bool:
    """Hold tokens of a month, unless that would pass the limit: one conditional statement, which no other can pass."""
    return _take(session, _HOLD, {"tenant": tenant_id, "window": window, "amount": tokens})


def spend(session: Session, tenant_id: str, window: str, tokens: int, cost: int) -> bool:
    """The same, used at once."""
    return _take(session, _USE, {"tenant": tenant_id, "window": window, "amount": tokens, "more_cost": cost})


def _take(session: Session, taking: sa.Update, given: Mapping[str, Any]) -> bool:
    if _rows(session, taking, given):
        return True
    window = {"tenant_id": given["tenant"], "month": given["window"], "used": 0, "held": 0, "cost": 0}
    insert_missing(session, BudgetWindow, window)
    return _rows(session, taking, given) > 0


def move(session: Session, tenant_id: str, window: str, *, used: int, held: int, cost: int) -> None:
    """Add to each, or take away."""
    given = {"tenant": tenant_id, "window": window, "more_used": used, "more_held": held, "more_cost": cost}
    _rows(session, _MOVE, given)


def limit_of(session: Session, tenant_id: str) -> int | None:
    return session.scalar(select(col(Tenant.monthly_tokens)).where(col(Tenant.id) == tenant_id))


def count_usage(session: Session, tenant_id: str, operation: str, on: str, amounts: Amounts) -> None:
    row = {"tenant_id": tenant_id, "day": on, "operation": operation} | {name: getattr(amounts, name) for name in AMOUNTS}
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


def _big(name: str) -> sa.BindParameter[int]:
    return sa.bindparam(name, type_=sa.BigInteger())


def _more(table: type[SQLModel], **parameters: str) -> dict[str, sa.ColumnElement[int]]:
    """Each column and what is added to it."""
    return {column: col(getattr(table, column)) + _big(parameter) for column, parameter in parameters.items()}


def _taking(**parameters: str) -> sa.Update:
    used, held, amount = col(BudgetWindow.used), col(BudgetWindow.held), _big("amount")
    limit = select(col(Tenant.monthly_tokens)).where(col(Tenant.id) == sa.bindparam("tenant")).scalar_subquery()
    return (
        sa.update(BudgetWindow)
        .where(
            col(BudgetWindow.tenant_id) == sa.bindparam("tenant"),
            col(BudgetWindow.month) == sa.bindparam("window"),
            sa.or_(limit.is_(None), used + held + amount <= limit),
        )
        .values(_more(BudgetWindow, **parameters))
    )


#: Statements of every query, made once: building them anew took a third of a debit.
_USE, _HOLD = _taking(used="amount", cost="more_cost"), _taking(held="amount")
_COUNT = (
    sa.update(UsageDay)
    .where(*(col(getattr(UsageDay, name)) == sa.bindparam(f"given_{name}") for name in ("tenant_id", "day", "operation")))
    .values(_more(UsageDay, **{name: f"given_{name}" for name in AMOUNTS}))
)
_MOVE = (
    sa.update(BudgetWindow)
    .where(col(BudgetWindow.tenant_id) == sa.bindparam("tenant"), col(BudgetWindow.month) == sa.bindparam("window"))
    .values(_more(BudgetWindow, used="more_used", held="more_held", cost="more_cost"))
)
