"""The windows of a budget: what a tenant used and holds of one kind of tokens in a UTC day, and in its month.

Each function works in a transaction of its caller's. The month is changed before the day, always: on PostgreSQL two that
changed them in different orders would wait for each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session
from sqlmodel import col

from config.kept import execute
from config.money import micro_usd
from tenants.counters import big, insert_missing, more, table_of
from tenants.ledger.bounds import Ceiling, Ceilings
from tenants.tables import BudgetWindow

NOTHING = {"used": 0, "held": 0, "cost": 0, "held_cost": 0}
AMOUNTS = tuple(NOTHING)
_UNLIMITED = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Change:
    """Added to a window's amounts, or taken away: tokens, and picodollars."""

    used: int = 0
    held: int = 0
    cost: int = 0
    held_cost: int = 0

    @property
    def tokens(self) -> int:
        return self.used + self.held

    @property
    def money(self) -> int:
        return self.cost + self.held_cost


@dataclass(frozen=True, slots=True)
class Window:
    """One window as it was at a moment, and what it may come to."""

    kind: str
    period: str  #: "2026-11", or "2026-11-21"
    used: int
    held: int
    cost: int
    held_cost: int
    ceiling: Ceiling

    @classmethod
    def empty(cls, kind: str, period: str, ceiling: Ceiling) -> Window:
        return cls(kind, period, 0, 0, 0, 0, ceiling)

    @property
    def name(self) -> str:
        return f"{self.kind}:{self.period}"

    @property
    def tokens(self) -> int:
        return self.used + self.held

    @property
    def money(self) -> int:
        return self.cost + self.held_cost

    def left(self, price: int) -> int | None:
        """Tokens that there is still room for, at that price; None without a limit."""
        tokens, money = self.ceiling.tokens.hard, self.ceiling.cost.hard
        room = [] if tokens is None else [tokens - self.tokens]
        if money is not None and price:
            room.append((money - self.money) // price)
        return max(0, min(room)) if room else None


class Refused(Exception):
    """A window has no room for that. Raised inside of the transaction, which it rolls back."""

    def __init__(self, window: Window, wanted: Change) -> None:
        self.window, tokens, money = window, window.ceiling.tokens.hard, window.ceiling.cost.hard
        span = "month" if len(window.period) == 7 else "day"
        if tokens is not None and window.tokens + wanted.tokens > tokens:
            self.limit = tokens
            self.detail = f"This needs {wanted.tokens} tokens, more than is left of the {span}'s {tokens}."
        else:
            self.limit = micro_usd(money or 0)
            self.detail = f"This costs more than is left of the {span}'s {self.limit} micro-dollars."
        super().__init__(self.detail)


def periods_of(day: str) -> tuple[str, str]:
    """The windows that something of that day belongs to."""
    return day[:7], day


def take(session: Session, tenant_id: str, kind: str, day: str, ceilings: Ceilings, change: Change) -> list[Window]:
    """Add to month and day unless one would pass its limit, each by one conditional statement that no other can pass.

    Return the windows as they are then, or raise Refused.
    """
    return [
        _take(session, tenant_id, Window.empty(kind, period, ceiling), change)
        for period, ceiling in zip(periods_of(day), ceilings, strict=True)
    ]


def _take(session: Session, tenant_id: str, empty: Window, change: Change) -> Window:
    tokens, money = empty.ceiling.tokens.hard, empty.ceiling.cost.hard
    given = {
        **_named(tenant_id, empty.kind, empty.period),
        **_changes(change),
        "tokens": change.tokens,
        "money": change.money,
        "most_tokens": _UNLIMITED if tokens is None else tokens,
        "most_money": _UNLIMITED if money is None else money,
    }
    row = execute(session, _TAKE, given).first()
    if row is None:
        insert_missing(session, BudgetWindow, {"tenant_id": tenant_id, "kind": empty.kind, "period": empty.period, **NOTHING})
        row = execute(session, _TAKE, given).first()
    if row is None:
        [now] = session.execute(_READ, {"in_tenant": tenant_id, "in_kind": empty.kind, "periods": [empty.period]})
        raise Refused(_window(now, empty.ceiling), change)
    return _window(row, empty.ceiling)


def move(session: Session, tenant_id: str, kind: str, day: str, change: Change) -> None:
    """Add to each, or take away, whatever the limits are: of what was reserved before."""
    for period in periods_of(day):
        given = {**_named(tenant_id, kind, period), **_changes(change)}
        execute(session, _MOVE, given)


def read(session: Session, tenant_id: str, kind: str, day: str, ceilings: Ceilings) -> list[Window]:
    """Month and day, also those in which nothing happened yet."""
    given = {"in_tenant": tenant_id, "in_kind": kind, "periods": [*periods_of(day)]}
    rows = {row.period: row for row in session.execute(_READ, given)}
    return [
        _window(rows[period], ceiling) if period in rows else Window.empty(kind, period, ceiling)
        for period, ceiling in zip(periods_of(day), ceilings, strict=True)
    ]


def _window(row: Any, ceiling: Ceiling) -> Window:
    return Window(row.kind, row.period, row.used, row.held, row.cost, row.held_cost, ceiling)


def _named(tenant_id: str, kind: str, period: str) -> dict[str, str]:
    return {"in_tenant": tenant_id, "in_kind": kind, "in_period": period}


def _changes(change: Change) -> Mapping[str, Any]:
    return {
        "more_used": change.used,
        "more_held": change.held,
        "more_cost": change.cost,
        "more_held_cost": change.held_cost,
    }


def _here(*conditions: sa.ColumnElement[bool]) -> sa.Update:
    keys = {"tenant_id": "in_tenant", "kind": "in_kind", "period": "in_period"}
    where = (_W[column] == sa.bindparam(name) for column, name in keys.items())
    return sa.update(table_of(BudgetWindow)).where(*where, *conditions).values(more(BudgetWindow, AMOUNTS, "more_"))


def _columns(names: Iterable[str]) -> list[Any]:
    return [col(getattr(BudgetWindow, name)) for name in names]


_W = table_of(BudgetWindow).c
#: Statements of every query, made once: building them anew took a third of a debit.
_MOVE = _here()
_TAKE = _here(
    _W.used + _W.held + big("tokens") <= big("most_tokens"),
    _W.cost + _W.held_cost + big("money") <= big("most_money"),
).returning(*(_W[name] for name in ("kind", "period", *AMOUNTS)))
_READ = sa.select(*_columns(("kind", "period", *AMOUNTS))).where(
    col(BudgetWindow.tenant_id) == sa.bindparam("in_tenant"),
    col(BudgetWindow.kind) == sa.bindparam("in_kind"),
    col(BudgetWindow.period).in_(sa.bindparam("periods", expanding=True)),
)
