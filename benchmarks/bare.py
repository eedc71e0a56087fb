"""The product's embedding path without the service around it: nothing is stored, nothing is charged."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from api.wiring.embedders import build_embedder
from benchmarks.workload import MODELS
from config.settings import Settings
from ingestion.pipeline.batches import BATCH_CHUNKS
from ingestion.repair.points import FreeMeter
from rag.embedding.cache import NullVectorCache
from rag.embedding.runtime import Matrix
from rag.embedding.service import EmbeddingService


@dataclass(frozen=True)
class NoTenant:
    tenant_id: str = "benchmark"
    cache_salt: bytes = b""


class BareEmbedding:
    """The embedding service with the runtime that it would choose, and without a cache."""

    name = "carrel"

    def __init__(self, runtime: str) -> None:
        # Defaults, not the environment: the services that are measured beside it do not read that either.
        chosen: dict[str, Any] = {"embedding_runtime": runtime, "models_dir": MODELS}
        settings = Settings.model_construct(**chosen)
        self._service = EmbeddingService(build_embedder(settings), NullVectorCache())

    @property
    def precision(self) -> str:
        return self._service.model.fingerprint.precision

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return self._service.model.count_tokens(texts)

    def embed(self, texts: Sequence[str]) -> Matrix:
        return self._service.embed_batch(NoTenant(), FreeMeter(), texts, hold_id="benchmark").vectors

    def embed_query(self, text: str) -> Matrix:
        return self._service.embed_query(NoTenant(), FreeMeter(), text, charge_id="benchmark").vectors

    def chunks_per_s(self, texts: Sequence[str]) -> float:
        """In batches as large as a worker's."""
        began = time.perf_counter()
        for at in range(0, len(texts), BATCH_CHUNKS):
            self.embed(texts[at : at + BATCH_CHUNKS])
        return len(texts) / (time.perf_counter() - began)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._service.close()
