"""Says in SQL that this process lives, from a thread of its own: nothing that the process does may delay it."""

from __future__ import annotations

import logging
import threading
from types import TracebackType

from sqlalchemy.exc import SQLAlchemyError

from ingestion.jobs.instances import Instances

log = logging.getLogger(__name__)

BEAT_S = 2.0


class Heartbeat:
    def __init__(self, instances: Instances, kind: str, executor: str | None = None) -> None:
        self._instances, self._kind, self._executor = instances, kind, executor
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def __enter__(self) -> Heartbeat:
        self.id = self._instances.register(self._kind, self._executor)
        self._thread.start()
        return self

    def __exit__(self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()
        self._instances.end(self.id)

    def leads(self) -> bool:
        """Whether this is the oldest living process of its kind: the one that does what only one should."""
        same = [instance.id for instance in self._instances.living() if instance.kind == self._kind]
        return min(same, default=self.id) == self.id

    def _run(self) -> None:
        while not self._stop.wait(BEAT_S):
            try:
                if not self._instances.beat(self.id):
                    log.warning("this process was taken for dead", extra={"instance": self.id})
                    self.id = self._instances.register(self._kind, self._executor)
            except SQLAlchemyError:
                log.exception("the heartbeat failed; it is tried again")
