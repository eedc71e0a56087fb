"""Dify's external knowledge: its workflows ask a collection as if it were theirs."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import Request

from api.idempotency import ChargeId
from api.routing import Services, Tenant, in_thread, meter_of, router, scope
from api.schemas.dify import RecordOut, RecordsOut, RetrievalIn
from rag.filters import parse
from rag.retrieval.question import Passage, Question
from tenants.context import Scope

routes = router("Agents")


@routes.post(
    "/retrieval",
    operation_id="dify_retrieval",
    summary="Answer Dify's external knowledge API",
    **scope(Scope.QUERY, retrieval=True),
)
async def dify_retrieval(
    body: RetrievalIn, request: Request, services: Services, tenant: Tenant, charge_id: ChargeId
) -> RecordsOut:
    condition = None if body.metadata_condition is None else body.metadata_condition.filter()
    wanted, names = body.retrieval_setting, (body.knowledge_id,)
    filtered = None if condition is None else parse(condition)
    question = Question(text=body.query, collections=names, top_k=wanted.top_k, filter=filtered)
    retriever = services.retriever.for_tenant(tenant, meter_of(services, tenant, names))
    answer = await in_thread(lambda: retriever.query(question, charge_id=charge_id))
    request.state.tokens = answer.charged + answer.rerank_tokens
    scored = zip(answer.passages, scores_of(answer.passages), strict=True)
    records = [RecordOut.of(passage, score) for passage, score in scored if score >= wanted.score_threshold]
    request.state.audit = {"passages": [record.metadata["passage_id"] for record in records]}
    return RecordsOut(records=records)


def scores_of(passages: Sequence[Passage]) -> list[float]:
    """Of one scale whatever the question: what was measured, where it was. Of what words alone have found nothing was: 0."""
    if any(passage.relevance is not None for passage in passages):
        return [passage.relevance or 0.0 for passage in passages]
    return [min(1.0, max(0.0, passage.score)) for passage in passages]
