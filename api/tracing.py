"""Puts traces together: what plans say of them, and who writes, reads, replays and deletes them."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pydantic import BaseModel

from api.problems import problem_of
from api.processes.upkeep import Task
from api.schemas.traces import ReplayOut, ReportOut, SkippedOut
from api.wiring.conversations import Conversations
from api.wiring.core import Core
from config.errors import BudgetExhausted, CarrelError, ContentDamaged, RateLimited, Unavailable
from rag.collections import Collections
from rag.retrieval.retriever import Retriever
from rag.traces.conversations_again import Conversing
from rag.traces.left import TracePolicy, asked_text, read_body
from rag.traces.reading import Traces
from rag.traces.recorder import FLUSH_S, Tracer
from rag.traces.regression import Report, useful_marks
from rag.traces.replayed import Otherwise
from rag.traces.replaying import Replayer
from rag.traces.tables import Trace
from tenants.context import TenantContext
from tenants.ledger.budget import TenantMeter

#: What the next trace would meet, too; any other refusal is of one trace, which is counted, and the others go on.
STOPPING = (BudgetExhausted, RateLimited, Unavailable)


@dataclass(frozen=True, slots=True)
class Tracing:
    tracer: Tracer
    traces: Traces
    replayer: Replayer
    draining: threading.Event

    def tasks(self) -> list[Task]:
        return [Task("traces", self.tracer.flush, FLUSH_S)]

    def get(self, tenant: TenantContext, trace_id: str) -> Trace:
        """Also one of just now, that this process has not written yet."""
        handle = self.traces.for_tenant(tenant)
        self.tracer.flush_if_waiting(tenant.tenant_id, trace_id)
        return handle.get(trace_id)

    def replay(
        self, tenant: TenantContext, meter: TenantMeter, trace_id: str, otherwise: Otherwise, *, charge_id: str
    ) -> ReplayOut:
        trace = self.get(tenant, trace_id)
        return ReplayOut.of(self.replayer.for_tenant(tenant, meter).replay(trace, otherwise, charge_id=charge_id))

    def replays(
        self,
        tenant: TenantContext,
        meter: TenantMeter,
        traces: Sequence[Trace],
        otherwise: Otherwise,
        *,
        charge_id: str,
    ) -> Iterator[bytes]:
        """A line for each trace and one for all. A refusal that would meet the next one too ends it: the last line says so."""
        handle, report, stopped = self.replayer.for_tenant(tenant, meter), Report(), None
        marks = useful_marks(self.traces.database, tenant, _questions(traces))
        for trace in traces:
            try:
                if self.draining.is_set():
                    raise Unavailable("The service is stopping.", retry_after_s=5)
                replayed = handle.replay(trace, otherwise, charge_id=charge_id)
                report.add(replayed, marks)
                yield _line("replay", ReplayOut.of(replayed))
            except CarrelError as error:
                if isinstance(error, STOPPING) and not isinstance(error, ContentDamaged):
                    stopped = problem_of(error)
                    break
                report.skip(error.code)
                yield _line("skipped", SkippedOut(trace_id=trace.id, code=error.code, detail=error.detail))
        yield _line("report", ReportOut.of(report, stopped))


def _line(kind: str, told: BaseModel) -> bytes:
    return f'{{"{kind}":{told.model_dump_json()}}}\n'.encode()


def _questions(traces: Sequence[Trace]) -> Iterator[str]:
    for trace in traces:
        if text := asked_text(read_body(trace.body)):
            yield text


def build_tracing(
    core: Core, collections: Collections, retriever: Retriever, conversations: Conversations, draining: threading.Event
) -> Tracing:
    def policy_of(tenant_id: str) -> TracePolicy:
        limits = core.limits.of(tenant_id)
        return TracePolicy(limits.trace_sample, limits.trace_contents, limits.trace_retention_days)

    tracer = Tracer(core.database, core.clock, policy_of, retriever.embedding.space.id)
    conversing = Conversing(conversations.contexts, conversations.recall, conversations.memories)
    replayer = Replayer(core.database, collections, retriever, conversing)
    return Tracing(tracer, Traces(core.database, core.clock), replayer, draining)
