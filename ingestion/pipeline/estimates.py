"""What a document would cost: read, split and looked up like one that is brought, and nothing of it kept.

Hostile content is read in a sandbox of this process's own, whose children start with the first estimate.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sqlmodel import col, select

from config.errors import InvalidInput, RateLimited
from ingestion.intake.documents import Documents
from ingestion.intake.preconditions import ANYTHING, Precondition
from ingestion.intake.submission import Submission
from rag.corpus import Chunk
from rag.embedding.service import EmbeddingService, Estimate
from tenants.context import TenantContext
from tenants.ledger.budget import Ledger

if TYPE_CHECKING:  # the splitter and its tokenizer take memory, which an idle process is spared
    from ingestion.pipeline.reading import Preview, Reading

AT_ONCE = 2  # in a process; of one tenant one, so that it cannot keep the others waiting
RETRY_AFTER_S = 1.0
PAGE = 500  # ids in one statement


@dataclass(frozen=True, slots=True)
class DocumentEstimate:
    media_type: str
    chars: int
    pages: int
    chunks: int
    tokens: Estimate
    price: int  #: picodollars a token
    remaining: int | None  #: tokens of the month; None without a limit

    @property
    def cost(self) -> int:
        """Picodollars."""
        return self.tokens.to_embed * self.price

    @property
    def within_budget(self) -> bool:
        return self.remaining is None or self.tokens.to_embed <= self.remaining


class Estimates:
    """`open_reading` is called once, for the first estimate."""

    def __init__(
        self, documents: Documents, embedding: EmbeddingService, ledger: Ledger, open_reading: Callable[[], Reading]
    ) -> None:
        self.documents, self.embedding, self.ledger = documents, embedding, ledger
        self._open = open_reading
        self._reading: Reading | None = None
        self._lock, self._opening, self._busy = threading.Lock(), threading.Lock(), set[str]()

    def for_tenant(self, context: TenantContext) -> TenantEstimates:
        return TenantEstimates(self, context)

    def reading(self) -> Reading:
        with self._opening:
            self._reading = self._reading or self._open()
            return self._reading

    @contextmanager
    def turn(self, tenant_id: str) -> Iterator[None]:
        """Raise RateLimited where the tenant's last estimate, or as many as there may be, are under way."""
        with self._lock:
            if tenant_id in self._busy or len(self._busy) >= AT_ONCE:
                raise RateLimited("Other dry runs are under way; try again.", retry_after_s=RETRY_AFTER_S)
            self._busy.add(tenant_id)
        try:
            yield
        finally:
            with self._lock:
                self._busy.remove(tenant_id)

    def close(self) -> None:
        with self._opening:
            if self._reading is not None:
                self._reading.close()


class TenantEstimates:
    def __init__(self, parts: Estimates, context: TenantContext) -> None:
        self._parts, self._context = parts, context

    def estimate(self, submission: Submission, *, expected: Precondition = ANYTHING) -> DocumentEstimate:
        """Raise what `TenantDocuments.submit` would, but for the budget; RateLimited; UnreadableDocument."""
        if submission.url is not None:
            raise InvalidInput("A dry run needs the content: URLs are fetched by jobs only.", field="url")
        examined = self._parts.documents.for_tenant(self._context).examine(submission, expected=expected)
        with self._parts.turn(self._context.tenant_id):
            with _in_memory(examined.content) as path:
                preview = self._parts.reading().preview(examined.version, examined.collection_id, path)
            tokens = self._tokens(preview, is_new=not examined.version.document_id)
        meter = self._parts.ledger.for_tenant(self._context, "ingest")
        return DocumentEstimate(
            media_type=examined.version.media_type,
            chars=preview.chars,
            pages=preview.pages,
            chunks=len(preview.texts),
            tokens=tokens,
            price=self._parts.ledger.price,
            remaining=meter.remaining(),
        )

    def _tokens(self, preview: Preview, *, is_new: bool) -> Estimate:
        """Chunks that the document has already need no vector; for the others, the cache is asked."""
        indexed = set() if is_new else self._indexed(preview.ids)
        fresh = [number for number, chunk_id in enumerate(preview.ids) if chunk_id not in indexed]
        texts, counts = [preview.texts[number] for number in fresh], [preview.counts[number] for number in fresh]
        of_fresh = self._parts.embedding.estimate(self._context, texts, counts)
        had = sum(preview.counts) - sum(counts)
        return Estimate(of_fresh.to_embed, of_fresh.cached + had, of_fresh.deduplicated)

    def _indexed(self, ids: Sequence[str]) -> set[str]:
        found: set[str] = set()
        for at in range(0, len(ids), PAGE):
            page = select(col(Chunk.id)).where(col(Chunk.id).in_(ids[at : at + PAGE]), col(Chunk.indexed))
            with self._parts.documents.database.read(self._context) as session:
                found.update(session.scalars(page))
        return found


@contextmanager
def _in_memory(content: bytes) -> Iterator[Path]:
    """A path of the content that leaves nothing behind, however this process ends."""
    descriptor = os.memfd_create("document")
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(content)
        yield Path(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
