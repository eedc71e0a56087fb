"""What an api process does beside its requests, from a thread of its own."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Task:
    name: str
    work: Callable[[], None]
    every_s: float
    due: float = 0.0


class Upkeep:
    """Each task fails alone and is tried again. At the end all are done once more, so that nothing is left untold."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        self._tasks, self._stop = tasks, threading.Event()
        self._thread = threading.Thread(target=self._run, name="upkeep", daemon=True)

    def __enter__(self) -> Upkeep:
        self._thread.start()
        return self

    def __exit__(self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()
        for task in self._tasks:
            self._try(task)

    def _run(self) -> None:
        for task in self._tasks:
            task.due = time.monotonic() + task.every_s
        while not self._stop.wait(max(0.0, min(task.due for task in self._tasks) - time.monotonic())):
            for task in self._tasks:
                if time.monotonic() >= task.due:
                    self._try(task)
                    task.due = time.monotonic() + task.every_s

    def _try(self, task: Task) -> None:
        try:
            task.work()
        except Exception:
            log.exception("upkeep failed; it is tried again", extra={"task": task.name})
