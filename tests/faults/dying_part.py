"""A worker or an engine that dies by SIGKILL at one named point after another, as soon as it comes by, and then lives.

Run as `python -m tests.faults.dying_part worker|engine`, with the service's environment. Each point it died at is a line.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any

import ingestion.pipeline.pipeline
import ingestion.pipeline.reading
import ingestion.removal.collector
import rag.store.remote
import tenants.ledger.budget
from api.processes.engine import run_engine
from api.processes.lifecycle import Lifecycle, end_with_parent
from api.processes.plans import EnginePlan
from api.processes.worker import run_worker
from config.logs import configure_logging
from config.settings import Settings
from rag.store import engine


@dataclass(frozen=True)
class Point:
    owner: Any
    call: str
    after: bool = True  #: dies when the call has returned, or else when it begins
    operation: str = ""  #: of the engine: the only one that counts


WORKER = {
    "taken up": Point(ingestion.pipeline.pipeline.Pipeline, "take_up"),
    "read": Point(ingestion.pipeline.reading.Reading, "_parse"),
    "chunks written": Point(ingestion.pipeline.reading.Reading, "_write_chunks"),
    "held": Point(tenants.ledger.budget.TenantMeter, "hold"),
    "embedded, not settled": Point(tenants.ledger.budget.TenantMeter, "settle", after=False),
    "settled, not indexed": Point(tenants.ledger.budget.TenantMeter, "settle"),
    "indexed, not counted": Point(rag.store.remote.EngineVectors, "upsert"),
    "counted, not committed": Point(ingestion.pipeline.pipeline.Pipeline, "_count"),
    "switched, not committed": Point(ingestion.pipeline.pipeline.Pipeline, "_switch"),
    "live": Point(ingestion.pipeline.pipeline.Pipeline, "complete"),
    "collecting": Point(ingestion.removal.collector.Collector, "collect", after=False),
    "points deleted": Point(rag.store.remote.EngineVectors, "delete_points"),
    "contents deleted": Point(ingestion.removal.collector.Collector, "_delete_blobs"),
    "collected, not ended": Point(ingestion.removal.collector.Collector, "collect"),
}
ENGINE = {
    "upsert received": Point(engine.EngineServer, "_write", after=False, operation="upsert"),
    "upsert applied, not synced": Point(engine.EngineServer, "_write", operation="upsert"),
    "delete received": Point(engine.EngineServer, "_write", after=False, operation="delete_points"),
    "delete applied, not synced": Point(engine.EngineServer, "_write", operation="delete_points"),
    "syncing": Point(engine, "sync_files", after=False),
    "synced, not answered": Point(engine, "sync_files"),
}
POINTS = {"worker": WORKER, "engine": ENGINE}


def _arm(point: Point) -> None:
    """Wrap the call, in this process only."""
    call: Callable[..., Any] = getattr(point.owner, point.call)

    @wraps(call)
    def deadly(*args: Any, **kwargs: Any) -> Any:
        if point.operation and point.operation not in args:
            return call(*args, **kwargs)
        if point.after:
            call(*args, **kwargs)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(point.owner, point.call, deadly)


def _run(part: str) -> None:
    configure_logging(part, "error")
    settings = Settings()
    if part == "worker":
        run_worker(settings, Lifecycle())
    else:
        run_engine(EnginePlan.of(settings), Lifecycle())


def main(part: str) -> None:
    end_with_parent()
    for name, point in POINTS[part].items():
        pid = os.fork()
        if pid == 0:
            end_with_parent()
            _arm(point)
            _run(part)
        if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != -signal.SIGKILL:
            raise SystemExit(f"it ended otherwise than it was told to, at {name!r}")
        print(name, flush=True)
    _run(part)


if __name__ == "__main__":
    main(sys.argv[1])
