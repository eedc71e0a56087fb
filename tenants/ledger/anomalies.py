"""Days on which a tenant uses far more than it is used to, measured by its own history alone; told as events."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import median

import sqlalchemy as sa
from sqlmodel import col, select

from config.clock import Clock, day
from config.database import Database
from tenants.events import emit_once
from tenants.ledger.bounds import KINDS, kind_of
from tenants.ledger.entries import Owner
from tenants.ledger.forecast import HOUR_MS
from tenants.tables import UsageDay

HISTORY_DAYS, LEAST_DAYS = 28, 7  # that are compared with; fewer say nothing
LEAST_TOKENS = 10_000  # below which no day is worth a word
SPREADS = 6.0  # robust deviations above the median
SPREAD_OF_MAD = 1.4826  # makes the median absolute deviation a standard deviation, where days are normal
LEAST_SPREAD = 0.1  # of the median: days that were all alike must not make a tenth more remarkable
TENANTS = 500  # read at a time


def threshold(history: Sequence[int]) -> float | None:
    """What a day must pass to be unusual; None for too little history. The days before the first with any use do not count."""
    used = [*history]
    while used and used[0] == 0:
        used.pop(0)
    if len(used) < LEAST_DAYS:
        return None
    middle = median(used)
    spread = SPREAD_OF_MAD * median(abs(amount - middle) for amount in used)
    return max(middle + SPREADS * max(spread, LEAST_SPREAD * middle), float(LEAST_TOKENS))


class AnomalyWatch:
    def __init__(self, database: Database, clock: Clock) -> None:
        self._database, self._clock = database, clock

    def run_once(self) -> int:
        """Look at this day as it is so far and at the one before, of every tenant that used anything; return how many are
        unusual. Each day and kind is told once."""
        now, found, after = self._clock(), 0, ""
        days = [day(now - back * 24 * HOUR_MS) for back in range(HISTORY_DAYS + 1, -1, -1)]
        while tenants := self._tenants(days, after):
            for tenant_id in tenants:
                used = self._used(tenant_id, days)
                found += sum(self._look(tenant_id, kind, days, used[kind]) for kind in KINDS)
            after = tenants[-1]
        return found

    def _tenants(self, days: Sequence[str], after: str) -> Sequence[str]:
        statement = (
            select(col(UsageDay.tenant_id))
            .where(col(UsageDay.day) >= days[-2], col(UsageDay.charged) > 0, col(UsageDay.tenant_id) > after)
            .distinct()
            .order_by(col(UsageDay.tenant_id))
            .limit(TENANTS)
        )
        with self._database.system_read() as session:
            return session.scalars(statement).all()

    def _used(self, tenant_id: str, days: Sequence[str]) -> Mapping[str, Mapping[str, int]]:
        """Tokens by kind and day."""
        statement = (
            sa.select(col(UsageDay.operation), col(UsageDay.day), sa.func.sum(col(UsageDay.charged)))
            .where(col(UsageDay.day) >= days[0])
            .group_by(col(UsageDay.operation), col(UsageDay.day))
        )
        used: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        with self._database.read(Owner(tenant_id)) as session:
            for operation, on, charged in session.execute(statement):
                used[kind_of(operation)][on] += int(charged)
        return used

    def _look(self, tenant_id: str, kind: str, days: Sequence[str], used: Mapping[str, int]) -> int:
        found = 0
        for at in (len(days) - 2, len(days) - 1):
            amount, most = used.get(days[at], 0), threshold([used.get(on, 0) for on in days[max(0, at - HISTORY_DAYS) : at]])
            if most is not None and amount > most:
                subject, scope = f"{kind}:{days[at]}", Owner(tenant_id)
                told = {"kind": kind, "day": days[at], "tokens": amount, "usual_most": int(most)}
                emit_once(self._database, self._clock, scope, "usage.unusual", subject, **told)
                found += 1
        return found
