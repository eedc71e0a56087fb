"""What the checks share: where the truth and what derives from it are, and whether to mend."""

from __future__ import annotations

from dataclasses import dataclass

from config.clock import Clock
from config.database import Database
from ingestion.blobs import BlobStore
from ingestion.jobs.instances import Instances
from ingestion.jobs.rows import JobQueue
from ingestion.removal.collector import Collector
from rag.embedding.service import EmbeddingService
from rag.store.base import VectorStore
from tenants.registry import TenantRegistry

PAGE = 500
UNFINISHED = ("queued", "running")  # states of jobs


@dataclass(frozen=True, slots=True)
class Parts:
    database: Database
    clock: Clock
    registry: TenantRegistry
    instances: Instances
    blobs: BlobStore
    queue: JobQueue
    collector: Collector
    embedding: EmbeddingService
    store: VectorStore  #: waits for an engine that restarts
    brief_store: VectorStore  #: the same with little patience: it is called in transactions, which others wait for
