"""Time, injected, so that tests own it."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable

#: Returns milliseconds since the Unix epoch, UTC. Stored times are these: SQLite drops time zones, integers keep.
Clock = Callable[[], int]


def system_clock() -> int:
    return time.time_ns() // 1_000_000


def isoformat(unix_ms: int) -> str:
    """RFC 3339 in UTC with milliseconds, as the API shows times."""
    moment = dt.datetime.fromtimestamp(unix_ms / 1000, dt.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def month(unix_ms: int) -> str:
    """The UTC month that a budget window is named by, as "2026-11"."""
    return dt.datetime.fromtimestamp(unix_ms / 1000, dt.UTC).strftime("%Y-%m")


def day(unix_ms: int) -> str:
    """The UTC day, as "2026-11-21"."""
    return dt.datetime.fromtimestamp(unix_ms / 1000, dt.UTC).strftime("%Y-%m-%d")
