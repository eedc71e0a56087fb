"""Picks the adapters. The only place that knows which implementation stands behind which protocol."""

from __future__ import annotations

from dataclasses import dataclass, replace

from api.schema import upgrade
from api.wiring.embedders import build_embedder
from config.clock import Clock, system_clock
from config.database import Database
from config.errors import SetupError
from config.ids import new_id
from config.plans import load_plans
from config.profiles import load_profiles
from config.secrets import build_vault, secret_file
from config.settings import Settings
from config.vault import Vault
from ingestion.fetch.addresses import UrlPolicy
from ingestion.intake.admission import Admission, DiskMark, disk_of
from ingestion.sandbox import Sandbox
from rag.collections import Collections
from rag.embedding.cache import DiskVectorCache
from rag.embedding.runtime import Embedder
from rag.embedding.service import EmbeddingService
from rag.llm.rewriting import Rewriting
from rag.profiles import Profiles
from rag.rerank.base import Reranker
from rag.rerank.stage import Reranking
from rag.store.base import VectorStore
from rag.store.remote import EngineClient
from tenants.idempotency import IdempotencyStore
from tenants.identity.keys import make_secret
from tenants.ledger.budget import Ledger
from tenants.limits.plans import LimitsInForce, Plans
from tenants.limits.quotas import Quotas
from tenants.registry import TenantRegistry
from tenants.secrets import Secrets
from tenants.webhooks.endpoints import Webhooks

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
    limits: LimitsInForce
    quotas: Quotas


def build_core(settings: Settings, clock: Clock = system_clock) -> Core:
    settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    vault = build_vault(settings)
    plans = Plans(load_plans(settings.plans_file, settings.default_plan), settings.default_plan)
    database = Database(settings.sql_url, synchronous=settings.sqlite_synchronous)
    upgrade(database)
    limits = LimitsInForce(database, clock, plans)
    ledger = Ledger(database, clock, lease_s=settings.hold_lease_seconds, limits=limits.of)
    idempotency = IdempotencyStore(database, clock, vault)
    return Core(settings, clock, vault, database, TenantRegistry(database, clock), ledger, idempotency, limits, Quotas(limits))


def priced(core: Core, embedding: EmbeddingService) -> Core:
    """The core whose meters charge what the tokens of this model cost."""
    price = core.settings.price_of(embedding.space.id, embedding.model.name)
    return replace(core, ledger=core.ledger.at(price))


def build_embedding(settings: Settings, embedder: Embedder | None = None) -> EmbeddingService:
    cache = DiskVectorCache(settings.data_dir / "cache", max_bytes=settings.cache_max_bytes)
    return EmbeddingService(embedder or build_embedder(settings), cache)


def build_store(settings: Settings, *, patience_s: float, timeout_s: float) -> VectorStore:
    if settings.vector_backend == "engine":
        return EngineClient(settings.engine_socket, patience_s=patience_s, timeout_s=timeout_s)
    if settings.qdrant_url is None:
        raise SetupError("CARREL_VECTOR_BACKEND is qdrant: set CARREL_QDRANT_URL to the server's base URL.")
    from rag.store.qdrant import QdrantStore  # noqa: PLC0415  0.6 s and 50 MB a process, for those who use it only

    key = settings.qdrant_api_key
    return QdrantStore.connect(
        settings.qdrant_url, key.get_secret_value() if key else None, shard_keys=settings.qdrant_shard_keys
    )


def build_reranking(settings: Settings) -> Reranking | None:
    """None without CARREL_RERANK_MODEL. What it runs on is imported for those who use it only."""
    if settings.rerank_model is None:
        if settings.rerank_url is not None:
            raise SetupError("CARREL_RERANK_URL is set: set CARREL_RERANK_MODEL to the provider's name of the model.")
        return None
    reranker = _remote_reranker(settings) if settings.rerank_url is not None else _local_reranker(settings)
    return Reranking(reranker, settings.rerank_deadline_seconds, settings.rerank_candidates)


