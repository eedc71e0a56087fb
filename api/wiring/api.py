"""Puts the api process's services together, from the adapters that `api.wiring.core` picks."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from api.bulk import BulkTurns
from api.cursors import CursorSeal
from api.middleware import Gates
from api.oversight import CrossTenantSearch, Oversight
from api.processes.readiness import Readiness, checks
from api.processes.upkeep import Upkeep
from api.streams import JobStreams
from api.tracing import Tracing, build_tracing
from api.wiring.conversations import Conversations, build_conversations
from api.wiring.core import (
    REQUEST_PATIENCE,
    Core,
    build_admission,
    build_core,
    build_embedding,
    build_reranking,
    build_rewriting,
    build_sandbox,
    build_store,
    build_webhooks,
    disk_mark,
    open_collections,
    operator_key,
    priced,
)
from api.wiring.documents import OpenAIServices, build_documents, build_openai
from api.wiring.gates import build_gates, build_upkeep
from config.settings import MIB, Settings
from ingestion.blobs import BlobStore
from ingestion.intake.bulk import BulkDocuments
from ingestion.intake.documents import Documents
from ingestion.intake.passages import Passages
from ingestion.jobs.instances import Instances
from ingestion.jobs.jobs import Jobs
from ingestion.pipeline.estimates import Estimates
from ingestion.placement import Placements
from ingestion.queue.durable import DurableQueue
from ingestion.removal.collections import Removal
from ingestion.statistics import StatisticsReader
from rag.collections import Collections
from rag.embedding.service import EmbeddingService
from rag.evaluation.feedback import FeedbackStore
from rag.evaluation.question_sets import QuestionSets
from rag.evaluation.tunings import TuningStore
from rag.llm.rewriting import Rewriting
from rag.rerank.stage import Reranking
from rag.result_cache import ResultCache
from rag.retrieval.retriever import Retriever
from rag.store.base import VectorStore
from tenants.audit.chain import PURPOSE, public_key
from tenants.audit.export import AuditExport
from tenants.audit.record import AuditLog
from tenants.deletions import Deletions
from tenants.events import EventLog
from tenants.identity.authenticator import Identifier
from tenants.identity.keys import KeyRing
from tenants.identity.tokens import TokenSigner
from tenants.importing import TenantImport
from tenants.ledger.policy import BudgetPolicy
from tenants.ledger.usage import UsageReader
from tenants.limits.overrides import Overrides
from tenants.webhooks.endpoints import Webhooks

if TYPE_CHECKING:
    from ingestion.pipeline.reading import Reading


@dataclass(frozen=True, slots=True)
class Tenancy:
    """What the operator does with tenants, and what tenants used."""

    overrides: Overrides
    imports: TenantImport
    deletions: Deletions
    usage: UsageReader
    budgets: BudgetPolicy


@dataclass(frozen=True, slots=True)
class Evaluating:
    """What answers are measured by, and fitted to."""

    question_sets: QuestionSets
    feedback: FeedbackStore
    tunings: TuningStore


@dataclass(frozen=True, slots=True)
class ApiServices:
    core: Core
    cursors: CursorSeal
    keys: KeyRing
    tokens: TokenSigner
    gates: Gates
    upkeep: Upkeep
    audit: AuditLog
    oversight: Oversight
    tenancy: Tenancy
    evaluation: Evaluating
    collections: Collections
    removal: Removal
    placements: Placements
    documents: Documents
    bulk: BulkDocuments
    bulk_turns: BulkTurns
    openai: OpenAIServices
    passages: Passages
    traces: Tracing
    estimates: Estimates
    jobs: Jobs
    events: EventLog
    webhooks: Webhooks
    streams: JobStreams
    draining: threading.Event  #: set when the process is asked to stop
    retriever: Retriever
    conversations: Conversations
    reranking: Reranking | None
    rewriting: Rewriting | None
    store: VectorStore
    embedding: EmbeddingService
    queue: DurableQueue
    instances: Instances
    readiness: Readiness

    @property
    def identifier(self) -> Identifier:
        return self.gates.identifier

    def close(self) -> None:
        self.readiness.close()
        self.estimates.close()
        if self.reranking is not None:
            self.reranking.reranker.close()
        if self.rewriting is not None:
            self.rewriting.model.close()
        self.embedding.close()
        self.store.close()
        self.queue.close()
        self.core.database.close()


def build_api(settings: Settings) -> ApiServices:
    core = build_core(settings)
    keys, tokens = KeyRing(core.database, core.clock), TokenSigner(core.vault.derive("tokens"), core.clock)
    keys.ensure_operator(operator_key(settings))
    gates, embedding = build_gates(core, keys, tokens), build_embedding(settings)
    core = priced(core, embedding)
    collections, rewriting = open_collections(core, embedding), build_rewriting(settings, core.ledger)
    store, reranking = build_store(settings, **REQUEST_PATIENCE), build_reranking(settings)
    queue, instances = DurableQueue(core.database, build_admission(settings)), Instances(core.database, core.clock)
    blobs, draining, audit = BlobStore(settings.data_dir / "blobs"), threading.Event(), AuditLog(core.database, core.clock)
    documents, bulk = build_documents(core, collections, blobs, queue)
    retriever = _retriever(core, gates, collections, store, embedding, reranking, rewriting)
    conversations = build_conversations(core, documents, embedding, rewriting)
    traces = build_tracing(core, collections, retriever, conversations, draining)
    return ApiServices(
        core=core,
        cursors=CursorSeal(core.vault.derive("cursors")),
        keys=keys,
        tokens=tokens,
        gates=gates,
        upkeep=build_upkeep(core, gates, keys, [*traces.tasks(), *conversations.tasks()]),
        tenancy=_tenancy(core),
        audit=audit,
        oversight=_oversight(core, audit, retriever),
        collections=collections,
        removal=Removal(core.database, collections),
        evaluation=_evaluating(core, collections),
        placements=Placements(core.database, collections, store, embedding.space, core.quotas),
        documents=documents,
        bulk=bulk,
        bulk_turns=BulkTurns(),
        openai=build_openai(core, bulk, embedding),
        passages=Passages(core.database, blobs),
        traces=traces,
        estimates=Estimates(documents, embedding, core.ledger, lambda: _reading(core, blobs, embedding)),
        jobs=Jobs(core.database, core.clock, queue, core.quotas),
        events=EventLog(core.database, core.clock),
        webhooks=build_webhooks(core),
        streams=JobStreams(core.clock, draining),
        draining=draining,
        retriever=retriever,
        conversations=conversations,
        reranking=reranking,
        rewriting=rewriting,
        store=store,
        embedding=embedding,
        queue=queue,
        instances=instances,
        readiness=_readiness(core, instances, store, embedding, draining),
    )


def _retriever(
    core: Core,
    gates: Gates,
    collections: Collections,
    store: VectorStore,
    embedding: EmbeddingService,
    reranking: Reranking | None,
    rewriting: Rewriting | None,
) -> Retriever:
    results = ResultCache(core.settings.result_cache_mb * MIB)
    gates.identifier.on_change.append(results.forget)  # of a tenant that is deleted nothing stays here
    parts = core.database, collections, store, embedding
    return Retriever(*parts, clock=core.clock, reranking=reranking, rewriting=rewriting, results=results)


def _tenancy(core: Core) -> Tenancy:
    return Tenancy(
        overrides=Overrides(core.database, core.clock, core.limits),
        imports=TenantImport(core.registry, core.limits.plans, monthly_tokens=core.settings.monthly_tokens),
        deletions=Deletions(core.database, core.clock),
        usage=UsageReader(core.database, core.clock, core.limits),
        budgets=BudgetPolicy(core.database, core.clock, core.limits),
    )


def _evaluating(core: Core, collections: Collections) -> Evaluating:
    parts = core.database, core.clock, collections
    return Evaluating(QuestionSets(*parts), FeedbackStore(*parts), TuningStore(*parts))


def _oversight(core: Core, audit: AuditLog, retriever: Retriever) -> Oversight:
    return Oversight(
        search=CrossTenantSearch(core.registry, retriever, audit),
        statistics=StatisticsReader(core.database, core.clock),
        export=AuditExport(audit, [public_key(seed) for seed in core.vault.derive_all(PURPOSE)]),
    )


def _readiness(
    core: Core, instances: Instances, store: VectorStore, embedding: EmbeddingService, draining: threading.Event
) -> Readiness:
    return Readiness(
        checks(
            database=core.database,
            instances=instances,
            store=store,
            embedder=embedding.embedder,
            data_dir=core.settings.data_dir,
            mark=disk_mark(core.settings),
            draining=draining,
        )
    )


def _reading(core: Core, blobs: BlobStore, embedding: EmbeddingService) -> Reading:
    """As the worker's, by which documents are read that are brought."""
    from ingestion.pipeline.reading import Reading
    from rag.splitting.chunkers import Chunkers

    chunkers, sandbox = Chunkers(embedding.model.tokenizer_json), build_sandbox(core.settings)
    limit = core.settings.max_chunks
    return Reading(core.database, core.clock, blobs, sandbox, chunkers, embedding.count_tokens, max_chunks=limit)
