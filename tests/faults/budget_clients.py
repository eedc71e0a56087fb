"""An api process as its budget sees it: clients at once, each asking question after question, refused or answered.

Run as `python -m tests.faults.budget_clients URL TENANT NUMBER CLIENTS REQUESTS`; prints how many tokens its model read.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence

from config.clock import system_clock
from config.database import Database
from config.errors import BudgetExhausted
from rag.embedding.batcher import Batcher
from rag.embedding.cache import NullVectorCache
from rag.embedding.hashing import HashRuntime
from rag.embedding.runtime import Matrix
from rag.embedding.service import EmbeddingService
from tenants.ledger.budget import Ledger
from tenants.registry import TenantRegistry


class CountingRuntime(HashRuntime):
    """Counts the tokens that the model really reads. The batcher calls it from one thread."""

    def __init__(self) -> None:
        super().__init__()
        self.read = 0

    def embed(self, texts: Sequence[str]) -> Matrix:
        self.read += sum(self.count_tokens(texts))
        return super().embed(texts)


def main(url: str, tenant_id: str, number: int, clients: int, requests: int) -> None:
    database, runtime = Database(url, pool_size=clients), CountingRuntime()
    context = TenantRegistry(database, system_clock).context_of_job(tenant_id, "api")
    service = EmbeddingService(Batcher(runtime, batch_tokens=2048), NullVectorCache())
    ledger = Ledger(database, system_clock, lease_s=60, price=7)

    def ask(client: int) -> None:
        for request in range(requests):
            name = f"{number}:{client}:{request}"
            meter = ledger.for_tenant(context, "query", key=f"key {client}")
            try:
                service.embed_query(context, meter, f"question {name} " + "why " * (request % 7), charge_id=name)
            except BudgetExhausted:
                continue

    threads = [threading.Thread(target=ask, args=(client,)) for client in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    service.close()
    database.close()
    print(runtime.read)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:]))
