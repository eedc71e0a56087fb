"""Retrieval quality on a judged set: ingest it as documents, ask its questions over HTTP, score the ranking of documents.

One document may become several chunks; its rank is that of its best chunk.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from api.evaluating import ask, bring
from api.processes.local import local_service
from benchmarks.report import Figures, Report
from benchmarks.workload import SERVICE
from rag.evaluation.metrics import Qrels, ndcg, score
from rag.evaluation.questions import read_dataset
from rag.evaluation.significance import p_value

MODES = {"hybrid": "", "dense": "dense_", "lexical": "lexical_"}  # with what stands before their figures
Rankings = Mapping[str, Sequence[str]]


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
            rankings = {
                mode: ask(lambda group: (clients[group], "default"), dataset.questions, {"mode": mode}) for mode in MODES
            }
    ingest = {"documents": documents, "chunks": chunks, "ingest_s": seconds, "chunks_per_s": chunks / seconds}
    return Report("quality", {**_figures(rankings, dataset.qrels), "queries": len(dataset.questions), **ingest})


def _figures(rankings: Mapping[str, Rankings], qrels: Qrels) -> Figures:
    """Of the fused ranking and of each leg; and how likely a difference as large would be if fusing made none."""
    figures: Figures = {}
    alike = {question: {document: min(grade, 1) for document, grade in of.items()} for question, of in qrels.items()}
    for mode, prefix in MODES.items():
        figures |= {f"{prefix}{name}": value for name, value in score(rankings[mode], qrels).items()}
        figures[f"{prefix}binary_ndcg10"] = score(rankings[mode], alike)["ndcg10"]
    for leg in ("dense", "lexical"):
        figures[f"p_vs_{leg}"] = p_value(*(_each(rankings[mode], qrels) for mode in ("hybrid", leg)))
    return figures


def _each(rankings: Rankings, qrels: Qrels) -> list[float]:
    return [ndcg(rankings[query], qrels[query], 10) for query in sorted(rankings)]
