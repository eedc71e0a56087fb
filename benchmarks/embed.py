"""The embedding path beside sentence-transformers and fastembed on the same chunks: speed, share of what the machine can
multiply, and how close the vectors are to fp32."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.bare import BareEmbedding
from benchmarks.corpus import Writer, embedded_texts, spread
from benchmarks.embedders import Embedder, open_embedders
from benchmarks.harness import Side, alternate, median, pairwise
from benchmarks.model_math import TORCH_TYPES, Encoder, gemm_peak
from benchmarks.report import Figures, Peer, Report
from benchmarks.workload import model_folder, tokenizer_of
from rag.embedding.runtime import Matrix

DOCUMENT_CHUNKS = 20
PROBES = 100
NEAREST = 10
GEMM = "gemm"
WARM_UP = 64  #: chunks; a runtime compiles kernels for the shapes that it meets


def run(chunks: int, repeats: int, runtime: str, seed: int) -> Report:
    tokenizer = tokenizer_of(runtime)
    writer = Writer(seed, tokenizer)
    sizes = spread(chunks + PROBES + WARM_UP, DOCUMENT_CHUNKS)
    written = embedded_texts([writer.document(f"document-{i}", size) for i, size in enumerate(sizes)], tokenizer)
    probes, warm_up, texts = written[:PROBES], written[PROBES : PROBES + WARM_UP], written[PROBES + WARM_UP :]
    folder = model_folder()
    with tempfile.TemporaryDirectory(prefix="carrel-embed-") as work, BareEmbedding(runtime) as carrel:
        embedders, peers = open_embedders(folder, Path(work))
        sides = {side.name: side for side in (carrel, *embedders)}
        for side in sides.values():
            side.embed(warm_up)
        rates = _rates(sides, texts, repeats, carrel.precision)
        flop = Encoder.of(folder).flop(carrel.count_tokens(texts)) / len(texts)
        figures = _speed_figures(rates, peers) | _gemm_figures(rates, flop)
        figures |= _likeness(carrel, sides["sentence_transformers"], probes, texts)
    return Report("embed", {**figures, "chunks": len(texts), "repeats": repeats}, peers)


def _rates(sides: Mapping[str, Embedder], texts: Sequence[str], repeats: int, precision: str) -> dict[str, list[float]]:
    """Chunks a second of each side; and as one more side, what the machine multiplies while they take their turns."""

    def speed(side: Embedder, _round: int) -> float:
        began = time.perf_counter()
        side.embed(texts)
        return len(texts) / (time.perf_counter() - began)

    turns: dict[str, Side[float]] = {name: partial(speed, side) for name, side in sides.items()}
    if precision in TORCH_TYPES:
        turns[GEMM] = lambda _round: gemm_peak(precision)
    return alternate(turns, repeats)


def _speed_figures(rates: Mapping[str, Sequence[float]], peers: dict[str, Peer]) -> Figures:
    figures = {"chunks_per_s": median(rates["carrel"])}
    for name in [name for name in peers if name in rates]:
        figures[f"ratio_vs_{name}"] = pairwise(rates["carrel"], rates[name])
        peers[name] |= {"chunks_per_s": median(rates[name])}
    return figures


def _gemm_figures(rates: Mapping[str, Sequence[float]], flop_per_chunk: float) -> Figures:
    """Padding counts as no work: what is wasted on it lowers the fraction."""
    if GEMM not in rates:
        return {}
    achieved = [rate * flop_per_chunk for rate in rates["carrel"]]
    return {"gemm_fraction": pairwise(achieved, rates[GEMM]), "gemm_peak_gflops": median(rates[GEMM]) / 1e9}


def _likeness(carrel: Embedder, reference: Embedder, probes: Sequence[str], texts: Sequence[str]) -> Figures:
    ours, theirs = carrel.embed(texts), reference.embed(texts)
    cosines = (ours * theirs).sum(axis=1) / (np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1))
    overlap = mean_overlap(carrel.embed(probes) @ ours.T, reference.embed(probes) @ theirs.T, NEAREST)
    return {"cosine_mean": float(cosines.mean()), "cosine_min": float(cosines.min()), "overlap10": overlap}


def mean_overlap(ours: Matrix, theirs: Matrix, nearest: int) -> float:
    """Mean share of the nearest that both find, over rows of scores."""
    found = (np.argsort(-scores, axis=1, kind="stable")[:, :nearest] for scores in (ours, theirs))
    return float(np.mean([len({*a} & {*b}) / nearest for a, b in zip(*found, strict=True)]))
