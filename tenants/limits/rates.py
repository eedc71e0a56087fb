"""How fast a key and a tenant may ask: token buckets, reckoned by GCRA (ITU-T I.371) in this process's memory.

A bucket is one number: the moment at which it will be whole again. A request costs 1 beforehand and what its tokens weigh
afterwards, so that a bucket can be overdrawn; nothing is let through until that is paid back.
"""

from __future__ import annotations

import enum
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from config.errors import RateLimited

KEY_BURST_S = 5  #: of a key's rate may come at once
MOST_DEBT_S = 60.0  #: however much one request turned out to cost
SWEPT_ABOVE = 10_000  #: buckets from which on those that are whole are forgotten


class OperationClass(enum.StrEnum):
    """What kind of work a request is; the first is let go last when there is too much."""

    ADMIN = "admin"
    QUERY = "query"
    READ = "read"
    INGEST = "ingest"


@dataclass(frozen=True, slots=True)
class Rate:
    """`bucket` names whose it is, `policy` what it is called to the caller."""

    bucket: str
    policy: str
    per_second: float
    burst: float

    def told(self) -> str:
        return f'"{self.policy}";q={int(self.burst)};w={max(1, math.ceil(self.burst / self.per_second))}'


@dataclass(frozen=True, slots=True)
class Left:
    """What the tightest of a request's rates leaves, as the headers `RateLimit-Policy` and `RateLimit` say it."""

    rate: Rate
    remaining: int
    whole_in_s: float

    def told(self) -> str:
        return f'"{self.rate.policy}";r={self.remaining};t={math.ceil(self.whole_in_s)}'


class Rates:
    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._whole_at: dict[str, float] = {}
        self._spent: dict[str, float] = {}  #: seconds of each bucket since they were last taken
        self._keeps_spent = False

    def take(self, rates: Sequence[Rate]) -> Left:
        """One request from each of them, or from none: raise RateLimited, saying when to come back."""
        with self._lock:
            now = self._clock()
            wait, tightest = max(((self._wait(rate, now), rate) for rate in rates), key=lambda each: each[0])
            if wait > 0:
                raise RateLimited(
                    f"At most {tightest.per_second:g} requests a second of one {tightest.policy}.",
                    limit=tightest.per_second,
                    retry_after_s=wait,
                )
            for rate in rates:
                self._add(rate, 1 / rate.per_second, now)
            return min((self._left(rate, now) for rate in rates), key=lambda left: left.remaining / left.rate.burst)

    def charge(self, rates: Sequence[Rate], cost: float) -> None:
        """What a request cost beyond 1, known only now."""
        with self._lock:
            now = self._clock()
            for rate in rates:
                ahead = max(0.0, self._whole_at.get(rate.bucket, now) - now)
                self._add(rate, max(0.0, min(cost / rate.per_second, MOST_DEBT_S - ahead)), now)

    def _wait(self, rate: Rate, now: float) -> float:
        """Seconds until one request more fits."""
        ahead = max(0.0, self._whole_at.get(rate.bucket, now) - now)
        return ahead - (max(rate.burst, 1.0) - 1 + 1e-6) / rate.per_second

    def _left(self, rate: Rate, now: float) -> Left:
        ahead = self._whole_at[rate.bucket] - now
        return Left(rate, max(0, int(rate.burst - ahead * rate.per_second + 1e-6)), ahead)

    def _add(self, rate: Rate, seconds: float, now: float) -> None:
        if len(self._whole_at) > SWEPT_ABOVE and rate.bucket not in self._whole_at:
            self._whole_at = {bucket: at for bucket, at in self._whole_at.items() if at > now}
        self._whole_at[rate.bucket] = max(self._whole_at.get(rate.bucket, now), now) + seconds
        if self._keeps_spent:
            self._spent[rate.bucket] = self._spent.get(rate.bucket, 0.0) + seconds

    # --- exchange with other processes: `tenants.limits.shared_rates`

    def take_spent(self) -> dict[str, float]:
        """Seconds that were taken from each bucket since this was last asked; from the first time on they are kept."""
        with self._lock:
            self._keeps_spent = True
            spent, self._spent = self._spent, {}
        return spent

    def give_back(self, spent: Mapping[str, float]) -> None:
        """They could not be told to anybody."""
        with self._lock:
            for bucket, seconds in spent.items():
                self._spent[bucket] = min(self._spent.get(bucket, 0.0) + seconds, MOST_DEBT_S)

    def adopt(self, ahead: Mapping[str, float]) -> None:
        """How many seconds each bucket is from being whole by what all processes took."""
        with self._lock:
            now = self._clock()
            for bucket, seconds in ahead.items():
                self._whole_at[bucket] = now + min(seconds + self._spent.get(bucket, 0.0), MOST_DEBT_S)
