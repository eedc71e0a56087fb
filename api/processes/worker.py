"""The worker process, from start to SIGTERM. It serves no HTTP."""

from __future__ import annotations

import hashlib
import logging
import os
import socket
import threading
from contextlib import suppress
from pathlib import Path

from api.processes.heartbeat import Heartbeat
from api.processes.housekeeping import clearing, housekeeping
from api.processes.lifecycle import Lifecycle, keep_what_is_loaded
from api.processes.locks import hold_slot
from api.processes.repairs import RepairLoop
from api.wiring.worker import build_worker
from config.settings import Settings
from ingestion.conversations.turn_vectors import TurnLoop
from ingestion.sandbox import Sandbox

log = logging.getLogger(__name__)

REPAIR_PATIENCE_S = 1.0


def run_worker(settings: Settings, life: Lifecycle) -> None:
    slot, lock = hold_slot(settings.data_dir, "worker")
    with lock:
        executor = f"{_place(settings.data_dir)}-{slot}"
        services = build_worker(settings, executor)
        _say_how_parsers_are_confined(services.sandbox)
        if settings.worker_scheduling == "idle":
            _yield_to_queries()
        with Heartbeat(services.instances, "worker", executor) as heartbeat:
            services.worker.start()
            services.webhooks.start()
            repairs = RepairLoop(services.reconciler, heartbeat.leads, every_s=settings.reconcile_seconds)
            repairs.start()
            turns = TurnLoop(services.turns, heartbeat.leads)
            turns.start()
            keep_what_is_loaded()
            clears, every = clearing(services, heartbeat), (settings.sweep_seconds, life.stopping)
            threading.Thread(target=clears.run, args=every, name="clearing", daemon=True).start()
            life.ready()
            housekeeping(services, heartbeat, repairs).run(*every)
            life.draining()
            services.worker.close()  # first: it takes no more jobs, while a repair under way ends
            turns.close()
            repairs.close(REPAIR_PATIENCE_S)
            services.webhooks.close()
        life.stopped()
    # At once, and nothing closed before: a step that still runs would fail its job on it instead of being repeated later.
    os._exit(0)


def _place(data_dir: Path) -> str:
    """Names this machine and data directory: workers elsewhere on the same database have slots of the same numbers."""
    return hashlib.sha256(f"{socket.gethostname()}:{data_dir.resolve()}".encode()).hexdigest()[:8]


def _say_how_parsers_are_confined(sandbox: Sandbox) -> None:
    found = sandbox.confinement()
    level = logging.WARNING if found.remains() else logging.INFO
    log.log(level, "parsers are confined", extra={"by": str(found), "remains": "; ".join(found.remains()) or "nothing"})


def _yield_to_queries() -> None:
    """SCHED_IDLE: while the worker embeds in bulk a query takes 1.2 times its quiet time; at nice 10 it took 2.4.

    For each thread that is there: the model's were made when it was loaded. Later ones inherit it.
    """
    threads = Path("/proc/self/task")
    try:
        for thread in [int(path.name) for path in threads.iterdir()] if threads.is_dir() else [0]:
            with suppress(ProcessLookupError):  # it has ended since
                os.sched_setscheduler(thread, os.SCHED_IDLE, os.sched_param(0))
    except OSError as error:
        log.warning("the worker could not lower its priority", extra={"reason": str(error)})
