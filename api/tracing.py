"""Puts traces together: what plans say of them, and who writes, reads, replays and deletes them."""

from __future__ import annotations

from dataclasses import dataclass

from api.upkeep import Task
from api.wiring import Core
from config.errors import NotFound
from rag.embedding.service import EmbeddingService
from rag.traces.erasing import Sweeper
from rag.traces.left import TracePolicy
from rag.traces.recorder import FLUSH_S, Tracer


@dataclass(frozen=True, slots=True)
class Tracing:
    tracer: Tracer

    def tasks(self) -> list[Task]:
        return [Task("traces", self.tracer.flush, FLUSH_S)]


def build_tracing(core: Core, embedding: EmbeddingService) -> Tracing:
    def policy_of(tenant_id: str) -> TracePolicy:
        limits = core.limits.of(tenant_id)
        return TracePolicy(limits.trace_sample, limits.trace_contents, limits.trace_retention_days)

    return Tracing(Tracer(core.database, core.clock, policy_of, embedding.space.id))


def build_sweeper(core: Core) -> Sweeper:
    def retention_of(tenant_id: str) -> int:
        try:
            return core.limits.of(tenant_id).trace_retention_days
        except NotFound:  # left by a question that was under way when its tenant was deleted
            return 0

    return Sweeper(core.database, core.clock, retention_of)
