"""Rate limits of several api processes: each counts by itself, and twice a second they tell each other through the database.

No request waits for that. In the meantime a process knows what itself let through and not what others did, so a burst can
come once in each process; what it was too much is paid back by all of them. If the database does not answer, each process
goes on by its own count.
"""

from __future__ import annotations

from collections.abc import Mapping

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import col

from config.clock import Clock
from config.database import Database, once_more
from tenants.limits.rates import MOST_DEBT_S, Rates
from tenants.tables import RateBucket

EXCHANGE_S = 0.5
MOST_DEBT_MS = round(MOST_DEBT_S * 1000)
FORGET_MS = 60_000  #: after it was whole, a bucket's row is deleted


class RateExchange:
    def __init__(self, database: Database, clock: Clock, rates: Rates) -> None:
        self._database, self._clock, self._rates = database, clock, rates
        self._forget_at = 0

    def run_once(self) -> None:
        """Raise what the database raises; what was spent is told the next time."""
        spent = self._rates.take_spent()
        if not spent:
            return
        try:
            ahead = self._tell(spent)
        except SQLAlchemyError:
            self._rates.give_back(spent)
            raise
        self._rates.adopt(ahead)

    @once_more
    def _tell(self, spent: Mapping[str, float]) -> dict[str, float]:
        now, ahead = self._clock(), {}
        with self._database.system_write() as session:
            for bucket in sorted(spent):  # in one order everywhere, so that nobody waits in a circle
                row = session.get(RateBucket, bucket, with_for_update=True)
                row = row or RateBucket(id=bucket, ahead_until=now)
                # Of a clock that went back no more stays than a debt can be.
                ahead_ms = min(max(row.ahead_until - now, 0), MOST_DEBT_MS) + round(spent[bucket] * 1000)
                row.ahead_until = now + min(ahead_ms, MOST_DEBT_MS)
                session.add(row)
                ahead[bucket] = (row.ahead_until - now) / 1000
            if now >= self._forget_at:
                self._forget_at = now + FORGET_MS
                session.execute(sa.delete(RateBucket).where(col(RateBucket.ahead_until) < now - FORGET_MS))
        return ahead
