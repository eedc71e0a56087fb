"""How fast a budget is used up, and in which hour it will be gone. Pure."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from tenants.counters import Amounts
from tenants.ledger.bounds import Bound
from tenants.ledger.windows import Window

HOUR_MS = 3_600_000


@dataclass(frozen=True, slots=True)
class Forecast:
    tokens_per_hour: int
    cost_per_hour: int  #: picodollars
    exhausted_at: int | None  #: start of the hour in which the first limit is reached; None: not in this window


def forecast(window: Window, spent: Amounts, over_ms: int, now: int) -> Forecast:
    """`spent` in the last `over_ms`, of which an hour at least is reckoned: a minute says nothing of the next one."""
    over_ms = max(over_ms, HOUR_MS)
    ends = [
        _end(window.ceiling.tokens, window.tokens, spent.charged, over_ms, now),
        _end(window.ceiling.cost, window.money, spent.cost, over_ms, now),
    ]
    inside = [at for at in ends if at is not None and at < end_of(window.period)]
    at = min(inside, default=None)
    return Forecast(
        tokens_per_hour=spent.charged * HOUR_MS // over_ms,
        cost_per_hour=spent.cost * HOUR_MS // over_ms,
        exhausted_at=None if at is None else at - at % HOUR_MS,
    )


def _end(bound: Bound, had: int, spent: int, over_ms: int, now: int) -> int | None:
    if bound.value is None:
        return None
    left = bound.value - had
    if left <= 0:
        return now
    return now + left * over_ms // spent if spent > 0 else None


def start_of(day: str) -> int:
    """Unix milliseconds at which a UTC day begins."""
    return int(dt.datetime.fromisoformat(day).replace(tzinfo=dt.UTC).timestamp() * 1000)


def end_of(period: str) -> int:
    """Unix milliseconds at which a UTC day or month ends."""
    if len(period) == len("2026-11-21"):
        return start_of(period) + 24 * HOUR_MS
    first = dt.date.fromisoformat(f"{period}-01")
    return start_of((first + dt.timedelta(days=31)).replace(day=1).isoformat())
