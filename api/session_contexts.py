"""Contexts of sessions, put together from the services of the api process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from api.schemas.context import ContextIn, ContextOut
from api.session_meters import SessionMeters
from api.wiring.api import ApiServices
from rag.context.contexts import Request, SessionContext, Sources
from rag.context.found import Recalled, Remembered, recalled_of, remembered_of
from rag.memories.values import Wanted
from rag.packing.conversation import Plan
from rag.packing.counting import counter
from rag.packing.shares import shares_of
from rag.recall.recall import RecallQuestion
from rag.retrieval.question import Answer
from rag.traces.conversations_again import MAX_MEMORIES
from rag.traces.conversed import of_context
from rag.traces.left import Left, Packing, named
from tenants.context import TenantContext


@dataclass(frozen=True, slots=True)
class PackedSession:
    rendered: str
    tokens: int  #: charged
    audit: dict[str, Any]


def pack_session(services: ApiServices, tenant: TenantContext, body: ContextIn, *, charge_id: str) -> PackedSession:
    shares = shares_of(body.strategy, memories=body.memories, given=body.shares.given())
    plan = Plan(body.max_tokens, shares, body.newest_turns, body.knowledge, body.message)
    request = Request(body.session or "", plan, body.pins, body.query or next(iter(body.queries), None))
    count = counter(body.tokenizer, services.embedding.model)
    handle = services.conversations.contexts.for_tenant(tenant)
    context = handle.pack(request, _Asking(services, tenant, body, charge_id).sources(), count, charge_id=charge_id)
    trace_id = services.traces.tracer.leave(tenant, _left(context, body, tenant), request=charge_id)
    rendered = ContextOut.of_session(context, body, trace_id=trace_id).model_dump_json()
    return PackedSession(rendered, _charged(context), _audit(context, body))


@dataclass(frozen=True, slots=True)
class _Asking:
    """Who is asked for a context."""

    services: ApiServices
    tenant: TenantContext
    body: ContextIn
    charge_id: str

    def sources(self) -> Sources:
        memories = self._memories if self.body.memories else None
        return Sources(self._documents, self._recalled, memories, self._meters.llm())

    def _documents(self, text: str) -> Answer:
        question = self.body.asking(text)
        meter = self._meters.question(question.collections)
        retriever = self.services.retriever.for_tenant(self.tenant, meter, self._meters.llm())
        return retriever.query(question, charge_id=self.charge_id)

    def _recalled(self, text: str) -> Recalled:
        handle = self.services.conversations.recall.for_tenant(self.tenant, self._meters.question())
        asked = RecallQuestion(text, top_k=self.body.recall_top_k)
        found = handle.in_session(self._session, asked, charge_id=f"{self.charge_id}:recall")
        return recalled_of(found)

    def _memories(self, text: str, subject: str) -> Remembered:
        handle = self.services.conversations.memories.for_tenant(self.tenant, self._meters.question())
        found = handle.search(text, charge_id=f"{self.charge_id}:memories", wanted=Wanted(subject=subject), limit=MAX_MEMORIES)
        return remembered_of(found)

    @property
    def _session(self) -> str:
        return self.body.session or ""

    @property
    def _meters(self) -> SessionMeters:
        return SessionMeters(self.services, self.tenant, self._session)


def _charged(context: SessionContext) -> int:
    answer = context.answer
    return context.charged + (0 if answer is None else answer.charged + answer.rerank_tokens)


def _left(context: SessionContext, body: ContextIn, tenant: TenantContext) -> Left:
    packed, salt = context.conversation, tenant.cache_salt
    text = packed.composed.text
    packing = Packing(
        text, packed.tokens, body.max_tokens, body.tokenizer, packed.left_out["documents"], packed.composed.citations
    )
    asked = body.model_dump(include={"strategy", "memories", "shares", "newest_turns", "recall_top_k", "knowledge"})
    return Left(
        "context",
        None if context.answer is None or context.question is None else body.asking(context.question),
        context.answer,
        packing,
        subject=context.subject,
        session_id=body.session,
        conversed=of_context(context, lambda text: named(text, salt)),
        details=asked,
        words=body.model_dump(include={"message", "pins", "query", "queries"}),
    )


def _audit(context: SessionContext, body: ContextIn) -> dict[str, Any]:
    """Ids, as of every retrieval."""
    composed = context.conversation.composed
    shown = {"passages": [cited.passage.id for cited in composed.citations], "session": body.session}
    recalled = [f"{turn.session}:{turn.seq}" for turn in context.conversation.chosen.recalled]
    return shown | {"turns": recalled, "memories": [fact.id for fact in context.conversation.chosen.facts]}
