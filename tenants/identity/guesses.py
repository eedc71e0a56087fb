"""Who sends wrong keys again and again: counted by address, in memory that is bounded.

An address may send a few wrong keys a minute. Beyond that each is answered 429, and while it goes on its count does not
fade. Keys that are known go on from there as before; unknown ones are still looked up, ten a second, so that a good key
behind the same address as a guesser is let in when it first comes, if need be after some tries.
"""

from __future__ import annotations

import ipaddress
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from config.errors import RateLimited

LONGEST_S = 300.0  #: that an address is kept out after its last wrong key
LOOK_UPS_PER_S = 10.0
MAX_ADDRESSES = 10_000  #: that are remembered; 0.3 kB each
WINDOW_S = 60.0


@dataclass(slots=True)
class _Record:
    """Moments at which its wrong keys are forgotten, and at which it may have another key looked up."""

    clear_at: float = 0.0
    look_at: float = 0.0


class Guesses:
    """`per_minute`: wrong keys of one address that are answered as such."""

    def __init__(self, per_minute: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._step_s, self._clock = WINDOW_S / per_minute, clock
        self._records: dict[str, _Record] = {}
        self._lock = threading.Lock()

    def admit(self, address: str) -> None:
        """A key that is not known came from there. Raise RateLimited if it is not even looked up."""
        with self._lock:
            now, record = self._clock(), self._records.get(_network(address))
            if record is None or record.clear_at - now < WINDOW_S:
                return
            if record.look_at > now:
                raise _refusal(record.look_at - now)
            record.look_at = now + 1 / LOOK_UPS_PER_S

    def wrong(self, address: str) -> None:
        """It was none. Raise RateLimited if there were too many."""
        name = _network(address)
        with self._lock:
            now = self._clock()
            record = self._records.pop(name, None) or _Record()
            over = record.clear_at - now > WINDOW_S - self._step_s
            record.clear_at = min(max(record.clear_at, now) + self._step_s, now + WINDOW_S + LONGEST_S)
            if len(self._records) >= MAX_ADDRESSES:
                del self._records[next(iter(self._records))]  # silent for longest
            self._records[name] = record
            if over:
                raise _refusal(record.clear_at - now - WINDOW_S + self._step_s)


def _refusal(wait_s: float) -> RateLimited:
    return RateLimited("Too many wrong keys came from this address.", retry_after_s=max(wait_s, 0.1))


def _network(address: str) -> str:
    """Of IPv6 the /64: who has one address of it has them all."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    return str(ipaddress.ip_network((found, 64), strict=False)) if found.version == 6 and not found.ipv4_mapped else address
