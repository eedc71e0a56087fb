"""Text that comes again: what it costs in tokens when nothing changed and when something did, and how much sooner its vectors
are there than when the model made them.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from api.processes.local import local_service
from api.wiring.core import build_core, build_embedding, priced
from benchmarks.corpus import Writer, embedded_texts
from benchmarks.edits import EditedDocument
from benchmarks.harness import BenchmarkError, median, shown
from benchmarks.report import Figures, Report
from benchmarks.workload import MODELS, SERVICE, tokenizer_of
from carrel_client import Carrel
from config.settings import Settings
from ingestion.pipeline.batches import BATCH_CHUNKS
from rag.embedding.service import EmbeddingService
from rag.splitting.chunking import Chunker
from tenants.context import TenantContext
from tenants.ledger.budget import Ledger

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


def run(chunks: int, repeats: int, runtime: str, seed: int, history: History | None = None) -> Report:
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
    return Report("reingest", {**figures, **_edited(history or History(), runtime, seed), "chunks": chunks, "repeats": repeats})


@dataclass(frozen=True)
class History:
    """How much is edited: documents of plain text, as many of Markdown, and as many whose headings stay, in rounds of edits."""

    documents: int = 5
    paragraphs: int = 80
    rounds: int = 6
    edits: int = 2


def _edited(history: History, runtime: str, seed: int) -> Figures:
    """Tokens charged for each new version over those of its chunks that overlap an edit: through HTTP, until the job ended.

    Two ways to count what overlaps: in what is embedded, headings included, as a changed heading changes what the model reads
    of every chunk beneath it; and strictly, in the chunk's own text.
    """
    tokenizer = tokenizer_of(runtime)
    writer, kinds = Writer(seed, tokenizer), {"plain": (False, False), "markdown": (True, True), "same_headings": (True, False)}
    sums = {f"{what}_{kind}": 0 for what in ("charged", "touched", "strict") for kind in kinds}
    with tempfile.TemporaryDirectory(prefix="carrel-edits-") as data:
        with local_service(Path(data), **SERVICE, embedding_runtime=runtime) as service, service.tenant("one") as client:
            for number in shown(range(history.documents * len(kinds)), "documents", history.documents * len(kinds)):
                kind = [*kinds][number % len(kinds)]
                markdown, headings_change = kinds[kind]
                document = EditedDocument.written(writer, seed + number, markdown=markdown, paragraphs=history.paragraphs)
                document.headings_change = headings_change
                for version in _versions(client, document, f"{kind}-{number}", history, tokenizer):
                    for what, tokens in zip(("charged", "touched", "strict"), version, strict=True):
                        sums[f"{what}_{kind}"] += tokens
    ratios = {f"charged_over_touched_{kind}": sums[f"charged_{kind}"] / sums[f"touched_{kind}"] for kind in kinds}
    ratios |= {f"charged_over_strict_{kind}": sums[f"charged_{kind}"] / sums[f"strict_{kind}"] for kind in kinds}
    charged, touched, strict = (sums[f"{what}_plain"] + sums[f"{what}_markdown"] for what in ("charged", "touched", "strict"))
    return {"charged_over_touched_chunks": charged / touched, "charged_over_strict_chunks": charged / strict, **ratios}


def _versions(
    client: Carrel, document: EditedDocument, name: str, history: History, tokenizer_json: str
) -> Iterator[tuple[int, int, int]]:
    """Of each version but the first, tokens charged, and of the chunks that overlap an edit: as embedded, and strictly."""
    chunker, tokenizer = Chunker(tokenizer_json), Tokenizer.from_str(tokenizer_json)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    for version in range(history.rounds + 1):
        if version:
            document.edit(history.edits)
        text, touched = document.rendered()
        pieces = [*chunker.split(text, document.cut, title=name)]
        counts = [len(encoding.ids) for encoding in tokenizer.encode_batch([piece.embedded for piece in pieces])]
        submitted = client.documents.create(
            text=text, format="markdown" if document.markdown else "text", title=name, external_id=name
        )
        job = submitted.wait()
        if job is None or job.chunks_total != len(pieces) or (not version and job.tokens_charged != sum(counts)):
            raise BenchmarkError(f"{name}: the service made other chunks than were counted here: {job}, {len(pieces)}.")
        if version:
            yield job.tokens_charged, touched.embedded_tokens(pieces, counts), touched.tokens(pieces, counts)


def _twice(stage: Stage, writer: Writer, tokenizer: str, chunks: int, name: str) -> tuple[float, float, int]:
    """Seconds of the first time and of the second, and what the second was charged. The second is another document."""
    texts = embedded_texts([writer.document(name, chunks)], tokenizer)
    tokens = stage.embedding.count_tokens(texts)
    first, paid = stage.embed(f"{name}:first", texts, tokens)
    if paid != sum(tokens):
        raise BenchmarkError(f"{paid} of {sum(tokens)} tokens were charged the first time: something was known already.")
    again, charged = stage.embed(f"{name}:again", texts, tokens)
    return first, again, charged
