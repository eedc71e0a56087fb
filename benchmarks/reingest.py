"""The same text again: what it costs in tokens, and how much sooner its vectors are there than when the model made them."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from api.wiring import build_core, build_embedding, priced
from benchmarks.corpus import Writer, embedded_texts
from benchmarks.harness import BenchmarkError, median, shown
from benchmarks.report import Report
from benchmarks.workload import MODELS, tokenizer_of
from config.settings import Settings
from ingestion.pipeline import BATCH_CHUNKS
from rag.embedding.service import EmbeddingService
from tenants.budget import Ledger
from tenants.context import TenantContext

WARM_UP_CHUNKS = 64


@dataclass(frozen=True)
class Stage:
    """The embedding stage of one document: cache, budget and model, with the service's own database and cache file."""

    embedding: EmbeddingService
    ledger: Ledger
    tenant: TenantContext

    def embed(self, name: str, texts: Sequence[str], tokens: Sequence[int]) -> tuple[float, int]:
        """Seconds that it took, and tokens charged."""
        meter, charged = self.ledger.for_tenant(self.tenant, "ingest"), 0
        began = time.perf_counter()
        for at in range(0, len(texts), BATCH_CHUNKS):
            part = slice(at, at + BATCH_CHUNKS)
            done = self.embedding.embed_batch(self.tenant, meter, texts[part], hold_id=f"{name}:{at}", tokens=tokens[part])
            charged += done.charged
        return time.perf_counter() - began, charged


def run(chunks: int, repeats: int, runtime: str, seed: int) -> Report:
    tokenizer = tokenizer_of(runtime)
    writer = Writer(seed, tokenizer)
    with tempfile.TemporaryDirectory(prefix="carrel-reingest-") as data:
        chosen: dict[str, Any] = {"data_dir": Path(data), "embedding_runtime": runtime, "models_dir": MODELS}
        core = build_core(Settings.model_construct(**chosen))
        embedding = build_embedding(core.settings)
        tenant = core.registry.context_of_job(core.registry.create("one", monthly_tokens=None).id, "benchmark")
        stage = Stage(embedding, priced(core, embedding).ledger, tenant)
        try:
            _twice(stage, writer, tokenizer, WARM_UP_CHUNKS, "warm-up")
            pairs = [_twice(stage, writer, tokenizer, chunks, str(n)) for n in shown(range(repeats), "rounds", repeats)]
        finally:
            embedding.close()
            core.database.close()
    figures = {
        "tokens_charged_unchanged": max(charged for _, _, charged in pairs),
        "embed_stage_speedup": median(first / again for first, again, _ in pairs),
        "first_ms_per_chunk": median(first for first, _, _ in pairs) * 1000 / chunks,
        "unchanged_ms_per_chunk": median(again for _, again, _ in pairs) * 1000 / chunks,
    }
    return Report("reingest", {**figures, "chunks": chunks, "repeats": repeats})


def _twice(stage: Stage, writer: Writer, tokenizer: str, chunks: int, name: str) -> tuple[float, float, int]:
    """Seconds of the first time and of the second, and what the second was charged. The second is another document."""
    texts = embedded_texts([writer.document(name, chunks)], tokenizer)
    tokens = stage.embedding.count_tokens(texts)
    first, paid = stage.embed(f"{name}:first", texts, tokens)
    if paid != sum(tokens):
        raise BenchmarkError(f"{paid} of {sum(tokens)} tokens were charged the first time: something was known already.")
    again, charged = stage.embed(f"{name}:again", texts, tokens)
    return first, again, charged
