"""Retrieval quality on a judged set: ingest it as documents, ask its questions over HTTP, score the ranking of documents.

One document may become several chunks; its rank is that of its best chunk.
"""

from __future__ import annotations

import json
import math
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from api.local import LocalService, local_service
from benchmarks.report import Figures, Report
from benchmarks.workload import SERVICE
from carrel_client import Carrel

PARALLEL = 8
TOP_K = 100
MODES = {"hybrid": "", "dense": "dense_", "lexical": "lexical_"}  # with what stands before their figures
Qrels = Mapping[str, Mapping[str, int]]


@dataclass(frozen=True)
class Dataset:
    documents: list[dict[str, Any]]
    queries: list[dict[str, Any]]
    qrels: Qrels


def read_dataset(folder: Path) -> Dataset:
    qrels: dict[str, dict[str, int]] = defaultdict(dict)
    for line in (folder / "qrels.tsv").read_text().splitlines():
        query, document, relevance = line.split("\t")
        if relevance.lstrip("-").isdigit() and int(relevance) > 0:
            qrels[query][document] = int(relevance)
    queries = [query for query in _lines(folder / "queries.jsonl") if query["id"] in qrels]
    return Dataset(_lines(folder / "corpus.jsonl"), queries, qrels)


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def run(folder: Path, runtime: str, precision: str) -> Report:
    dataset = read_dataset(folder)
    with tempfile.TemporaryDirectory(prefix="carrel-quality-") as data:
        settings = {**SERVICE, "embedding_runtime": runtime, "embedding_precision": precision}
        with local_service(Path(data), **settings) as service:
            clients = _tenants(service, dataset)
            began = time.monotonic()
            chunks = _ingest(clients, dataset.documents)
            seconds = time.monotonic() - began
            rankings = {mode: _ask(clients, dataset.queries, mode) for mode in MODES}
    figures = _figures(rankings, dataset.qrels)
    ingest = {"documents": len(dataset.documents), "chunks": chunks, "ingest_s": seconds, "chunks_per_s": chunks / seconds}
    return Report("quality", {**figures, "queries": len(dataset.queries), **ingest})


def _tenants(service: LocalService, dataset: Dataset) -> dict[str, Carrel]:
    groups = sorted({_group(document) for document in dataset.documents})
    return {group: service.tenant(f"group-{number}") for number, group in enumerate(groups)}


def _group(item: Mapping[str, Any]) -> str:
    return str(item.get("group", ""))


def _ingest(clients: Mapping[str, Carrel], documents: Iterable[Mapping[str, Any]]) -> int:
    def bring(document: Mapping[str, Any]) -> int:
        client = clients[_group(document)]
        text = document["text"].strip() or document["title"]
        if not text:
            return 0
        job = client.documents.create(text=text, title=document["title"][:500], external_id=document["id"]).wait()
        return job.chunks_total if job else 0

    with ThreadPoolExecutor(PARALLEL * 2) as pool:
        return sum(pool.map(bring, documents))


def _ask(clients: Mapping[str, Carrel], queries: Sequence[Mapping[str, Any]], mode: str) -> dict[str, list[str]]:
    def ask(query: Mapping[str, Any]) -> tuple[str, list[str]]:
        passages = clients[_group(query)].query(query["text"], top_k=TOP_K, mode=mode).passages
        return query["id"], list(dict.fromkeys(passage.external_id for passage in passages))

    with ThreadPoolExecutor(PARALLEL) as pool:
        return dict(pool.map(ask, queries))


def _figures(rankings: Mapping[str, Mapping[str, Sequence[str]]], qrels: Qrels) -> Figures:
    """Of the fused ranking and of each leg; and how likely a difference as large would be if fusing made none."""
    figures: Figures = {}
    for mode, prefix in MODES.items():
        figures |= {f"{prefix}{name}": value for name, value in score(rankings[mode], qrels).items()}
    for leg in ("dense", "lexical"):
        figures[f"p_vs_{leg}"] = paired_p(*(_each(rankings[mode], qrels) for mode in ("hybrid", leg)))
    return figures


def _each(rankings: Mapping[str, Sequence[str]], qrels: Qrels) -> list[float]:
    return [ndcg(rankings[query], qrels[query], 10) for query in sorted(rankings)]


def paired_p(first: Sequence[float], second: Sequence[float], *, rounds: int = 10_000, seed: int = 1) -> float:
    """Of Fisher's randomisation test, two-sided: how often swapping the two at random differs as much."""
    differences = np.asarray(first) - np.asarray(second)
    signs = np.random.default_rng(seed).choice((-1.0, 1.0), (rounds, len(differences)))
    beyond = np.abs(signs @ differences) >= abs(differences.sum()) - 1e-12
    return float((beyond.sum() + 1) / (rounds + 1))


def score(rankings: Mapping[str, Sequence[str]], qrels: Qrels) -> dict[str, float]:
    """Means over queries. nDCG with gain 2^rel − 1; recall is the fraction of relevant documents in the first k."""

    def mean(values: list[float]) -> float:
        return sum(values) / len(values)

    recall = {
        f"recall{k}": mean([len(set(ranked[:k]) & set(qrels[q])) / len(qrels[q]) for q, ranked in rankings.items()])
        for k in (5, 10, 100)
    }
    return {"ndcg10": mean([ndcg(ranked, qrels[query], 10) for query, ranked in rankings.items()]), **recall}


def ndcg(ranked: Sequence[str], relevant: Mapping[str, int], k: int) -> float:
    def dcg(gains: Iterable[int]) -> float:
        return sum((2.0**gain - 1) / math.log2(rank + 1) for rank, gain in enumerate(gains, 1))

    ideal = dcg(sorted(relevant.values(), reverse=True)[:k])
    return dcg(relevant.get(document, 0) for document in ranked[:k]) / ideal if ideal else 0.0
