"""Picks the adapters. The only place that knows which implementation stands behind which protocol."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from api.cursors import CursorSeal
from api.readiness import Readiness, checks
from api.schema import upgrade
from api.streams import JobStreams
from config.clock import Clock, system_clock
from config.database import Database
from config.errors import SetupError
from config.ids import new_id
from config.secrets import build_vault, secret_file
from config.settings import Settings
from config.vault import Vault
from ingestion.blobs import BlobStore
from ingestion.collector import Collector
from ingestion.documents import DocumentLimits, Documents
from ingestion.durable import DurableQueue, DurableWorker
from ingestion.instances import Instances
from ingestion.jobs import Jobs
from ingestion.pipeline import Pipeline
from ingestion.reconciler import Reconciler
from ingestion.repair.parts import Parts
from ingestion.sandbox import Sandbox
from rag.chunking import Chunker
from rag.collections import Collections
from rag.embedding.batcher import Batcher
from rag.embedding.cache import DiskVectorCache
from rag.embedding.hashing import HashRuntime
from rag.embedding.local.choice import open_runtime
from rag.embedding.local.wanted import Wanted
from rag.embedding.runtime import Embedder, EmbeddingRuntime
from rag.embedding.service import EmbeddingService
from rag.retrieval import Retriever
from rag.store.base import VectorStore
from rag.store.remote import EngineClient
from tenants.audit import AuditLog
from tenants.budget import Ledger
from tenants.events import EventLog
from tenants.idempotency import IdempotencyStore
from tenants.identity import Identifier
from tenants.keys import KeyRing, make_secret
from tenants.rates import RateLimiter
from tenants.registry import TenantRegistry
from tenants.tokens import TokenSigner
from tenants.usage import UsageReader

#: How long the engine is waited for while it restarts, and for an answer.
REQUEST_PATIENCE = {"patience_s": 5.0, "timeout_s": 5.0}
JOB_PATIENCE = {"patience_s": 30.0, "timeout_s": 30.0}
#: The collector calls the engine inside a transaction, and on SQLite everybody else's writes wait for that.
COLLECTOR_PATIENCE = {"patience_s": 0.0, "timeout_s": 2.0}


@dataclass(frozen=True, slots=True)
class Core:
    """What every process needs: the database at this version's schema, and the tenants in it."""

    settings: Settings
    clock: Clock
    vault: Vault
    database: Database
    registry: TenantRegistry
    ledger: Ledger
    idempotency: IdempotencyStore


@dataclass(frozen=True, slots=True)
class ApiServices:
    core: Core
    cursors: CursorSeal
    keys: KeyRing
    tokens: TokenSigner
    identifier: Identifier
    usage: UsageReader
    audit: AuditLog
    rates: RateLimiter
    collections: Collections
    documents: Documents
    jobs: Jobs
    events: EventLog
    streams: JobStreams
    draining: threading.Event  #: set when the process is asked to stop
    retriever: Retriever
    store: VectorStore
    embedding: EmbeddingService
    queue: DurableQueue
    instances: Instances
    readiness: Readiness

    def close(self) -> None:
        self.readiness.close()
        self.embedding.close()
        self.store.close()
        self.queue.close()
        self.core.database.close()


@dataclass(frozen=True, slots=True)
class WorkerServices:
    core: Core
    worker: DurableWorker
    sandbox: Sandbox
    store: VectorStore
    embedding: EmbeddingService
    queue: DurableQueue
    instances: Instances
    reconciler: Reconciler
    events: EventLog

    def close(self) -> None:
        self.worker.close()
        self.sandbox.close()
        self.reconciler.close()
        self.embedding.close()
        self.store.close()
        self.queue.close()
        self.core.database.close()


def build_core(settings: Settings, clock: Clock = system_clock) -> Core:
    settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    vault = build_vault(settings)
    database = Database(settings.sql_url, synchronous=settings.sqlite_synchronous)
    upgrade(database)
    ledger = Ledger(database, clock, lease_s=settings.hold_lease_seconds)
    idempotency = IdempotencyStore(database, clock, vault)
    return Core(settings, clock, vault, database, TenantRegistry(database, clock), ledger, idempotency)


def _priced(core: Core, embedding: EmbeddingService) -> Core:
    """The core whose meters charge what the tokens of this model cost."""
    price = core.settings.price_of(embedding.space.id, embedding.model.name)
    return replace(core, ledger=core.ledger.at(price))


