"""What a tenant used: the month's budget, and tokens and money by day and operation."""

from __future__ import annotations

from dataclasses import dataclass

from sqlmodel import col, select

from config.clock import Clock, month
from config.database import Database, HasTenant
from tenants.counters import AMOUNTS, Amounts
from tenants.tables import BudgetWindow, Tenant, UsageDay


@dataclass(frozen=True, slots=True)
class Usage:
    month: str
    limit: int | None
    used: int
    held: int
    cost: int  #: picodollars, of what is used
    days: list[UsageDay]  #: of this month, oldest first

    @property
    def remaining(self) -> int | None:
        return None if self.limit is None else max(0, self.limit - self.used - self.held)

    @property
    def total(self) -> Amounts:
        return Amounts(**{name: sum(getattr(row, name) for row in self.days) for name in AMOUNTS})


class UsageReader:
    def __init__(self, database: Database, clock: Clock) -> None:
        self._database, self._clock = database, clock

    def of(self, scope: HasTenant) -> Usage:
        window = month(self._clock())
        with self._database.read(scope) as session:
            limit = session.scalar(select(col(Tenant.monthly_tokens)).where(col(Tenant.id) == scope.tenant_id))
            budget = session.get(BudgetWindow, (scope.tenant_id, window))
            days = session.scalars(
                select(UsageDay)
                .where(col(UsageDay.day).startswith(window))
                .order_by(col(UsageDay.day), col(UsageDay.operation))
            ).all()
        used, held, cost = (budget.used, budget.held, budget.cost) if budget else (0, 0, 0)
        return Usage(window, limit, used, held, cost, [*days])
