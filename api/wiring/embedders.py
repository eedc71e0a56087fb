"""Picks what turns text into vectors. Apart from `core`, so that a model can be had without SQL and the queue (0.4 s)."""

from __future__ import annotations

from config.settings import Settings
from rag.embedding.batcher import Batcher
from rag.embedding.hashing import HashRuntime
from rag.embedding.local.choice import open_runtime
from rag.embedding.local.wanted import Wanted
from rag.embedding.runtime import Embedder, EmbeddingRuntime


def build_embedder(settings: Settings) -> Embedder:
    if settings.embedding_runtime == "remote":
        from api.wiring.remote_embedding import build_remote_embedder  # noqa: PLC0415  an HTTP client, for those who use it only

        return build_remote_embedder(settings)
    runtime = build_runtime(settings)
    return Batcher(runtime, batch_tokens=settings.batch_tokens or runtime.batch_tokens)


def build_runtime(settings: Settings) -> EmbeddingRuntime:
    if settings.embedding_runtime == "hash":
        return HashRuntime()
    wanted = Wanted(
        model=settings.embedding_model,
        runtime=settings.embedding_runtime,
        device=settings.embedding_device,
        precision=settings.embedding_precision,
        dimensions=settings.embedding_dimensions,
        query_prompt=settings.embedding_query_prompt,
        document_prompt=settings.embedding_document_prompt,
        allow_download=settings.allow_model_download,
    )
    return open_runtime(wanted, settings.prepared_models)
