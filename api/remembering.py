"""Puts memories together: for the api process, and what the worker sweeps."""

from __future__ import annotations

from functools import partial

from sqlalchemy.orm import Session

from api.wiring import Core
from config.clock import Clock
from rag.embedding.service import EmbeddingService
from rag.llm.rewriting import Rewriting
from rag.memories.memories import Memories
from rag.memories.removal import MemorySweep
from tenants.events import emit


def build_memories(core: Core, embedding: EmbeddingService, llm: Rewriting | None) -> Memories:
    limit = core.settings.memories_per_subject
    return Memories(core.database, core.clock, embedding, limit, llm, partial(_tell, core.clock))


def build_memory_sweep(core: Core, embedding: EmbeddingService) -> MemorySweep:
    return MemorySweep(core.database, core.clock, embedding, core.registry.context_of_job, partial(_tell, core.clock))


def _tell(clock: Clock, session: Session, tenant_id: str, event: str, subject: str, **data: object) -> None:
    emit(session, clock, tenant_id, event, subject, **data)
