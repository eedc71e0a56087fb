"""Time, injected, so that tests own it."""

from __future__ import annotations

import datetime as dt
import re
import time
from collections.abc import Callable
from functools import lru_cache

#: Returns milliseconds since the Unix epoch, UTC. Stored times are these: SQLite drops time zones, integers keep.
Clock = Callable[[], int]


def system_clock() -> int:
    return time.time_ns() // 1_000_000


_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MS = dt.timedelta(milliseconds=1)
_FIRST, _LAST = ((end.replace(tzinfo=dt.UTC) - _EPOCH) // _MS for end in (dt.datetime.min, dt.datetime.max))


def isoformat(unix_ms: int) -> str:
    """RFC 3339 in UTC with milliseconds, as the API shows times; of one outside of the years 1 to 9999, which a time zone or
    a span of life can lead to, the nearest that can be written."""
    moment = _EPOCH + min(max(unix_ms, _FIRST), _LAST) * _MS
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


_MOMENT = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d{1,6})?)?(Z|[+-]\d\d:\d\d)", re.ASCII)


@lru_cache(maxsize=4_096)
def instant(text: str) -> int | None:
    """Unix milliseconds of a time in ISO 8601 with its zone; None for any other text."""
    if not _MOMENT.fullmatch(text):
        return None
    try:
        moment = dt.datetime.fromisoformat(text).astimezone(dt.UTC)
    except (ValueError, OverflowError):
        return None
    return (moment - _EPOCH) // _MS


def month(unix_ms: int) -> str:
    """The UTC month that a budget window is named by, as "2026-11"."""
    return dt.datetime.fromtimestamp(unix_ms / 1000, dt.UTC).strftime("%Y-%m")


def day(unix_ms: int) -> str:
    """The UTC day, as "2026-11-21"."""
    return dt.datetime.fromtimestamp(unix_ms / 1000, dt.UTC).strftime("%Y-%m-%d")
