"""How long until the service serves, and until a process has its first vector; and what idle processes hold."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from api.processes.local import local_service
from benchmarks.first_vector import TEXT
from benchmarks.harness import BenchmarkError, median, shown
from benchmarks.process_memory import pss_by_process
from benchmarks.report import Report
from benchmarks.workload import SERVICE
from carrel_client import Carrel

LONGEST_S = 120.0
LONGEST_PREPARING_S = 600.0
POLL_S = 0.01
SETTLE_S = 3.0  #: until what was allocated for the first document is handed back


@dataclass(frozen=True)
class Start:
    ready_s: float
    first_vector_s: float
    pss_mb: dict[str, float]  #: by process

    @property
    def total_mb(self) -> float:
        return sum(self.pss_mb.values())


def run(repeats: int, runtime: str) -> Report:
    with tempfile.TemporaryDirectory(prefix="carrel-models-") as models:
        settings = {"embedding_runtime": runtime, "models_dir": models}
        unprepared = first_vector(settings)  # what follows finds the model prepared, as every start but the first does
        cold = [first_vector(settings) for _ in range(repeats)]
        starts = [_start(settings) for _ in shown(range(repeats), "starts", repeats)]
    figures: dict[str, float | int] = {
        "ready_s": median(start.ready_s for start in starts),
        "first_vector_s": median(start.first_vector_s for start in starts),
        "cold_vector_s": median(cold),
        "cold_vector_unprepared_s": unprepared,
        "service_pss_mb": median(start.total_mb for start in starts),
    }
    for process in starts[0].pss_mb:
        figures[f"{process}_pss_mb"] = median(start.pss_mb.get(process, 0.0) for start in starts)
    return Report("startup", {**figures, "repeats": repeats})


def first_vector(settings: dict[str, str]) -> float:
    """Seconds from starting an interpreter until the product's own path has embedded one text in it."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CARREL_")}
    environment = kept | {f"CARREL_{name.upper()}": value for name, value in settings.items()}
    began = time.monotonic()
    command = [sys.executable, "-P", "-m", "benchmarks.first_vector"]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, timeout=LONGEST_PREPARING_S, check=False)
    took = time.monotonic() - began
    if done.stdout != "done\n":
        raise BenchmarkError(f"No vector was made (exit {done.returncode}); the messages above say why.")
    return took


def _start(settings: dict[str, str]) -> Start:
    with tempfile.TemporaryDirectory(prefix="carrel-startup-") as data:
        began = time.monotonic()
        with local_service(Path(data), **(SERVICE | settings)) as service:
            ready = time.monotonic() - began
            with service.tenant("one") as client:
                client.documents.create(text=TEXT, external_id="loans")
                _until_found(client, began + LONGEST_S)
            found = time.monotonic() - began
            time.sleep(SETTLE_S)
            return Start(ready, found, pss_by_process(service.pid))


def _until_found(client: Carrel, deadline: float) -> None:
    """Asks rather than follows the job: what counts is the answer, and a job is looked at ten times a second only."""
    while not client.query(TEXT, top_k=1).passages:
        if time.monotonic() > deadline:
            raise BenchmarkError(f"The first document was not found within {LONGEST_S:g} s.")
        time.sleep(POLL_S)
