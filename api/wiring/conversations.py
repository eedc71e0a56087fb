"""Puts together what keeps conversations and what is known from them: for the api process, and what the worker sweeps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from sqlalchemy.orm import Session

from api.processes.upkeep import Task
from api.wiring.core import Core
from config.clock import Clock
from config.settings import MIB
from ingestion.conversations.attached import AttachedDocuments
from ingestion.conversations.exporting import Exports
from ingestion.conversations.promotion import Promotion
from ingestion.erasing.requests import Erasures
from ingestion.intake.documents import Documents
from rag.context.contexts import Contexts
from rag.context.pins import follow
from rag.context.recaps import Recaps
from rag.embedding.service import EmbeddingService
from rag.llm.rewriting import Rewriting
from rag.memories.memories import Memories
from rag.memories.removal import MemorySweep
from rag.recall.recall import Recall
from rag.recall.resident import Residents
from rag.sessions.sessions import Sessions
from tenants.events import emit
from tenants.idempotency import IdempotencyStore

LET_GO_S = 60.0
ADD_MEMORIES = "POST /v1/memories"  #: whose kept answers say what memories say


@dataclass(frozen=True, slots=True)
class Belongings:
    """What belongs to sessions and subjects, and what becomes of it."""

    attached: AttachedDocuments
    promotion: Promotion
    exports: Exports
    erasures: Erasures


@dataclass(frozen=True, slots=True)
class Conversations:
    sessions: Sessions
    memories: Memories
    recall: Recall
    contexts: Contexts
    belongings: Belongings

    def tasks(self) -> list[Task]:
        return [Task("turns in memory", self.recall.residents.let_go_unused, LET_GO_S)]


def build_conversations(core: Core, documents: Documents, embedding: EmbeddingService, llm: Rewriting | None) -> Conversations:
    settings = core.settings
    residents = Residents(embedding.space.dimensions, settings.recall_index_mb * MIB)
    told = partial(_tell, core.clock), partial(_retract, core.idempotency)
    return Conversations(
        sessions=build_sessions(core),
        memories=Memories(core.database, core.clock, embedding, settings.memories_per_subject, llm, *told),
        recall=Recall(core.database, core.clock, embedding, residents),
        contexts=Contexts(core.database, core.clock, Recaps(core.database, core.clock, llm)),
        belongings=_belongings(core, documents, embedding, residents),
    )


def _belongings(core: Core, documents: Documents, embedding: EmbeddingService, residents: Residents) -> Belongings:
    attached = AttachedDocuments(documents, embedding.space)
    erasures = Erasures(core.database, core.clock, core.idempotency, embedding, residents.forget)
    return Belongings(attached, Promotion(attached), Exports(attached), erasures)


def build_sessions(core: Core) -> Sessions:
    return Sessions(core.database, core.clock, core.quotas, partial(_tell, core.clock), follow)


def build_memory_sweep(core: Core, embedding: EmbeddingService) -> MemorySweep:
    told = partial(_tell, core.clock), partial(_retract, core.idempotency)
    return MemorySweep(core.database, core.clock, embedding, core.registry.context_of_job, *told)


def _tell(clock: Clock, session: Session, tenant_id: str, event: str, subject: str, **data: object) -> None:
    emit(session, clock, tenant_id, event, subject, **data)


def _retract(results: IdempotencyStore, session: Session, tenant_id: str, subject: str, memory_ids: Sequence[str]) -> None:
    results.retract(session, tenant_id, route=ADD_MEMORIES, subject=subject, names=memory_ids)
