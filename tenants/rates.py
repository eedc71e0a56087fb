"""How fast one principal may ask: a sliding window in this process's memory."""

from __future__ import annotations

import time

from limits import RateLimitItemPerSecond
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from config.errors import RateLimited

WINDOW_S = 5  # a burst of five seconds' worth is let through


class RateLimiter:
    def __init__(self, requests_per_second: int) -> None:
        self._item = RateLimitItemPerSecond(requests_per_second * WINDOW_S, WINDOW_S)
        self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage())

    def check(self, principal_id: str) -> None:
        """Count one request; raise RateLimited, saying when to come back, if it is one too many."""
        if self._limiter.hit(self._item, principal_id):
            return
        stats = self._limiter.get_window_stats(self._item, principal_id)
        raise RateLimited(
            f"At most {self._item.amount} requests in {WINDOW_S} seconds.",
            limit=self._item.amount,
            retry_after_s=max(1.0, stats.reset_time - time.time()),
        )
