"""A process that spends: embeds batch after batch until the budget is used up, and keeps a note of what it kept.

Run as `python -m tests.faults.budget_writer URL FOLDER TENANT NUMBER`, to be killed at any moment.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

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

LEASE_S = 1
BATCHES = 60


class SlowRuntime(HashRuntime):
    def embed(self, texts: Sequence[str]) -> Matrix:
        time.sleep(0.01)  # long enough to be killed in
        return super().embed(texts)


def main(url: str, folder: Path, tenant_id: str, number: int) -> None:
    database = Database(url)
    context = TenantRegistry(database, system_clock).context_of_job(tenant_id, "writer")
    meter = Ledger(database, system_clock, lease_s=LEASE_S).for_tenant(context, "ingest")
    service = EmbeddingService(Batcher(SlowRuntime(), batch_tokens=2048), NullVectorCache())
    for batch in range(BATCHES):
        name = f"{number}-{batch}"
        kept = folder / f"kept-{name}"
        if kept.exists():
            continue
        try:
            text = f"batch {name} " + "word " * (10 + batch % 40)
            tokens = service.model.count_tokens([text])[0]
            service.embed_batch(context, meter, [text], hold_id=name)
        except BudgetExhausted:
            break
        draft = folder / f"draft-{name}"
        draft.write_text(str(tokens))
        draft.rename(kept)
    service.close()
    database.close()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
