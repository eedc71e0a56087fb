"""Puts the worker's services together, and the reconciler's wherever it runs, from the adapters that `core` picks."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from api.wiring.conversations import build_memory_sweep, build_sessions
from api.wiring.core import (
    COLLECTOR_PATIENCE,
    JOB_PATIENCE,
    Core,
    build_admission,
    build_core,
    build_embedding,
    build_sandbox,
    build_store,
    build_webhooks,
    open_collections,
    priced,
    url_policy,
    webhook_policy,
)
from api.wiring.documents import build_store_upkeep
from config.errors import NotFound
from config.settings import Settings
from ingestion.blobs import BlobStore
from ingestion.conversations.turn_vectors import TurnEmbedding
from ingestion.erasing.removal import Erasing
from ingestion.fetch.fetcher import Fetcher
from ingestion.fetch.poster import Poster
from ingestion.jobs.fair_gate import Places
from ingestion.jobs.instances import Instances
from ingestion.pipeline.pipeline import Pipeline
from ingestion.placement import Placer
from ingestion.queue.durable import DurableQueue, DurableWorker
from ingestion.reconciler import Reconciler
from ingestion.removal.collector import Collector
from ingestion.removal.tenants import TenantRemoval
from ingestion.repair.parts import Parts
from ingestion.sandbox import Sandbox
from ingestion.stores.upkeep import StoreUpkeep
from ingestion.webhooks import WebhookSender
from rag.embedding.runtime import Embedder
from rag.embedding.service import EmbeddingService
from rag.memories.removal import MemorySweep
from rag.sessions.compacting import SessionCompactor
from rag.sessions.sweeping import SessionSweeper
from rag.splitting.chunkers import Chunkers
from rag.store.base import VectorStore
from rag.traces.erasing import Sweeper
from rag.traces.old_vectors import OldVectors
from tenants.audit.archive import CheckpointArchive
from tenants.audit.chain import PURPOSE, CheckpointSigner
from tenants.audit.sealer import Sealer
from tenants.events import EventLog
from tenants.webhooks.outbox import WebhookOutbox

#: Beyond a receiver's time: looking its name up, writing down what came of it, and a pause of the machine's.
SEND_LEASE_S = 30


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
    placer: Placer
    events: EventLog
    webhooks: WebhookSender
    removal: TenantRemoval
    sealer: Sealer
    turns: TurnEmbedding
    sweeper: SessionSweeper
    compactor: SessionCompactor
    memories: MemorySweep
    traces: Sweeper
    old_vectors: OldVectors
    erasing: Erasing
    stores: StoreUpkeep
    admitting: DurableQueue  #: takes what finds room

    def close(self) -> None:
        self.webhooks.close()
        self.worker.close()
        self.sandbox.close()
        self.reconciler.close()
        self.embedding.close()
        self.store.close()
        self.queue.close()
        self.admitting.close()
        self.core.database.close()


def build_worker(settings: Settings, executor: str) -> WorkerServices:
    """`executor`: the name under which its jobs are found again."""
    core = build_core(settings)
    sandbox = build_sandbox(settings)
    sandbox.warm_up()
    embedding = build_embedding(settings)
    core = priced(core, embedding)
    collections = open_collections(core, embedding)
    store = build_store(settings, **JOB_PATIENCE)
    blobs, queue = BlobStore(settings.data_dir / "blobs"), DurableQueue(core.database)
    collector = _collector(core, blobs, build_store(settings, **COLLECTOR_PATIENCE), embedding, queue)
    pipeline = _pipeline(core, blobs, sandbox, embedding, store, collector, queue)
    worker = DurableWorker(
        core.database,
        pipeline,
        core.registry.context_of_job,
        places=Places(settings.jobs_in_flight, settings.worker_tenant_concurrency),
        fair=settings.worker_fairness == "on",
        executor_id=executor,
    )
    points, admitting = settings.dedicated_points, DurableQueue(core.database, build_admission(settings))
    return WorkerServices(
        core=core,
        worker=worker,
        sandbox=sandbox,
        store=store,
        embedding=embedding,
        queue=queue,
        instances=Instances(core.database, core.clock),
        reconciler=build_reconciler(core, embedding, queue),
        placer=Placer(core.database, store, embedding.space, dedicated_points=points, quotas=core.quotas),
        events=EventLog(core.database, core.clock),
        webhooks=build_sender(core),
        removal=TenantRemoval(core.database, core.clock, core.registry, blobs, store, embedding, collector),
        sealer=_sealer(core),
        turns=TurnEmbedding(core.database, core.clock, embedding, core.ledger, core.registry.context_of_job),
        sweeper=SessionSweeper(build_sessions(core)),
        compactor=SessionCompactor(build_sessions(core)),
        memories=build_memory_sweep(core, embedding),
        traces=_sweeper(core),
        old_vectors=OldVectors(core.database, core.clock),
        stores=build_store_upkeep(core, collections, blobs, admitting),
        admitting=admitting,
        erasing=Erasing(core.database, core.clock, core.registry, core.idempotency, blobs, store, collector, embedding),
    )


def _pipeline(
    core: Core,
    blobs: BlobStore,
    sandbox: Sandbox,
    embedding: EmbeddingService,
    store: VectorStore,
    collector: Collector,
    queue: DurableQueue,
) -> Pipeline:
    return Pipeline(
        core.database,
        core.clock,
        blobs,
        sandbox,
        Chunkers(embedding.model.tokenizer_json),
        embedding,
        store,
        core.ledger,
        collector,
        queue,
        max_chunks=core.settings.max_chunks,
        fetcher=_fetcher(core.settings),
        quotas=core.quotas,
    )


def build_sender(core: Core) -> WebhookSender:
    settings = core.settings
    lease_s = settings.webhook_timeout_seconds + SEND_LEASE_S
    outbox = WebhookOutbox(core.database, core.clock, lease_s=lease_s, chance=random.Random())  # noqa: S311  jitter is no secret
    poster = Poster(webhook_policy(settings), seconds=settings.webhook_timeout_seconds)
    context_of, concurrency = core.registry.context_of_job, settings.webhook_concurrency
    return WebhookSender(outbox, build_webhooks(core), poster, context_of, concurrency=concurrency)


def _sealer(core: Core) -> Sealer:
    folder = core.settings.audit_archive_dir
    archive = None if folder is None else CheckpointArchive(folder)
    signer = CheckpointSigner(core.vault.derive(PURPOSE))
    return Sealer(core.database, core.clock, signer, archive, keep_days=core.settings.audit_keep_days)


def _sweeper(core: Core) -> Sweeper:
    def retention_of(tenant_id: str) -> int:
        try:
            return core.limits.of(tenant_id).trace_retention_days
        except NotFound:  # left by a question that was under way when its tenant was deleted
            return 0

    return Sweeper(core.database, core.clock, retention_of)


def _fetcher(settings: Settings) -> Fetcher | None:
    policy = url_policy(settings)
    if policy is None:
        return None
    return Fetcher(policy, max_bytes=settings.max_document_bytes, seconds=settings.url_fetch_seconds)


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
        collector=_collector(core, blobs, brief_store, embedding, queue),
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


def _collector(core: Core, blobs: BlobStore, store: VectorStore, embedding: EmbeddingService, queue: DurableQueue) -> Collector:
    days = core.settings.failed_content_days
    return Collector(core.database, core.clock, blobs, store, embedding, queue, keep_failed_days=days)
