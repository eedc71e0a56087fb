"""Stored question sets: what a tenant's collections are measured by."""

from __future__ import annotations

from fastapi import Request

from api.cursors import Cursor, Limit
from api.idempotency import Once
from api.routing import Services, Tenant, in_thread, router, scope
from api.schemas.documents import Page, Text
from api.schemas.evaluation import FullQuestionSetOut, QuestionSetIn, QuestionSetOut
from tenants.context import Scope

routes = router("Evaluation")


@routes.post(
    "/v1/question-sets",
    operation_id="create_question_set",
    summary="Store questions with the documents that answer them",
    status_code=201,
    **scope(Scope.INGEST),
)
async def create_question_set(body: QuestionSetIn, services: Services, tenant: Tenant, once: Once) -> QuestionSetOut:
    handle, record = services.evaluation.question_sets.for_tenant(tenant), once.records(QuestionSetOut.of, status=201)
    questions = [each.model_dump() for each in body.questions]
    made = await in_thread(lambda: handle.create(body.name, body.collection, questions, record=record))
    return QuestionSetOut.of(made)


@routes.get(
    "/v1/question-sets",
    operation_id="list_question_sets",
    summary="List question sets, without their questions",
    **scope(Scope.QUERY),
)
async def list_question_sets(
    services: Services, tenant: Tenant, cursor: Cursor, collection: Text | None = None, limit: Limit = 20
) -> Page[QuestionSetOut]:
    handle = services.evaluation.question_sets.for_tenant(tenant)
    rows = await in_thread(lambda: handle.list(collection, after=cursor.position, limit=limit))
    return Page(data=[*map(QuestionSetOut.of, rows)], next=cursor.next(rows[-1].row.id if len(rows) == limit else None))


@routes.get(
    "/v1/question-sets/{set_id}",
    operation_id="get_question_set",
    summary="A question set with its questions",
    **scope(Scope.QUERY),
)
async def get_question_set(set_id: Text, services: Services, tenant: Tenant) -> FullQuestionSetOut:
    handle = services.evaluation.question_sets.for_tenant(tenant)
    return FullQuestionSetOut.of(await in_thread(lambda: handle.get(set_id)))


@routes.delete(
    "/v1/question-sets/{set_id}",
    operation_id="delete_question_set",
    summary="Delete a question set",
    **scope(Scope.INGEST),
)
async def delete_question_set(set_id: Text, request: Request, services: Services, tenant: Tenant) -> QuestionSetOut:
    handle = services.evaluation.question_sets.for_tenant(tenant)
    deleted = await in_thread(lambda: handle.delete(set_id))
    request.state.audit = {"question_set": deleted.row.id}
    return QuestionSetOut.of(deleted)
