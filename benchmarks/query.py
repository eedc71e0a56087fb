"""One client's questions, one after the other over one connection: how long, how much of it outside the model, and what
the engine holds in memory for the vectors."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from api.processes.local import LocalService, local_service
from benchmarks.corpus import Writer, spread
from benchmarks.harness import BenchmarkError, percentile, shown
from benchmarks.process_memory import anonymous_mb, find_process
from benchmarks.report import Report
from benchmarks.workload import SERVICE, ask, fill, tokenizer_of
from carrel_client import Placement
from config.settings import Settings

DOCUMENT_CHUNKS = 100
WARM_UP = 30
MOST_S = 1_800.0  # until vectors lie where their number asks for, and the graph leads to nearly all
IN_GRAPH = 0.9  # of a dedicated shard: below that the engine builds its graph anew


def run(chunks: int, queries: int, runtime: str, seed: int) -> Report:
    writer = Writer(seed, tokenizer_of(runtime))
    with tempfile.TemporaryDirectory(prefix="carrel-query-") as data:
        with local_service(Path(data), **SERVICE, embedding_runtime=runtime) as service, service.tenant("one") as client:
            documents = [writer.document(f"document-{i}", n) for i, n in enumerate(spread(chunks, DOCUMENT_CHUNKS))]
            loaded = fill(client, documents)
            placed = settled(service, loaded)
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
        "indexed": placed.indexed or 0,
        "queries": queries,
    }
    return Report("query", figures)


def settled(service: LocalService, chunks: int) -> Placement:
    """Wait for what the service does by itself after so much was loaded: a shard of its own, and a graph."""
    usual = Settings.model_construct()
    apart, least = chunks >= usual.dedicated_points > 0, IN_GRAPH * chunks if chunks >= usual.graph_points else 0
    deadline = time.monotonic() + MOST_S
    with service.admin() as admin:
        while True:
            placed = admin.admin.tenants.placement("one", "default")
            there = placed.settled and (placed.placement == "dedicated") == apart
            if there and (not apart or (placed.indexed or 0) >= least):
                return placed
            if time.monotonic() > deadline:
                raise BenchmarkError(f"After {MOST_S:.0f} s the vectors are not where they belong: {placed}.")
            time.sleep(1)
