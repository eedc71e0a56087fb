"""Passages made ready for a language model, and one passage in its place."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query, Request, Response

from api.idempotency import ChargeId
from api.routing import Services, Tenant, in_thread, meter_of, router, scope
from api.schemas.context import ContextIn, ContextOut, PassageViewOut
from api.schemas.documents import Text
from api.session_contexts import pack_session
from ingestion.intake.passages import MAX_AROUND, Shown
from rag.packing.counting import counter
from rag.packing.packing import pack
from rag.traces.left import Left, Packing
from tenants.context import Scope

routes = router("Knowledge")
Around = Annotated[int, Query(ge=0, le=MAX_AROUND, description="Characters before and after it, at most.")]


OfSession = Annotated[Text | None, Query(description="The session that its document is attached to.")]
Version = Annotated[int | None, Query(ge=1, le=2**31 - 1, description="As that version has it, if it is kept.")]


@routes.post(
    "/v1/context",
    operation_id="create_context",
    summary="Pack the passages that answer a question, and a session's turns, into a budget of tokens",
    response_model=ContextOut,
    **scope(Scope.QUERY, retrieval=True),
)
async def create_context(
    body: ContextIn, request: Request, services: Services, tenant: Tenant, charge_id: ChargeId
) -> Response:
    body.require_session()
    if body.session is not None:
        packed = await in_thread(lambda: pack_session(services, tenant, body, charge_id=charge_id))
        request.state.tokens, request.state.audit = packed.tokens, packed.audit
        return Response(packed.rendered, media_type="application/json")
    question = body.question()
    retriever = services.retriever.for_tenant(tenant, meter_of(services, tenant, question.collections))

    def ask() -> tuple[str, list[str], int]:
        answer = retriever.query(question, charge_id=charge_id)
        packed = pack(answer.passages, body.max_tokens, counter(body.tokenizer, services.embedding.model))
        packing = Packing(packed.text, packed.tokens, body.max_tokens, body.tokenizer, packed.left_out, packed.citations)
        left = Left("context", question, answer, packing)
        trace_id = services.traces.tracer.leave(tenant, left, request=charge_id)
        passages = [cited.passage.id for cited in packed.citations]
        rendered = ContextOut.of(packed, answer, body, trace_id=trace_id).model_dump_json()
        return rendered, passages, answer.charged + answer.rerank_tokens

    rendered, passages, request.state.tokens = await in_thread(ask)
    request.state.audit = {"passages": passages}
    return Response(rendered, media_type="application/json")


@routes.get(
    "/v1/passages/{passage_id}",
    operation_id="get_passage",
    summary="A passage inside the text that it was cut from",
    **scope(Scope.QUERY),
)
async def get_passage(
    passage_id: Text,
    services: Services,
    tenant: Tenant,
    around: Around = 500,
    version: Version = None,
    session: OfSession = None,
) -> PassageViewOut:
    def get() -> Shown:
        where = tenant if session is None else services.conversations.belongings.attached.for_tenant(tenant).reached(session)
        return services.passages.for_tenant(where).get(passage_id, around=around, version=version)

    return PassageViewOut.of(await in_thread(get))
