"""Indexes of sessions that are kept in memory, the longest unused of them let go first. They hold hashes of words and vectors,
no texts; what they say is checked against SQL by whoever asks them.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable

import numpy as np

from rag.recall.thread import Column, Thread

IDLE_S = 900.0  #: unused for so long, one is let go: what was erased since does not stay in memory either
Key = tuple[str, str]  #: tenant and session


class Held:
    """The index of one session, and how far of it is in. Whoever reads or changes it holds `lock`."""

    def __init__(self, dimensions: int, before: int = 0) -> None:
        self.thread, self.roles = Thread(dimensions), Column(np.int8)
        self.before = before  #: turns before the first that is indexed
        self.seq = before  #: the last turn that is indexed
        self.embedded = before  #: up to which turn vectors are in
        self.lock = threading.RLock()
        self.used_at = 0.0

    @property
    def nbytes(self) -> int:
        return self.thread.nbytes + self.roles.nbytes


class Residents:
    """`max_bytes`: of all indexes together; one that is larger alone is kept until the next is needed."""

    def __init__(self, dimensions: int, max_bytes: int, seconds: Callable[[], float] = time.monotonic) -> None:
        self._dimensions, self._max_bytes, self._seconds = dimensions, max_bytes, seconds
        self._lock = threading.Lock()
        self._held: OrderedDict[Key, Held] = OrderedDict()
        self._bytes: dict[Key, int] = {}
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._held)

    def get(self, key: Key) -> Held:
        """An empty one where there was none."""
        with self._lock:
            held = self._held.get(key)
            if held is None:
                held = self._held[key] = Held(self._dimensions)
                self._weigh([key])  # one that stays empty takes room too
            self._held.move_to_end(key)
            held.used_at = self._seconds()
            self._let_go_unused(held.used_at - IDLE_S)
            return held

    def renew(self, key: Key, before: int) -> Held:
        """An empty one instead of what was there; whoever still reads the old one finishes with it."""
        with self._lock:
            held = self._held[key] = Held(self._dimensions, before)
            self._held.move_to_end(key)
            held.used_at = self._seconds()
            return held

    def weigh(self, keys: Iterable[Key]) -> None:
        """After they grew: let others go, the longest unused first, until all is within bounds."""
        with self._lock:
            self._weigh(keys)

    def _weigh(self, keys: Iterable[Key]) -> None:
        for key in keys:
            if key in self._held:
                size = self._held[key].nbytes
                self.bytes += size - self._bytes.get(key, 0)
                self._bytes[key] = size
        while self.bytes > self._max_bytes and len(self._held) > 1:
            self._drop(next(iter(self._held)))

    def forget(self, tenant_id: str, session_ids: Iterable[str]) -> None:
        with self._lock:
            for session_id in session_ids:
                self._drop((tenant_id, session_id))

    def let_go_unused(self, idle_s: float = IDLE_S) -> None:
        """So that nothing stays where nobody asks any more."""
        with self._lock:
            self._let_go_unused(self._seconds() - idle_s)

    def _let_go_unused(self, since: float) -> None:
        while self._held:
            oldest = next(iter(self._held))
            if self._held[oldest].used_at >= since:
                return
            self._drop(oldest)

    def _drop(self, key: Key) -> None:
        self._held.pop(key, None)
        self.bytes -= self._bytes.pop(key, 0)
