"""One client's questions, one after the other over one connection: how long, how much of it outside the model, and what
the engine holds in memory for the vectors."""

from __future__ import annotations

import tempfile
from pathlib import Path

from api.local import local_service
from benchmarks.corpus import Writer, spread
from benchmarks.harness import percentile, shown
from benchmarks.memory import anonymous_mb, find_process
from benchmarks.report import Report
from benchmarks.workload import SERVICE, ask, fill, tokenizer_of

DOCUMENT_CHUNKS = 100
WARM_UP = 30


def run(chunks: int, queries: int, runtime: str, seed: int) -> Report:
    writer = Writer(seed, tokenizer_of(runtime))
    with tempfile.TemporaryDirectory(prefix="carrel-query-") as data:
        with local_service(Path(data), **SERVICE, embedding_runtime=runtime) as service, service.tenant("one") as client:
            documents = [writer.document(f"document-{i}", n) for i, n in enumerate(spread(chunks, DOCUMENT_CHUNKS))]
            loaded = fill(client, documents)
            for question in writer.questions(WARM_UP):
                ask(client, question)
            asked = [ask(client, question) for question in shown(writer.questions(queries), "asking", queries)]
            engine_mb = anonymous_mb(find_process(service.pid, "engine"))
    wall, outside = [one.wall_ms for one in asked], [one.outside_ms for one in asked]
    figures = {
        "p50_ms": percentile(wall, 50),
        "p99_ms": percentile(wall, 99),
        "outside_model_p50_ms": percentile(outside, 50),
        "outside_model_p99_ms": percentile(outside, 99),
        "engine_anon_mb": engine_mb,
        "chunks": loaded,
        "queries": queries,
    }
    return Report("query", figures)
