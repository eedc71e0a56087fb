"""One process from its start to its end: what its signals mean, and a log line for each stage with how long it took."""

from __future__ import annotations

import gc
import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType

log = logging.getLogger(__name__)

SIGNALS = (signal.SIGTERM, signal.SIGINT)
DRAIN_S = 10  # in all: what requests under way are given to end
PREDECESSOR_S = DRAIN_S + 5.0  # a child whose supervisor was killed may take DRAIN_S to end


class Lifecycle:
    """The first SIGTERM or SIGINT asks the process to stop; a second one ends it at once, and so does one before it has
    `started`. Ending at once is safe at any moment, as SIGKILL is: it is only not polite.
    """

    def __init__(self, *, at_once: Callable[[], None] = lambda: None) -> None:
        """`at_once`: what a second signal must still do."""
        self._at_once = at_once
        self._since, self._started = time.monotonic(), False
        self.stopping = threading.Event()
        for number in SIGNALS:
            signal.signal(number, self.handle)
        log.info("starting", extra={"pid": os.getpid()})

    def handle(self, number: int, _frame: FrameType | None) -> None:
        """Logs nothing: the signal may have come in the middle of a line."""
        if self.stopping.is_set():
            self._at_once()
            os._exit(128 + number)
        if not self._started:
            os._exit(0)
        self.stopping.set()

    def started(self) -> None:
        """From now on there is something to stop."""
        self._started = True

    def ready(self) -> None:
        self._started = True
        log.info("ready", extra={"seconds": self._lap()})

    def draining(self) -> None:
        """To be called by the process's own loop when it meets `stopping`."""
        log.info("draining", extra={"ran_s": self._lap()})

    def stopped(self) -> None:
        log.info("stopped", extra={"drained_s": self._lap()})

    def _lap(self) -> float:
        now = time.monotonic()
        seconds, self._since = now - self._since, now
        return round(seconds, 3)


def load_without_collecting() -> None:
    """Until `keep_what_is_loaded`: next to nothing is garbage while modules load, and looking for it takes 0.1 s."""
    gc.disable()


def keep_what_is_loaded() -> None:
    """What is loaded by now stays: going through it would stop all requests for 0.34 s, again and again."""
    gc.freeze()
    gc.enable()


def end_with_parent() -> None:
    """End this process when the pipe on its standard input closes: a killed supervisor leaves nothing behind."""

    def watch() -> None:
        # The descriptor itself: a thread inside sys.stdin would crash the interpreter when it ends.
        while os.read(0, 4096):
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(DRAIN_S + 2.0)
        os._exit(1)

    threading.Thread(target=watch, name="lifeline", daemon=True).start()
