"""Rows that count, and usage by day. Changed by statements that are made once, because building them anew took a third of a
debit. Each function works in a transaction of its caller's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session
from sqlmodel import SQLModel

from config.kept import execute
from tenants.tables import UsageDay


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


@dataclass(frozen=True, slots=True)
class Account:
    """What usage is booked under: an operation ("ingest", "query", "llm"), the key that asked, and the collection."""

    operation: str
    key: str = ""
    collection: str = ""


def count_usage(session: Session, tenant_id: str, on: str, account: Account, amounts: Amounts) -> None:
    named = {"operation": account.operation, "key": account.key, "collection": account.collection}
    row = {"tenant_id": tenant_id, "day": on, **named} | {name: getattr(amounts, name) for name in AMOUNTS}
    given = {f"given_{name}": value for name, value in row.items()}
    if _rows(session, _COUNT, given) == 0 and not insert_missing(session, UsageDay, row):
        _rows(session, _COUNT, given)  # somebody else made the row at the same moment


def _rows(session: Session, statement: sa.Update, given: Mapping[str, Any]) -> int:
    """Execute an update and return how many rows met its condition."""
    return execute(session, statement, given).rowcount


def insert_missing(session: Session, table: type[SQLModel], row: Mapping[str, Any]) -> bool:
    """Insert the row, all columns given, unless its key is taken, by whoever at the same moment too; tell whether it was."""
    statement = _insert_missing(session.get_bind().dialect.name, table)
    return execute(session, statement, row).first() is not None


@cache
def _insert_missing(dialect: str, table: type[SQLModel]) -> sa.Insert:
    insert = postgresql.insert if dialect == "postgresql" else sqlite.insert
    rows = table_of(table)
    key = next(iter(rows.primary_key.columns))
    return insert(rows).on_conflict_do_nothing().returning(key)  # psycopg counts no rows of such an insert


def table_of(table: type[SQLModel]) -> sa.Table:
    rows: sa.Table = table.__table__  # type: ignore[attr-defined]
    return rows


def big(name: str) -> sa.BindParameter[int]:
    return sa.bindparam(name, type_=sa.BigInteger())


def more(table: type[SQLModel], columns: Iterable[str], prefix: str) -> dict[str, sa.ColumnElement[int]]:
    """Each column and what is added to it: the parameter of its name after the prefix."""
    return {column: table_of(table).c[column] + big(f"{prefix}{column}") for column in columns}


_KEYS = ("tenant_id", "day", "operation", "key", "collection")
_COUNT = (
    sa.update(table_of(UsageDay))
    .where(*(table_of(UsageDay).c[name] == sa.bindparam(f"given_{name}") for name in _KEYS))
    .values(more(UsageDay, AMOUNTS, "given_"))
)
