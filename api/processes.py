"""The three processes: what each does from start to SIGTERM. `supervisor` runs them together."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import logging
import os
import signal
import socket
import threading
import time
from pathlib import Path
from types import FrameType

import uvicorn

from api.lifecycle import SIGNALS, Lifecycle
from api.locks import hold_lock, hold_slot
from config.logs import configure_logging
from config.settings import Settings, private_dir

log = logging.getLogger(__name__)

KEEP_ALIVE_S = 75  # uvicorn's 5 s would cut pooled clients off between two requests
DRAIN_S = 10  # in all: what requests under way are given to end
FAREWELL_S = 0.5  # of it: the port still answers, with 503, so that pooled clients and balancers are told, not cut off
PREDECESSOR_S = DRAIN_S + 5.0  # a child whose supervisor was killed may take DRAIN_S to end
REPAIR_PATIENCE_S = 1.0


def run_engine(settings: Settings) -> None:
    configure_logging("engine", settings.log_level)
    life = Lifecycle()
    from rag.store.edge import EdgeStore  # noqa: PLC0415  api and worker must not load the engine
    from rag.store.engine import EngineServer  # noqa: PLC0415

    with hold_lock(settings.data_dir, "engine", patience_s=PREDECESSOR_S):
        private_dir(settings.runtime_dir)
        server = EngineServer(EdgeStore(settings.data_dir / "vectors"))

        async def serve() -> None:
            stop = asyncio.Event()

            def asked(number: int) -> None:
                life.handle(number, None)
                life.draining()
                stop.set()

            for number in SIGNALS:
                asyncio.get_running_loop().add_signal_handler(number, asked, number)
            life.ready()
            await server.serve(settings.engine_socket, stop)

        asyncio.run(serve())
    life.stopped()


def run_worker(settings: Settings) -> None:
    configure_logging("worker", settings.log_level)
    life = Lifecycle()
    from api.heartbeat import Heartbeat  # noqa: PLC0415
    from api.housekeeping import housekeeping  # noqa: PLC0415
    from api.repairs import RepairLoop  # noqa: PLC0415
    from api.wiring import build_worker  # noqa: PLC0415  imports the model's libraries

    slot, lock = hold_slot(settings.data_dir, "worker")
    with lock:
        executor = f"{_place(settings.data_dir)}-{slot}"
        services = build_worker(settings, executor)
        _keep_what_is_loaded()
        if settings.worker_scheduling == "idle":
            _yield_to_queries()
        with Heartbeat(services.instances, "worker", executor) as heartbeat:
            services.worker.start()
            repairs = RepairLoop(services.reconciler, heartbeat.leads, every_s=settings.reconcile_seconds)
            repairs.start()
            life.ready()
            housekeeping(services, heartbeat, repairs).run(settings.sweep_seconds, life.stopping)
            life.draining()
            services.worker.close()  # first: it takes no more jobs, while a repair under way ends
            repairs.close(REPAIR_PATIENCE_S)
        life.stopped()
    # At once, and nothing closed before: a step that still runs would fail its job on it instead of being repeated later.
    os._exit(0)


def _keep_what_is_loaded() -> None:
    """The collector need not go through it ever again: that would stop all requests for 0.34 s, and all jobs."""
    gc.collect()
    gc.freeze()


def _place(data_dir: Path) -> str:
    """Names this machine and data directory: workers elsewhere on the same database have slots of the same numbers."""
    return hashlib.sha256(f"{socket.gethostname()}:{data_dir.resolve()}".encode()).hexdigest()[:8]


def run_api(settings: Settings, listener: socket.socket | None) -> None:
    """`listener`: the supervisor's, which outlives a crash of this process, so that clients wait instead of failing."""
    configure_logging("api", settings.log_level)
    life = Lifecycle()
    from api.app import create_service  # noqa: PLC0415  imports the model's libraries
    from api.heartbeat import Heartbeat  # noqa: PLC0415
    from api.wiring import build_api  # noqa: PLC0415

    services = build_api(settings)
    config = uvicorn.Config(
        create_service(services),
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=DRAIN_S - 1,
        server_header=False,
        proxy_headers=False,  # an address in a header is whatever the sender likes
    )
    _keep_what_is_loaded()
    with Heartbeat(services.instances, "api"):
        _Server(config, life, services.draining).run(sockets=[listener] if listener is not None else None)
    services.close()
    life.stopped()
    os._exit(0)  # as the worker: a part that hangs in a check of readiness must not hold the process


class _Server(uvicorn.Server):
    """Asked to stop, it says so to every request for a moment (`middleware.Drain`), and only then stops listening."""

    def __init__(self, config: uvicorn.Config, life: Lifecycle, draining: threading.Event) -> None:
        super().__init__(config)
        self._life, self._draining = life, draining
        self._leave_at = float("inf")

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._life.ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._life.handle(sig, frame)
        self._draining.set()

    async def on_tick(self, counter: int) -> bool:
        if self._draining.is_set() and self._leave_at == float("inf"):
            self._leave_at = time.monotonic() + FAREWELL_S
            self._life.draining()
        self.should_exit = self.should_exit or time.monotonic() >= self._leave_at
        return await super().on_tick(counter)


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


def _yield_to_queries() -> None:
    """SCHED_IDLE: while the worker embeds in bulk a query takes 1.2 times its quiet time; at nice 10 it took 2.4."""
    try:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    except OSError as error:
        log.warning("the worker could not lower its priority", extra={"reason": str(error)})