def _local_reranker(settings: Settings) -> Reranker:
    from rag.embedding.local.models import resolve_model  # noqa: PLC0415
    from rag.rerank.local import LocalReranker  # noqa: PLC0415

    name = settings.rerank_model or ""
    folder = resolve_model(name, allow_download=settings.allow_model_download, setting="CARREL_RERANK_MODEL")
    return LocalReranker(folder, name=name, device=settings.embedding_device)


def _remote_reranker(settings: Settings) -> Reranker:
    from api.wiring.remote_embedding import plain_url  # noqa: PLC0415
    from rag.rerank.remote import RemoteReranker  # noqa: PLC0415

    if not plain_url(settings.rerank_url or ""):
        raise SetupError("CARREL_RERANK_URL is no plain http or https URL. Keys go to CARREL_RERANK_API_KEY.")
    key = settings.rerank_api_key
    return RemoteReranker(
        settings.rerank_url or "", key.get_secret_value().strip() if key else None, model=settings.rerank_model or ""
    )


def build_rewriting(settings: Settings, ledger: Ledger) -> Rewriting | None:
    """None without CARREL_LLM_URL."""
    if settings.llm_url is None:
        if settings.llm_model is not None:
            raise SetupError("CARREL_LLM_MODEL is set: set CARREL_LLM_URL to the provider's base URL.")
        return None
    from api.wiring.remote_embedding import plain_url  # noqa: PLC0415
    from rag.llm.remote import RemoteLanguageModel  # noqa: PLC0415

    if settings.llm_model is None:
        raise SetupError("CARREL_LLM_URL is set: set CARREL_LLM_MODEL to the provider's name of the model.")
    if not plain_url(settings.llm_url):
        raise SetupError("CARREL_LLM_URL is no plain http or https URL. Keys go to CARREL_LLM_API_KEY.")
    if settings.llm_deadline_seconds >= settings.hold_lease_seconds:
        raise SetupError("CARREL_LLM_DEADLINE_SECONDS must be less than CARREL_HOLD_LEASE_SECONDS.")
    key, ledger = settings.llm_api_key, ledger.at(settings.llm_price)
    model = RemoteLanguageModel(settings.llm_url, key.get_secret_value().strip() if key else None, model=settings.llm_model)
    return Rewriting(model, settings.llm_deadline_seconds, lambda scope: ledger.for_tenant(scope, "llm"))


def build_sandbox(settings: Settings) -> Sandbox:
    return Sandbox(seconds=settings.parse_seconds, memory_bytes=settings.parse_memory_bytes, max_chars=settings.max_text_chars)


def url_policy(settings: Settings) -> UrlPolicy | None:
    """None: nothing is fetched."""
    return webhook_policy(settings) if settings.url_fetch == "on" else None


def webhook_policy(settings: Settings) -> UrlPolicy:
    """The same addresses, which are connected to whether documents are fetched or not."""
    return UrlPolicy.of(settings.url_fetch_ports, settings.url_fetch_allow)


def build_webhooks(core: Core) -> Webhooks:
    secrets = Secrets(core.database, core.clock, core.vault)
    return Webhooks(core.database, core.clock, secrets, webhook_policy(core.settings).target)


def disk_mark(settings: Settings) -> DiskMark:
    return DiskMark(disk_of(settings.data_dir), settings.disk_free_bytes, settings.disk_free_percent)


def build_admission(settings: Settings) -> Admission:
    return Admission(tenant_jobs=settings.queue_tenant_jobs, all_jobs=settings.queue_jobs, disk=disk_mark(settings))


def operator_key(settings: Settings) -> str:
    """The first operator key, made on first use and kept 0600 in the data directory."""
    return secret_file(settings.operator_key_file, lambda: make_secret(new_id("key")))


def open_collections(core: Core, embedding: EmbeddingService) -> Collections:
    profiles = Profiles(load_profiles(core.settings.profiles_file), embedding.model)
    collections = Collections(core.database, core.clock, embedding.model.fingerprint, profiles, core.quotas)
    collections.register_space()
    collections.require_profiles()
    return collections
