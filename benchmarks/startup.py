"""How long until the service serves, on an empty data directory, and what it holds when nobody asks anything."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from api.local import local_service
from benchmarks.harness import BenchmarkError, median, shown
from benchmarks.memory import pss_mb
from benchmarks.report import Report
from benchmarks.workload import SERVICE
from carrel_client import Carrel

TEXT = "Books may be kept for four weeks."
LONGEST_S = 120.0
POLL_S = 0.01
SETTLE_S = 3.0  #: until what was allocated for the first document is handed back


@dataclass(frozen=True)
class Start:
    ready_s: float
    first_vector_s: float
    pss_mb: float


def run(repeats: int, runtime: str) -> Report:
    starts = [_start(runtime) for _ in shown(range(repeats), "starts", repeats)]
    figures = {
        "ready_s": median(start.ready_s for start in starts),
        "first_vector_s": median(start.first_vector_s for start in starts),
        "service_pss_mb": median(start.pss_mb for start in starts),
        "repeats": repeats,
    }
    return Report("startup", figures)


def _start(runtime: str) -> Start:
    with tempfile.TemporaryDirectory(prefix="carrel-startup-") as data:
        began = time.monotonic()
        with local_service(Path(data), **SERVICE, embedding_runtime=runtime) as service:
            ready = time.monotonic() - began
            with service.tenant("one") as client:
                client.documents.create(text=TEXT, external_id="loans")
                _until_found(client, began + LONGEST_S)
            found = time.monotonic() - began
            time.sleep(SETTLE_S)
            return Start(ready, found, pss_mb(service.pid))


def _until_found(client: Carrel, deadline: float) -> None:
    """Asks rather than follows the job: what counts is the answer, and a job is looked at ten times a second only."""
    while not client.query(TEXT, top_k=1).passages:
        if time.monotonic() > deadline:
            raise BenchmarkError(f"The first document was not found within {LONGEST_S:g} s.")
        time.sleep(POLL_S)
