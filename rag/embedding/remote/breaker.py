"""Leaves a provider alone that keeps failing: closed → open after failures in a row → one probe → closed or open again.

A 429 is pressure and no failure. What was sent before the breaker last changed says nothing about the provider now.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType

from config.errors import CarrelError, Unavailable
from rag.embedding.remote.failures import Broken, Pressed, ProviderFailure

FAILURES = 8  # in a row
COOL_DOWN_S = 15.0
PROBE_RETRY_S = 1.0


class Breaker:
    def __init__(self, clock: Callable[[], float], *, failures: int = FAILURES, cool_down_s: float = COOL_DOWN_S) -> None:
        self._clock, self._most, self._cool_down_s = clock, failures, cool_down_s
        self._lock = threading.Lock()
        self._failed = self._era = 0
        self._open_until: float | None = None  #: None: closed
        self._probing = False
        self.openings = 0

    def check(self) -> None:
        """Raise Unavailable if a request would be refused now."""
        with self._lock:
            self._check()

    @property
    def is_open(self) -> bool:
        with self._lock:
            return self._open_until is not None

    def request(self) -> _Request:
        """To be held while a request is under way; entering raises Unavailable, leaving records how it went."""
        return _Request(self)

    def _check(self) -> None:
        if self._open_until is None:
            return
        left = self._open_until - self._clock()
        if left > 0 or self._probing:
            detail = "The embedding provider kept failing and is left alone for a while."
            raise Unavailable(detail, retry_after_s=max(left, PROBE_RETRY_S))

    def enter(self) -> int:
        with self._lock:
            self._check()
            self._probing = self._open_until is not None
            return self._era

    def leave(self, era: int, error: BaseException | None) -> None:
        with self._lock:
            if era != self._era:
                return
            if isinstance(error, Broken):
                self._count_failure()
            elif error is None or isinstance(error, ProviderFailure | CarrelError):
                self._count_life(pressed=isinstance(error, Pressed))
            self._probing = False  # also if it was interrupted: then the next request is the probe

    def _count_failure(self) -> None:
        self._failed += 1
        if self._probing or self._failed >= self._most:
            self._open_until = self._clock() + self._cool_down_s
            self._era, self._failed = self._era + 1, 0
            self.openings += 1

    def _count_life(self, *, pressed: bool) -> None:
        if self._probing:
            self._open_until, self._era, self._failed = None, self._era + 1, 0
        elif not pressed:
            self._failed = 0


class _Request:
    def __init__(self, breaker: Breaker) -> None:
        self._breaker, self._era = breaker, -1

    def __enter__(self) -> None:
        self._era = self._breaker.enter()

    def __exit__(self, _kind: type[BaseException] | None, error: BaseException | None, _at: TracebackType | None) -> None:
        self._breaker.leave(self._era, error)
