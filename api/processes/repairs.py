"""Runs the reconciler in a worker, in a thread of its own: after the start, every hour, when somebody died, and when the
engine comes back with less than it had."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from config.errors import Unavailable
from ingestion.reconciler import Reconciler

log = logging.getLogger(__name__)

WATCH_S = 5.0
RETRY_S = 60.0  # after something unforeseen


class RepairLoop:
    def __init__(self, reconciler: Reconciler, leads: Callable[[], bool], *, every_s: float, watch_s: float = WATCH_S) -> None:
        """`leads`: whether this worker is the one among several that repairs."""
        self._reconciler, self._leads, self._every_s, self._watch_s = reconciler, leads, every_s, watch_s
        self._stopping, self._ring, self._asked = threading.Event(), threading.Event(), threading.Event()
        self._due = 0.0
        self._engine: tuple[str, int] | None = None  #: its run and points when it was last asked, None if it did not answer
        self._thread = threading.Thread(target=self._run, name="repairs", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """Look now: somebody died and may have left something behind."""
        self._asked.set()
        self._ring.set()

    def close(self, patience_s: float = 5.0) -> None:
        """A repair under way is given a moment; what it does not reach, the next start does."""
        self._stopping.set()
        self._ring.set()
        self._thread.join(patience_s)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self.look()
            except Unavailable as error:
                log.warning("repairs wait", extra={"reason": error.detail})
            except Exception:
                if not self._stopping.is_set():
                    log.exception("repairing failed; it is tried again")
                self._due = time.monotonic() + RETRY_S
            self._ring.wait(self._watch_s)
            self._ring.clear()

    def look(self) -> bool:
        """Run the reconciler if it is time to; return whether it was."""
        if not self._leads():
            return False
        lost = self._may_have_lost() and self._reconciler.engine_lost_points()
        if not lost and not self._asked.is_set() and time.monotonic() < self._due:
            return False
        self._asked.clear()  # before: whoever asks during the run wants another
        self._due = time.monotonic()  # until it has succeeded
        self._reconciler.run_once()
        self._due = time.monotonic() + self._every_s
        return True

    def _may_have_lost(self) -> bool:
        """Whether SQL should be asked how many there ought to be: not while the engine is away, and not while it grows.

        It may have grown and lost everything between two looks: then it is another run of it.
        """
        before, self._engine = self._engine, self._reconciler.engine()
        if self._engine is None:
            return False
        run, points = self._engine
        return before is None or run != before[0] or points < before[1]
