"""What a tenant used: its budgets as they stand, and tokens and money by day, operation, key and collection."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session
from sqlmodel import col

from config.clock import Clock, day
from config.database import Database, HasTenant
from config.errors import InvalidInput
from config.plans import BUILT_IN, UNLIMITED
from tenants.counters import AMOUNTS, Amounts
from tenants.ledger import windows
from tenants.ledger.bounds import EMBEDDING, KINDS, ceilings_of, kind_of
from tenants.ledger.forecast import HOUR_MS, Forecast, forecast, start_of
from tenants.ledger.windows import Window
from tenants.limits.plans import LimitsInForce, Plans
from tenants.tables import UsageDay

GROUPS = ("day", "operation", "key", "collection")
MAX_GROUPS, MAX_DAYS = 2_000, 366
RECENT_DAYS = 7  # whose burn rate a month's forecast goes by
PAGE = 500


@dataclass(frozen=True, slots=True)
class UsageRow(Amounts):
    """Sums of what shares these; None where they were not told apart."""

    day: str | None = None
    operation: str | None = None
    key: str | None = None
    collection: str | None = None


@dataclass(frozen=True, slots=True)
class Range:
    """Days in UTC, both included."""

    first: str
    last: str

    def __post_init__(self) -> None:
        days = (_date(self.last, "to") - _date(self.first, "from")).days + 1
        if not 1 <= days <= MAX_DAYS:
            raise InvalidInput(f"From the first day to the last there are 1 to {MAX_DAYS} days.", field="to", limit=MAX_DAYS)

    @classmethod
    def of_month(cls, month: str) -> Range:
        first = _date(f"{month}-01", "month")
        following = (first + dt.timedelta(days=31)).replace(day=1)
        return cls(first.isoformat(), (following - dt.timedelta(days=1)).isoformat())


def _date(text: str, field: str) -> dt.date:
    try:
        found = dt.date.fromisoformat(text)
    except ValueError:
        found = None
    if found is None or found.isoformat() != text or not 1970 < found.year < 9999:
        raise InvalidInput("A day is written as 2026-11-21, a month as 2026-11.", field=field)
    return found


@dataclass(frozen=True, slots=True)
class Budget:
    window: Window
    forecast: Forecast


@dataclass(frozen=True, slots=True)
class Usage:
    budgets: list[Budget]  #: of each kind, month and day
    days: list[UsageRow]  #: of the range by day and operation, oldest first
    groups: list[UsageRow]  #: as was asked for

    @property
    def month(self) -> str:
        return self._month.period

    @property
    def limit(self) -> int | None:
        return self._month.ceiling.tokens.value

    @property
    def used(self) -> int:
        return self._month.used

    @property
    def held(self) -> int:
        return self._month.held

    @property
    def cost(self) -> int:
        """Picodollars, of what is used."""
        return self._month.cost

    @property
    def remaining(self) -> int | None:
        return None if self.limit is None else max(0, self.limit - self.used - self.held)

    @property
    def total(self) -> Amounts:
        return total(self.days)

    @property
    def _month(self) -> Window:
        return next(budget.window for budget in self.budgets if budget.window.kind == EMBEDDING)


def total(rows: Sequence[Amounts]) -> Amounts:
    return Amounts(**{name: sum(getattr(row, name) for row in rows) for name in AMOUNTS})


class UsageReader:
    def __init__(self, database: Database, clock: Clock, limits: LimitsInForce | None = None) -> None:
        self._database, self._clock = database, clock
        self._limits = limits or LimitsInForce(database, clock, Plans(BUILT_IN, UNLIMITED), fresh_ms=0)

    def of(self, scope: HasTenant, wanted: Range | None = None, group_by: Sequence[str] = ()) -> Usage:
        """Raise InvalidInput for more groups than MAX_GROUPS."""
        now = self._clock()
        wanted = wanted or Range.of_month(day(now)[:7])
        limits = self._limits.of(scope.tenant_id)
        with self._database.read(scope) as session:
            found = [
                window
                for kind in KINDS
                for window in windows.read(session, scope.tenant_id, kind, day(now), ceilings_of(limits, kind))
            ]
            recent = _grouped(session, Range(day(now - RECENT_DAYS * 24 * HOUR_MS), day(now)), ("day", "operation"))
            days = _grouped(session, wanted, ("day", "operation"))
            groups = _grouped(session, wanted, tuple(group_by)) if group_by else []
        return Usage([Budget(window, self._forecast(window, recent, now)) for window in found], days, groups)

    def _forecast(self, window: Window, recent: Sequence[UsageRow], now: int) -> Forecast:
        """A day's by what was charged since midnight, a month's by what was in the last days."""
        of_kind = [row for row in recent if kind_of(row.operation or "") == window.kind]
        if len(window.period) == len("2026-11-21"):
            of_kind = [row for row in of_kind if row.day == window.period]
        first = min((row.day or "" for row in of_kind), default=day(now))
        return forecast(window, total(of_kind), now - max(start_of(first), now - RECENT_DAYS * 24 * HOUR_MS), now)

    def lines(self, scope: HasTenant, month: str) -> Iterator[UsageRow]:
        """A month by day, operation, key and collection: what an invoice lists. Read in pages, each as it is then."""
        wanted, after = Range.of_month(month), ("", "", "", "")
        keys = [col(getattr(UsageDay, name)) for name in GROUPS]
        page = (
            sa.select(*keys, *(col(getattr(UsageDay, name)) for name in AMOUNTS))
            .where(col(UsageDay.day).between(wanted.first, wanted.last))
            .order_by(*keys)
            .limit(PAGE)
        )
        while True:
            with self._database.read(scope) as session:
                rows = session.execute(page.where(sa.tuple_(*keys) > sa.tuple_(*map(sa.literal, after)))).mappings().all()
            yield from map(_row, rows)
            if len(rows) < PAGE:
                return
            after = tuple(rows[-1][name] for name in GROUPS)


def _grouped(session: Session, wanted: Range, by: Sequence[str]) -> list[UsageRow]:
    """Sums of the range, in the order of their groups."""
    keys = [col(getattr(UsageDay, name)) for name in GROUPS if name in by]
    sums = (sa.func.sum(col(getattr(UsageDay, name))).label(name) for name in AMOUNTS)
    statement = (
        sa.select(*keys, *sums)
        .where(col(UsageDay.day).between(wanted.first, wanted.last))
        .group_by(*keys)
        .order_by(*keys)
        .limit(MAX_GROUPS + 1)
    )
    rows = session.execute(statement).mappings().all()
    if len(rows) > MAX_GROUPS:
        detail = f"These are more than {MAX_GROUPS} groups: ask for fewer days, or for the export."
        raise InvalidInput(detail, field="group_by", limit=MAX_GROUPS)
    return [_row(row) for row in rows]


def _row(row: sa.RowMapping) -> UsageRow:
    """PostgreSQL sums as decimals, which are exact."""
    values: dict[str, Any] = {name: int(row[name]) for name in AMOUNTS}
    return UsageRow(**values | {name: row[name] for name in GROUPS if name in row})
