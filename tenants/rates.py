"""How fast one principal may ask: a sliding window in this process's memory."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

from config.errors import RateLimited

WINDOW_S = 5  # a burst of five seconds' worth is let through


class RateLimiter:
    """Counts the requests of this window and of the one before, which weighs less the further this one has run.

    For one thread, the event loop's. What it remembers is bounded by the principals of two windows.
    """

    def __init__(self, requests_per_second: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit, self._clock = requests_per_second * WINDOW_S, clock
        self._window = 0
        self._before: Counter[str] = Counter()
        self._now: Counter[str] = Counter()

    def check(self, principal_id: str) -> None:
        """Count one request; raise RateLimited, saying when to come back, if it is one too many."""
        window, elapsed = divmod(self._clock(), WINDOW_S)
        if window != self._window:
            self._before = self._now if window == self._window + 1 else Counter()
            self._window, self._now = int(window), Counter()
        fading = self._before[principal_id] * (1 - elapsed / WINDOW_S)
        if fading + self._now[principal_id] + 1 > self._limit:
            raise RateLimited(
                f"At most {self._limit} requests in {WINDOW_S} seconds.",
                limit=self._limit,
                retry_after_s=WINDOW_S - elapsed + 1,  # in the next window this one fades
            )
        self._now[principal_id] += 1
