"""Puts together how documents are taken in, where requests bring them and where a worker finishes what requests began."""

from __future__ import annotations

from dataclasses import dataclass

from api.wiring.core import Core, url_policy
from ingestion.blobs import BlobStore
from ingestion.intake.bulk import BulkDocuments
from ingestion.intake.catalogue import DocumentLimits
from ingestion.intake.documents import Documents
from ingestion.jobs.jobs import Jobs
from ingestion.queue.durable import DurableQueue
from ingestion.removal.collections import Removal
from ingestion.stores.parts import StoreParts
from ingestion.stores.services import StoreServices
from ingestion.stores.settling import Settling
from ingestion.stores.upkeep import StoreUpkeep
from rag.collections import Collections
from rag.embedding.given import GivenTexts
from rag.embedding.service import EmbeddingService


@dataclass(frozen=True, slots=True)
class OpenAIServices:
    """What the OpenAI SDK's routes need besides those of the native ones."""

    stores: StoreServices
    given: GivenTexts


def build_documents(
    core: Core, collections: Collections, blobs: BlobStore, queue: DurableQueue
) -> tuple[Documents, BulkDocuments]:
    settings = core.settings
    limits = DocumentLimits(settings.max_document_bytes, url_policy(settings), core.quotas)
    parts = core.database, core.clock, collections, blobs, queue, core.ledger, limits
    return Documents(*parts), BulkDocuments(*parts)


def store_parts(core: Core, documents: BulkDocuments) -> StoreParts:
    return StoreParts(
        database=core.database,
        clock=core.clock,
        blobs=documents.blobs,
        documents=documents,
        jobs=Jobs(core.database, core.clock, documents.queue, core.quotas),
        removal=Removal(core.database, documents.collections),
    )


def build_openai(core: Core, documents: BulkDocuments, embedding: EmbeddingService) -> OpenAIServices:
    given = GivenTexts(embedding, cut=core.settings.embedding_dimensions is not None)
    return OpenAIServices(StoreServices.of(store_parts(core, documents)), given)


def build_store_upkeep(core: Core, collections: Collections, blobs: BlobStore, queue: DurableQueue) -> StoreUpkeep:
    """A worker's. `queue`: where what it brings has to find room, as requests do."""
    parts = store_parts(core, build_documents(core, collections, blobs, queue)[1])
    return StoreUpkeep(parts, Settling(parts), core.registry.context_of_job)