def build_api(settings: Settings) -> ApiServices:
    core = build_core(settings)
    keys = KeyRing(core.database, core.clock)
    keys.ensure_operator(operator_key(settings))
    tokens = TokenSigner(core.vault.derive("tokens"), core.clock)
    embedding = build_embedding(settings)
    core = _priced(core, embedding)
    collections = _collections(core, embedding)
    store = build_store(settings, **REQUEST_PATIENCE)
    queue, draining = DurableQueue(core.database), threading.Event()
    instances = Instances(core.database, core.clock)
    return ApiServices(
        core=core,
        cursors=CursorSeal(core.vault.derive("cursors")),
        keys=keys,
        tokens=tokens,
        identifier=Identifier(core.database, keys, tokens),
        usage=UsageReader(core.database, core.clock),
        audit=AuditLog(core.database, core.clock),
        rates=RateLimiter(settings.requests_per_second),
        collections=collections,
        documents=Documents(
            core.database,
            core.clock,
            collections,
            BlobStore(settings.data_dir / "blobs"),
            queue,
            core.ledger,
            DocumentLimits(settings.max_document_bytes),
        ),
        jobs=Jobs(core.database, core.clock, queue),
        events=EventLog(core.database, core.clock),
        streams=JobStreams(core.clock, draining),
        draining=draining,
        retriever=Retriever(core.database, collections, store, embedding),
        store=store,
        embedding=embedding,
        queue=queue,
        instances=instances,
        readiness=Readiness(
            checks(
                database=core.database,
                instances=instances,
                store=store,
                model=embedding.model,
                data_dir=settings.data_dir,
                draining=draining,
            )
        ),
    )


def build_worker(settings: Settings, executor: str) -> WorkerServices:
    """`executor`: the name under which its jobs are found again."""
    core = build_core(settings)
    sandbox = Sandbox(
        seconds=settings.parse_seconds, memory_bytes=settings.parse_memory_bytes, max_chars=settings.max_text_chars
    )
    sandbox.warm_up()
    embedding = build_embedding(settings)
    core = _priced(core, embedding)
    _collections(core, embedding)
    store = build_store(settings, **JOB_PATIENCE)
    blobs = BlobStore(settings.data_dir / "blobs")
    pipeline = Pipeline(
        core.database,
        core.clock,
        blobs,
        sandbox,
        Chunker(embedding.model.tokenizer_json),
        embedding,
        store,
        core.ledger,
        _collector(core, blobs, build_store(settings, **COLLECTOR_PATIENCE)),
        max_chunks=settings.max_chunks,
    )
    worker = DurableWorker(
        core.database,
        pipeline,
        core.registry.context_of_job,
        concurrency=settings.worker_concurrency,
        executor_id=executor,
    )
    queue = DurableQueue(core.database)
    reconciler = build_reconciler(core, embedding, queue)
    instances = Instances(core.database, core.clock)
    events = EventLog(core.database, core.clock)
    return WorkerServices(core, worker, sandbox, store, embedding, queue, instances, reconciler, events)


def build_reconciler(core: Core, embedding: EmbeddingService, queue: DurableQueue) -> Reconciler:
    blobs = BlobStore(core.settings.data_dir / "blobs")
    brief_store = build_store(core.settings, **COLLECTOR_PATIENCE)
    parts = Parts(
        database=core.database,
        clock=core.clock,
        registry=core.registry,
        instances=Instances(core.database, core.clock),
        blobs=blobs,
        queue=queue,
        collector=_collector(core, blobs, brief_store),
        embedding=embedding,
        store=build_store(core.settings, **JOB_PATIENCE),
        brief_store=brief_store,
    )
    return Reconciler(parts)


@contextmanager
def open_reconciler(settings: Settings, embedder: Embedder) -> Iterator[Reconciler]:
    """A reconciler outside the service's processes, beside them or while they are stopped."""
    core = build_core(settings)
    embedding, queue = build_embedding(settings, embedder), DurableQueue(core.database)
    reconciler = build_reconciler(core, embedding, queue)
    try:
        yield reconciler
    finally:
        reconciler.close()
        queue.close()
        embedding.close()
        core.database.close()


def _collector(core: Core, blobs: BlobStore, store: VectorStore) -> Collector:
    return Collector(core.database, core.clock, blobs, store, keep_failed_days=core.settings.failed_content_days)


def build_embedding(settings: Settings, embedder: Embedder | None = None) -> EmbeddingService:
    cache = DiskVectorCache(settings.data_dir / "cache", max_bytes=settings.cache_max_bytes)
    return EmbeddingService(embedder or build_embedder(settings), cache)


def build_embedder(settings: Settings) -> Embedder:
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


def build_store(settings: Settings, *, patience_s: float, timeout_s: float) -> VectorStore:
    if settings.vector_backend == "engine":
        return EngineClient(settings.engine_socket, patience_s=patience_s, timeout_s=timeout_s)
    if settings.qdrant_url is None:
        raise SetupError("CARREL_VECTOR_BACKEND is qdrant: set CARREL_QDRANT_URL to the server's base URL.")
    from rag.store.qdrant import QdrantStore  # noqa: PLC0415  0.6 s and 50 MB a process, for those who use it only

    key = settings.qdrant_api_key
    return QdrantStore.connect(settings.qdrant_url, key.get_secret_value() if key else None)


def operator_key(settings: Settings) -> str:
    """The first operator key, made on first use and kept 0600 in the data directory."""
    return secret_file(settings.operator_key_file, lambda: make_secret(new_id("key")))


def _collections(core: Core, embedding: EmbeddingService) -> Collections:
    collections = Collections(core.database, core.clock, embedding.model.fingerprint)
    collections.register_space()
    return collections
