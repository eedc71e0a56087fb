"""What is attached to a session: brought, shown, deleted, and kept beyond it."""

from __future__ import annotations

from functools import partial

from fastapi import Request, Response

from api.cursors import Cursor, Limit
from api.idempotency import Once
from api.preconditions import Expected, IfMatch
from api.routes.documents import status_of, submission_of, submitted_out, with_body
from api.routing import Services, Tenant, in_thread, router, scope
from api.schemas.documents import DeletedOut, DocumentOut, Page, SubmittedOut, Text, TextOut
from api.schemas.erasures import PromotedOut, PromoteIn, PromotionOut
from api.schemas.jobs import JobOut
from tenants.context import Scope

routes = router("Sessions")


@routes.post(
    "/v1/sessions/{session_id}/documents",
    operation_id="attach_document",
    summary="Attach a document to a session: found with it alone, and gone with it",
    status_code=202,
    response_model=SubmittedOut,
    responses={200: {"model": SubmittedOut, "description": "Live already and free."}},
    **with_body(scope(Scope.CONVERSE)),
)
async def attach_document(
    session_id: Text,
    request: Request,
    response: Response,
    services: Services,
    tenant: Tenant,
    once: Once,
    expected: Expected,
) -> SubmittedOut:
    submission, after = await submission_of(request)
    render = partial(submitted_out, services.core.clock())
    handle, record = services.conversations.belongings.attached.for_tenant(tenant), once.records(render, status=status_of)
    submitted = await in_thread(lambda: handle.submit(session_id, submission, expected=expected, after=after, record=record))
    request.state.audit = {"session": session_id, "document": submitted.shown.document.id}
    response.status_code, response.headers["ETag"] = status_of(submitted), submitted.shown.etag
    return render(submitted)


@routes.get(
    "/v1/sessions/{session_id}/documents",
    operation_id="list_attached_documents",
    summary="List what is attached to a session, oldest first",
    **scope(Scope.QUERY),
)
async def list_attached_documents(
    session_id: Text, services: Services, tenant: Tenant, cursor: Cursor, limit: Limit = 20
) -> Page[DocumentOut]:
    handle = services.conversations.belongings.attached.for_tenant(tenant)
    shown, following = await in_thread(
        lambda: handle.within(session_id).list(collection=None, after=cursor.position, limit=limit)
    )
    return Page(data=[DocumentOut.of(item) for item in shown], next=cursor.next(following))


@routes.get(
    "/v1/sessions/{session_id}/documents/{document_id}",
    operation_id="get_attached_document",
    summary="Show an attached document",
    **scope(Scope.QUERY),
)
async def get_attached_document(session_id: Text, document_id: Text, services: Services, tenant: Tenant) -> DocumentOut:
    handle = services.conversations.belongings.attached.for_tenant(tenant)
    return DocumentOut.of(await in_thread(lambda: handle.within(session_id).get(document_id)))


@routes.get(
    "/v1/sessions/{session_id}/documents/{document_id}/text",
    operation_id="get_attached_text",
    summary="The text of an attached document that passages cite by offsets",
    **scope(Scope.QUERY),
)
async def get_attached_text(session_id: Text, document_id: Text, services: Services, tenant: Tenant) -> TextOut:
    handle = services.conversations.belongings.attached.for_tenant(tenant)
    shown, text = await in_thread(lambda: handle.within(session_id).text(document_id))
    return TextOut(document_id=document_id, version=shown.version.number, text=text)


@routes.delete(
    "/v1/sessions/{session_id}/documents/{document_id}",
    operation_id="detach_document",
    summary="Delete an attached document: gone from every answer when this returns",
    **scope(Scope.CONVERSE),
)
async def detach_document(
    session_id: Text, document_id: Text, services: Services, tenant: Tenant, expected: IfMatch
) -> DeletedOut:
    handle = services.conversations.belongings.attached.for_tenant(tenant)
    job = await in_thread(lambda: handle.within(session_id).delete(document_id, expected=expected))
    return DeletedOut(id=document_id, deleted=not job.held, job=JobOut.of(job, services.core.clock()))


@routes.post(
    "/v1/sessions/{session_id}/promote",
    operation_id="promote_session",
    summary="Keep what is attached to a session in a collection, with the vectors it has",
    status_code=202,
    **scope(Scope.INGEST),
)
async def promote_session(
    session_id: Text, body: PromoteIn, request: Request, services: Services, tenant: Tenant
) -> PromotionOut:
    def promote() -> PromotionOut:
        where, now = services.conversations.belongings.promotion, services.core.clock()
        promoted = where.promote(tenant, session_id, collection=body.collection, documents=body.documents)
        turns = where.transcript(tenant, session_id, collection=body.collection) if body.turns else None
        data = [
            PromotedOut(session_document_id=one.document_id, promoted=submitted_out(now, one.submitted)) for one in promoted
        ]
        return PromotionOut(data=data, transcript=None if turns is None else submitted_out(now, turns))

    answer = await in_thread(promote)
    documents = [one.promoted.document.id for one in answer.data]
    request.state.audit = {"session": session_id, "documents": documents, "turns": body.turns}
    return answer
