"""A process that fills the embedding cache: prints a line before each batch, and stops after the last.

Run as `python -m tests.faults.cache_writer FOLDER TENANT CAP FIRST BATCHES`, beside others or to be killed at any moment.
Ends with 1 if the cache had to say that it kept something not.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import numpy as np

from rag.embedding.cache import DiskVectorCache
from rag.store.base import Space
from tests.support import FakeScope

SPACE = Space("sp_one", 384)
BATCH = 32


class Complaints(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f"{record.getMessage()} {record.__dict__.get('reason')}")


def scope(tenant: str) -> FakeScope:
    return FakeScope(tenant, f"salt of {tenant}".encode())


def texts(tenant: str, batch: int) -> list[str]:
    return [f"{tenant} {batch} {i}" for i in range(BATCH)]


def main(folder: Path, tenant: str, cap: int, first: int, batches: int) -> int:
    complaints = Complaints()
    logging.getLogger("rag").addHandler(complaints)
    cache = DiskVectorCache(folder, max_bytes=cap)
    for batch in range(first, first + batches):
        print(batch, flush=True)
        cache.put(scope(tenant), SPACE, {text: np.full(384, 0.25, np.float32) for text in texts(tenant, batch)})
    cache.close()
    print(*complaints.lines, sep="\n", file=sys.stderr)
    return 1 if complaints.lines else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5])))
