"""Whether new work is taken in: while its jobs have room to wait, and the disk room for what was accepted before.

Deletes, running jobs and questions are never refused here: they make room, or need none.
"""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from config.errors import Overloaded, QueueFull, StorageFull

FRESH_S, FRESH_FULL_S = 1.0, 0.2  # how old a count may be; and one that would refuse
TENANTS = 10_000  # whose counts are kept
ROOM = 0.05  # of the bound: who was refused should find that much free, or all of them come back for one place
NEW_IN_PACE = 0.3  # weight of the newest observation in the running mean
MIN_RETRY_S, MAX_RETRY_S, UNKNOWN_RETRY_S = 1.0, 60.0, 10.0

#: Jobs of a tenant (None: of all) that wait, counted up to the number.
CountWaiting = Callable[[str | None, int], int]
Disk = Callable[[], tuple[int, int]]  #: bytes free, and of the whole file system


def disk_of(folder: Path) -> Disk:
    def room() -> tuple[int, int]:
        found = os.statvfs(folder)  # 2 µs: asked for every document
        return found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize

    return room


@dataclass(frozen=True, slots=True)
class DiskMark:
    """Below it new documents are refused, long before a write of old work would fail."""

    disk: Disk
    least_bytes: int
    least_percent: float

    def room(self) -> tuple[int, int]:
        """Bytes that are free, and that must be."""
        free, whole = self.disk()
        return free, max(self.least_bytes, int(whole * self.least_percent / 100))

    def require(self) -> None:
        free, least = self.room()
        if free < least:
            detail = "The disk is nearly full: nothing new is taken in until there is room again."
            raise StorageFull(detail, limit=least, retry_after_s=MAX_RETRY_S)


@dataclass(slots=True)
class _Depth:
    """How many jobs wait: counted at a moment, and added by this process since."""

    counted: int
    at: float
    added: int = 0
    pace: float = 0.0  #: jobs a second that are taken

    @property
    def waiting(self) -> int:
        return self.counted + self.added


class Admission:
    """Counts at most once a second for each tenant, so the bounds hold but for what other processes add meanwhile, and what
    requests that run at the same moment do.
    """

    def __init__(self, *, tenant_jobs: int, all_jobs: int, disk: DiskMark, clock: Callable[[], float] = time.monotonic) -> None:
        self._tenant_jobs, self._all_jobs, self._disk, self._clock = tenant_jobs, all_jobs, disk, clock
        self._depths: OrderedDict[str | None, _Depth] = OrderedDict()
        self._lock = threading.Lock()

    def require(self, tenant_id: str, count: CountWaiting) -> None:
        """Raise StorageFull, QueueFull (the tenant's own doing) or Overloaded."""
        self._disk.require()
        if (after_s := self._full(tenant_id, self._tenant_jobs, count)) is not None:
            detail = f"{self._tenant_jobs} jobs of the tenant wait; bring more when some are done."
            raise QueueFull(detail, limit=self._tenant_jobs, retry_after_s=after_s)
        if (after_s := self._full(None, self._all_jobs, count)) is not None:
            raise Overloaded("Too many documents of all tenants wait.", limit=self._all_jobs, retry_after_s=after_s)

    def taken(self, tenant_id: str) -> None:
        """A job was added, in a transaction that may still fail: the next count knows."""
        with self._lock:
            for key in (tenant_id, None):
                if (depth := self._depths.get(key)) is not None:
                    depth.added += 1

    def _full(self, key: str | None, bound: int, count: CountWaiting) -> float | None:
        """None if one more may wait; else after how many seconds to come again."""
        depth, now = self._depths.get(key), self._clock()
        fresh_s = FRESH_S if depth is not None and depth.waiting < bound else FRESH_FULL_S
        if depth is None or now - depth.at > fresh_s:
            depth = self._counted(key, depth, count(key, bound))
        if depth.waiting < bound:
            return None
        return min(max(ROOM * bound / depth.pace, MIN_RETRY_S), MAX_RETRY_S) if depth.pace else UNKNOWN_RETRY_S

    def _counted(self, key: str | None, before: _Depth | None, counted: int) -> _Depth:
        depth = _Depth(counted, self._clock())
        if before is not None:
            depth.pace = before.pace
            if counted and (seconds := depth.at - before.at) > 0:  # an empty queue tells no pace
                seen = max(0.0, before.waiting - counted) / seconds
                depth.pace += (seen - depth.pace) * (NEW_IN_PACE if before.pace else 1.0)
        with self._lock:
            self._depths[key] = depth
            self._depths.move_to_end(key)
            while len(self._depths) > TENANTS:
                self._depths.popitem(last=False)
        return depth
