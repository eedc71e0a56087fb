"""Retrieval quality on a judged set: ingest it as documents, ask its questions over HTTP, score the ranking of documents.

One document may become several chunks; its rank is that of its best chunk.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from api.evaluating import ask, bring
from api.local import local_service
from benchmarks.report import Report
from benchmarks.workload import SERVICE
from rag.evaluation.metrics import score
from rag.evaluation.questions import read_dataset


def run(folder: Path, runtime: str, precision: str) -> Report:
    dataset = read_dataset(folder)
    documents = 0

    def count() -> None:
        nonlocal documents
        documents += 1

    with tempfile.TemporaryDirectory(prefix="carrel-quality-") as data:
        settings = {**SERVICE, "embedding_runtime": runtime, "embedding_precision": precision}
        with local_service(Path(data), **settings) as service:
            clients = {group: service.tenant(f"group-{number}") for number, group in enumerate(dataset.groups())}
            began = time.monotonic()
            chunks = bring(lambda group: (clients[group], "default"), dataset.documents(), count)
            seconds = time.monotonic() - began
            rankings = ask(lambda group: (clients[group], "default"), dataset.questions, {})
    figures = {f"dense_{name}": value for name, value in score(rankings, dataset.qrels).items()}
    ingest = {"documents": documents, "chunks": chunks, "ingest_s": seconds, "chunks_per_s": chunks / seconds}
    return Report("quality", {**figures, "queries": len(dataset.questions), **ingest})
