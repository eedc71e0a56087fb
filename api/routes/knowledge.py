"""Asking: queries, the collections they search."""

from __future__ import annotations

from fastapi import Request, Response

from api.cursors import Cursor, Limit
from api.idempotency import ChargeId, Once
from api.routing import Services, Tenant, in_thread, router, scope
from api.schemas.collections import CollectionOut, ProfileOut, ProfilesOut
from api.schemas.documents import CollectionIn, CollectionPatch, Page, Text
from api.schemas.query import QueryIn, QueryOut
from api.session_meters import SessionMeters
from rag.corpus import Collection
from rag.traces.left import Left
from tenants.context import Scope

routes = router("Knowledge")


@routes.post(
    "/v1/query",
    operation_id="query",
    summary="Find the passages that answer a question",
    response_model=QueryOut,
    **scope(Scope.QUERY, retrieval=True),
)
async def query(body: QueryIn, request: Request, services: Services, tenant: Tenant, charge_id: ChargeId) -> Response:
    question = body.question()
    meters = SessionMeters(services, tenant, body.session)
    retriever = services.retriever.for_tenant(tenant, meters.question(question.collections), meters.llm())

    def ask() -> tuple[str, list[str], int]:
        found = retriever.query(question, charge_id=charge_id)
        trace_id = services.traces.tracer.leave(
            tenant, Left("query", question, found, session_id=body.session), request=charge_id
        )
        answer = QueryOut.of(found, grouped=body.group_by is not None, trace_id=trace_id)
        return answer.model_dump_json(), [passage.id for passage in answer.passages], found.charged + found.rerank_tokens

    # Rendered here and in the thread: the framework would check and render it once more, on the event loop.
    rendered, passages, request.state.tokens = await in_thread(ask)
    request.state.audit = {"passages": passages}
    return Response(rendered, media_type="application/json")


@routes.post(
    "/v1/collections",
    operation_id="create_collection",
    summary="Make a collection",
    status_code=201,
    **scope(Scope.INGEST),
)
async def create_collection(body: CollectionIn, services: Services, tenant: Tenant, once: Once) -> CollectionOut:
    handle, record = services.collections.for_tenant(tenant), once.records(_empty, status=201)
    return _empty(await in_thread(lambda: handle.create(**body.model_dump(), record=record)))


def _empty(row: Collection) -> CollectionOut:
    return CollectionOut.of(row, 0)


@routes.get("/v1/collections", operation_id="list_collections", summary="List collections", **scope(Scope.QUERY))
async def list_collections(services: Services, tenant: Tenant, cursor: Cursor, limit: Limit = 20) -> Page[CollectionOut]:
    handle = services.collections.for_tenant(tenant)
    rows = await in_thread(lambda: handle.list(after=cursor.position, limit=limit))
    following = cursor.next(rows[-1][0].id if len(rows) == limit else None)
    return Page(data=[CollectionOut.of(row, documents) for row, documents in rows], next=following)


@routes.patch(
    "/v1/collections/{name}",
    operation_id="update_collection",
    summary="Process in another way what is brought from now on",
    **scope(Scope.INGEST),
)
async def update_collection(
    name: Text, body: CollectionPatch, services: Services, tenant: Tenant, request: Request
) -> CollectionOut:
    handle = services.collections.for_tenant(tenant)
    changes = body.model_dump(exclude_none=True)
    row, documents = await in_thread(lambda: handle.update(name, **changes))
    if body.attributes:
        changes["attributes"] = len(body.attributes)  # keys are the tenant's own words
    request.state.audit = {"collection": row.id, **changes}
    return CollectionOut.of(row, documents)


@routes.delete(
    "/v1/collections/{name}",
    operation_id="delete_collection",
    summary="Delete a collection that has no documents",
    **scope(Scope.INGEST),
)
async def delete_collection(name: Text, services: Services, tenant: Tenant, request: Request) -> CollectionOut:
    row = await in_thread(lambda: services.removal.remove(tenant, name))
    request.state.audit = {"collection": row.id}
    return _empty(row)


@routes.get("/v1/profiles", operation_id="list_profiles", summary="List the profiles of collections", **scope(Scope.QUERY))
async def list_profiles(services: Services, _tenant: Tenant) -> ProfilesOut:
    return ProfilesOut(data=[ProfileOut.of(profile) for profile in services.collections.profiles.all()])
