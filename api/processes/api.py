"""The api process, from start to SIGTERM."""

from __future__ import annotations

import os
import socket
import threading
import time
from types import FrameType

import uvicorn
from anyio import to_thread

from api.app import create_service
from api.processes.heartbeat import Heartbeat
from api.processes.lifecycle import DRAIN_S, Lifecycle, keep_what_is_loaded
from api.wiring.api import build_api
from config.settings import Settings

KEEP_ALIVE_S = 75  # uvicorn's 5 s would cut pooled clients off between two requests
SPARE_THREADS = 8  # for finding out who asks, audit entries and streams
FAREWELL_S = 0.5  # of DRAIN_S: the port still answers, with 503, so that pooled clients and balancers are told, not cut off


def run_api(settings: Settings, listener: socket.socket | None, life: Lifecycle) -> None:
    """`listener`: the supervisor's, which outlives a crash of this process, so that clients wait instead of failing."""
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
    keep_what_is_loaded()
    with Heartbeat(services.instances, "api"), services.upkeep:
        server = _Server(config, life, services.draining, threads=_threads(settings))
        server.run(sockets=[listener] if listener is not None else None)
    services.close()
    life.stopped()
    os._exit(0)  # as the worker: a part that hangs in a check of readiness must not hold the process


def _threads(settings: Settings) -> int:
    """As many as requests have places: with fewer, those of one class would wait for those of another after all."""
    of_classes = settings.concurrent_queries, settings.concurrent_ingests, settings.concurrent_reads, settings.concurrent_admin
    return sum(of_classes) + SPARE_THREADS


class _Server(uvicorn.Server):
    """Asked to stop, it says so to every request for a moment (`middleware.Drain`), and only then stops listening."""

    def __init__(self, config: uvicorn.Config, life: Lifecycle, draining: threading.Event, *, threads: int) -> None:
        super().__init__(config)
        self._life, self._draining, self._threads = life, draining, threads
        self._leave_at = float("inf")

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        to_thread.current_default_thread_limiter().total_tokens = self._threads
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
