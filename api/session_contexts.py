"""Contexts of sessions, put together from the services of the api process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from api.context_schemas import ContextIn, ContextOut
from api.routing import meter_of
from api.wiring_api import ApiServices
from rag.context.contexts import Recalled, Request, SessionContext, Sources
from rag.context.turns import said_of
from rag.packing.conversation import Plan
from rag.packing.counting import counter
from rag.packing.shares import shares_of
from rag.recall.recall import RecallQuestion
from rag.retrieval.question import Answer
from rag.traces.left import Left, Packing
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
    handle = services.contexts.for_tenant(tenant)
    context = handle.pack(request, _sources(services, tenant, body, charge_id), count, charge_id=charge_id)
    trace_id = services.traces.tracer.leave(tenant, _left(context, body), request=charge_id)
    rendered = ContextOut.of_session(context, body, trace_id=trace_id).model_dump_json()
    return PackedSession(rendered, _charged(context), _audit(context, body))


def _sources(services: ApiServices, tenant: TenantContext, body: ContextIn, charge_id: str) -> Sources:
    def documents(text: str) -> Answer:
        question = body.asking(text)
        meter = meter_of(services, tenant, question.collections)
        return services.retriever.for_tenant(tenant, meter).query(question, charge_id=charge_id)

    def recalled(text: str) -> Recalled:
        asked = RecallQuestion(text, top_k=body.recall_top_k)
        found = services.recall.for_tenant(tenant, meter_of(services, tenant, ())).in_session(
            body.session or "", asked, charge_id=f"{charge_id}:recall"
        )
        scores = {each.turn.id: each.score for each in found.turns}
        degraded = ("recall",) if found.degraded else ()
        return Recalled([said_of(each.turn) for each in found.turns], scores, found.charged, degraded)

    return Sources(
        documents=documents,
        recalled=recalled,
        llm_meter=None if services.rewriting is None else services.rewriting.meter_of(tenant),
    )


def _charged(context: SessionContext) -> int:
    answer = context.answer
    return context.charged + (0 if answer is None else answer.charged + answer.rerank_tokens)


def _left(context: SessionContext, body: ContextIn) -> Left:
    packed, chosen = context.conversation, context.conversation.chosen
    text = packed.composed.text
    packing = Packing(
        text, packed.tokens, body.max_tokens, body.tokenizer, packed.left_out["documents"], packed.composed.citations
    )
    asked = body.model_dump(include={"strategy", "memories", "shares", "newest_turns", "recall_top_k", "knowledge"})
    shown = {
        "turns": [chosen.recent[0].seq, chosen.recent[-1].seq] if chosen.recent else [],
        "recaps": [[recap.first, recap.last] for recap in chosen.recaps],
        "memories": [fact.id for fact in chosen.facts],
    }
    return Left(
        "context",
        None if context.answer is None or context.question is None else body.asking(context.question),
        context.answer,
        packing,
        subject=context.subject,
        session_id=body.session,
        recalled=[(turn.id, context.recalled.scores.get(turn.id, 0.0)) for turn in context.recalled.turns],
        details={**asked, **shown},
        words=body.model_dump(include={"message", "pins", "query", "queries"}),
    )


def _audit(context: SessionContext, body: ContextIn) -> dict[str, Any]:
    """Ids, as of every retrieval."""
    composed = context.conversation.composed
    shown = {"passages": [cited.passage.id for cited in composed.citations], "session": body.session}
    recalled = [f"{turn.session}:{turn.seq}" for turn in context.conversation.chosen.recalled]
    return shown | {"turns": recalled, "memories": [fact.id for fact in context.conversation.chosen.facts]}
