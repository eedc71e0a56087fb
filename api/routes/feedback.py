"""What users say of answers."""

from __future__ import annotations

from dataclasses import replace

from fastapi import Request

from api.cursors import Cursor, Limit
from api.idempotency import ChargeId
from api.routing import Services, Tenant, in_thread, router, scope
from api.schemas.documents import Page, Text
from api.schemas.evaluation import FeedbackIn, FeedbackOut
from tenants.context import Scope

routes = router("Evaluation")


@routes.post(
    "/v1/feedback",
    operation_id="give_feedback",
    summary="Say how useful a passage or a document was as an answer",
    status_code=201,
    **scope(Scope.QUERY),
)
async def give_feedback(
    body: FeedbackIn, request: Request, services: Services, tenant: Tenant, charge_id: ChargeId
) -> FeedbackOut:
    handle = services.evaluation.feedback.for_tenant(tenant)
    opinion = replace(body.opinion(), subject=tenant.speaking_for(body.subject))
    given = await in_thread(lambda: handle.give(opinion, request=charge_id))
    request.state.audit = {"feedback": given.row.id, "document": given.row.document_id}
    return FeedbackOut.of(given)


@routes.get("/v1/feedback", operation_id="list_feedback", summary="List feedback, oldest first", **scope(Scope.MANAGE))
async def list_feedback(
    services: Services, tenant: Tenant, cursor: Cursor, collection: Text | None = None, limit: Limit = 20
) -> Page[FeedbackOut]:
    handle = services.evaluation.feedback.for_tenant(tenant)
    rows = await in_thread(lambda: handle.list(collection, after=cursor.position, limit=limit))
    return Page(data=[*map(FeedbackOut.of, rows)], next=cursor.next(rows[-1].row.id if len(rows) == limit else None))
