"""The engine process, from start to SIGTERM. It knows neither SQL nor HTTP."""

from __future__ import annotations

import asyncio

from api.processes.lifecycle import PREDECESSOR_S, SIGNALS, Lifecycle
from api.processes.locks import hold_lock, private_dir
from api.processes.plans import EnginePlan
from rag.store.build import BuildsInChild
from rag.store.engine import EngineServer
from rag.store.shards import EdgeStore
from rag.store.upkeep import Rules


def run_engine(plan: EnginePlan, life: Lifecycle) -> None:
    with hold_lock(plan.data_dir, "engine", patience_s=PREDECESSOR_S):
        private_dir(plan.socket.parent)
        store = EdgeStore(plan.data_dir / "vectors", BuildsInChild())
        server = EngineServer(store, Rules(**plan.rules))

        async def serve() -> None:
            stop = asyncio.Event()

            def asked(number: int) -> None:
                life.handle(number, None)
                life.draining()
                stop.set()

            for number in SIGNALS:
                asyncio.get_running_loop().add_signal_handler(number, asked, number)
            life.ready()
            await server.serve(plan.socket, stop)

        asyncio.run(serve())
    life.stopped()
