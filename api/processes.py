"""The three processes: what each does from start to SIGTERM. `supervisor` runs them together."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
import threading
import time
from types import FrameType
from typing import TYPE_CHECKING

import uvicorn

from api.locks import hold_lock
from config.logs import configure_logging
from config.settings import Settings, private_dir

if TYPE_CHECKING:
    from api.repairs import RepairLoop
    from api.wiring import WorkerServices

log = logging.getLogger(__name__)

KEEP_ALIVE_S = 75  # uvicorn's 5 s would cut pooled clients off between two requests
DRAIN_S = 10
PREDECESSOR_S = DRAIN_S + 5.0  # a child whose supervisor was killed may take DRAIN_S to end
PURGE_EVERY_S = 3600.0


def run_engine(settings: Settings) -> None:
    configure_logging("engine", settings.log_level)
    from rag.store.edge import EdgeStore  # noqa: PLC0415  api and worker must not load the engine
    from rag.store.engine import EngineServer  # noqa: PLC0415

    with hold_lock(settings.data_dir, "engine", patience_s=PREDECESSOR_S):
        private_dir(settings.runtime_dir)
        server = EngineServer(EdgeStore(settings.data_dir / "vectors"))

        async def serve() -> None:
            stop = asyncio.Event()
            loop = asyncio.get_running_loop()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, stop.set)
            await server.serve(settings.engine_socket, stop)

        asyncio.run(serve())


def run_worker(settings: Settings) -> None:
    configure_logging("worker", settings.log_level)
    from api.heartbeat import Heartbeat  # noqa: PLC0415
    from api.repairs import RepairLoop  # noqa: PLC0415
    from api.wiring import EXECUTOR, build_worker  # noqa: PLC0415  imports the model's libraries

    with hold_lock(settings.data_dir, "worker", patience_s=PREDECESSOR_S):
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        services = build_worker(settings)
        if settings.worker_scheduling == "idle":
            _yield_to_queries()
        with Heartbeat(services.instances, "worker", EXECUTOR) as heartbeat:
            services.worker.start()
            repairs = RepairLoop(services.reconciler, heartbeat.leads, every_s=settings.reconcile_seconds)
            repairs.start()
            log.info("worker is running")
            _sweep(services, repairs, settings.sweep_seconds, stop)
            repairs.close()
        services.close()
    # Threads of libraries that ignore us must not hold the process: everything of ours is closed.
    os._exit(0)


def _sweep(services: WorkerServices, repairs: RepairLoop, every_s: float, stop: threading.Event) -> None:
    """Until `stop` is set, look after what nobody else looks after."""
    purged_at = 0.0
    while not stop.wait(every_s):
        try:
            if swept := services.core.ledger.sweep():
                log.warning("holds of lost workers were ended", extra={"holds": swept})
            if dead := services.instances.bury():
                log.warning("processes were found dead", extra={"instances": [instance.id for instance in dead]})
                repairs.wake()
            if time.monotonic() - purged_at > PURGE_EVERY_S:
                services.worker.purge_finished()
                purged_at = time.monotonic()
        except Exception:
            log.exception("sweeping failed; it is tried again")


def run_api(settings: Settings, listener: socket.socket | None) -> None:
    """`listener`: the supervisor's, which outlives a crash of this process, so that clients wait instead of failing."""
    configure_logging("api", settings.log_level)
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
        timeout_graceful_shutdown=DRAIN_S,
        server_header=False,
        proxy_headers=False,  # an address in a header is whatever the sender likes
    )
    gc.collect()
    gc.freeze()  # what is loaded by now stays: going through it would stop all requests for 0.34 s
    with Heartbeat(services.instances, "api"):
        _Server(config, services.draining).run(sockets=[listener] if listener is not None else None)
    services.close()


class _Server(uvicorn.Server):
    """Says that it is asked to stop at once, not when its requests have ended: streams would hold it up until then."""

    def __init__(self, config: uvicorn.Config, draining: threading.Event) -> None:
        super().__init__(config)
        self._draining = draining

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._draining.set()
        super().handle_exit(sig, frame)


def end_with_parent() -> None:
    """End this process when the pipe on its standard input closes: a killed supervisor leaves nothing behind."""

    def watch() -> None:
        # The descriptor itself: a thread inside sys.stdin would crash the interpreter when it ends.
        while os.read(0, 4096):
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(DRAIN_S)
        os._exit(1)

    threading.Thread(target=watch, name="lifeline", daemon=True).start()


def _yield_to_queries() -> None:
    """SCHED_IDLE: while the worker embeds in bulk a query takes 1.2 times its quiet time; at nice 10 it took 2.4."""
    try:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    except OSError as error:
        log.warning("the worker could not lower its priority", extra={"reason": str(error)})
