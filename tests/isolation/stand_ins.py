"""What replaces a part of the service in these tests, with the same shape: the queue, the worker's loop, cache and log."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from config.database import Database
from config.logs import JsonLines
from ingestion.intake.admission import Admission
from ingestion.pipeline.pipeline import Pipeline
from ingestion.queue.workflow import ContextOfJob, MemoryQueue, Steps, process
from rag.embedding.cache import CacheStats, cache_key
from rag.store.base import Space, Vector
from rag.types import Scope


class InlineQueue(MemoryQueue):
    def __init__(self, _database: Database, _admission: Admission | None = None) -> None:
        super().__init__()

    def close(self) -> None:
        pass


class InlineWorker:
    """In the durable worker's place: runs what waits, in this thread."""

    def __init__(self, _database: Database, pipeline: Pipeline, context_of_job: ContextOfJob, **_options: object) -> None:
        self._steps = Steps.of(pipeline, context_of_job, pause=_never)

    def run(self, queue: MemoryQueue) -> None:
        while queue.waiting:
            process(self._steps, *queue.waiting.popleft())

    def close(self) -> None:
        pass


def _never(_seconds: float) -> None:
    raise AssertionError("nothing is unavailable here")


class RewoundCache:
    """The embedding cache with the real one's keys; it can go back to where it was."""

    def __init__(self) -> None:
        self._known: dict[bytes, tuple[str, Vector]] = {}
        self._mark: dict[bytes, tuple[str, Vector]] = {}

    def get(self, scope: Scope, space: Space, texts: list[str]) -> list[Vector | None]:
        return [self._known.get(cache_key(scope, space, text), ("", None))[1] for text in texts]

    def put(self, scope: Scope, space: Space, vectors: Mapping[str, Vector]) -> None:
        self._known.update({cache_key(scope, space, text): (scope.tenant_id, vector) for text, vector in vectors.items()})

    def stats(self, scope: Scope) -> CacheStats:
        held = [vector for tenant_id, vector in self._known.values() if tenant_id == scope.tenant_id]
        return CacheStats(len(held), sum(vector.nbytes for vector in held))

    def erase(self, scope: Scope, keys: Sequence[bytes]) -> None:
        for key in keys:
            self._known.pop(key, None)

    def mark(self) -> None:
        self._mark = dict(self._known)

    def rewind(self) -> None:
        self._known = dict(self._mark)

    def close(self) -> None:
        pass


class Lines(logging.Handler):
    """What would be written to the log."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.setFormatter(JsonLines("test"))
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))
