"""Vector stores: made, listed, changed, deleted and searched, as the OpenAI SDK does it."""

from __future__ import annotations

from fastapi import Request, Response

from api.idempotency import ChargeId, Once
from api.openai.shapes import POLL_HEADER, POLL_MS, ListOut, Paged, openai_router, sizes_of
from api.openai.store_schemas import SearchIn, SearchOut, StoreDeleted, StoreIn, StoreOut, StorePatch, score_of
from api.routing import Services, Tenant, in_thread, meter_of, scope
from api.schemas.documents import Text
from ingestion.stores.parts import WantedFile
from ingestion.stores.stores import StoreWish
from tenants.context import Scope

routes = openai_router()


@routes.post(
    "/v1/vector_stores", operation_id="openai_create_vector_store", summary="Make a vector store", **scope(Scope.INGEST)
)
async def create_store(body: StoreIn, request: Request, services: Services, tenant: Tenant, once: Once) -> StoreOut:
    days = None if body.expires_after is None else body.expires_after.days
    wish = StoreWish(body.name, body.description, body.metadata, days, body.carrel.profile)
    files = [WantedFile(file_id, sizes=sizes_of(body.chunking_strategy)) for file_id in body.file_ids]
    handle, record = services.openai.stores.stores.for_tenant(tenant), once.records(StoreOut.of, status=200)
    shown = await in_thread(lambda: handle.create(wish, files, record))
    request.state.audit = {"vector_store": shown.row.id, "files": len(files)}
    return StoreOut.of(shown)


@routes.get("/v1/vector_stores", operation_id="openai_list_vector_stores", summary="List vector stores", **scope(Scope.QUERY))
async def list_stores(services: Services, tenant: Tenant, wish: Paged) -> ListOut[StoreOut]:
    shown, more = await in_thread(lambda: services.openai.stores.stores.for_tenant(tenant).list(wish))
    return ListOut[StoreOut].of([StoreOut.of(one) for one in shown], more)


@routes.get(
    "/v1/vector_stores/{vector_store_id}",
    operation_id="openai_get_vector_store",
    summary="Show a vector store",
    **scope(Scope.QUERY),
)
async def get_store(vector_store_id: Text, response: Response, services: Services, tenant: Tenant) -> StoreOut:
    shown = await in_thread(services.openai.stores.stores.for_tenant(tenant).get, vector_store_id)
    if shown.status == "in_progress":
        response.headers[POLL_HEADER] = POLL_MS
    return StoreOut.of(shown)


@routes.post(
    "/v1/vector_stores/{vector_store_id}",
    operation_id="openai_update_vector_store",
    summary="Change a vector store's name, expiry or metadata",
    **scope(Scope.INGEST),
)
async def update_store(vector_store_id: Text, body: StorePatch, services: Services, tenant: Tenant) -> StoreOut:
    handle = services.openai.stores.stores.for_tenant(tenant)
    return StoreOut.of(await in_thread(lambda: handle.update(vector_store_id, body.changes())))


@routes.delete(
    "/v1/vector_stores/{vector_store_id}",
    operation_id="openai_delete_vector_store",
    summary="Delete a vector store; its files stay",
    **scope(Scope.INGEST),
)
async def delete_store(vector_store_id: Text, services: Services, tenant: Tenant) -> StoreDeleted:
    await in_thread(services.openai.stores.stores.for_tenant(tenant).delete, vector_store_id)
    return StoreDeleted(id=vector_store_id)


@routes.post(
    "/v1/vector_stores/{vector_store_id}/search",
    operation_id="openai_search_vector_store",
    summary="Find the passages of a vector store that answer a question",
    response_model=SearchOut,
    **scope(Scope.QUERY, retrieval=True),
)
async def search_store(
    vector_store_id: Text, body: SearchIn, request: Request, services: Services, tenant: Tenant, charge_id: ChargeId
) -> Response:
    question = body.question(vector_store_id, rewrites=services.rewriting is not None)
    stores = services.openai.stores.stores.for_tenant(tenant)
    retriever = services.retriever.for_tenant(tenant, meter_of(services, tenant, question.collections))

    def ask() -> tuple[str, list[str], int]:
        stores.require_searchable(vector_store_id)
        found = retriever.query(question, charge_id=charge_id)
        passages = [passage for passage in found.passages if score_of(passage) >= body.threshold]
        names = stores.names([*{passage.external_id for passage in passages}])
        rendered = SearchOut.of(body, found, passages, names).model_dump_json()
        return rendered, [passage.id for passage in passages], found.charged + found.rerank_tokens

    rendered, passages, request.state.tokens = await in_thread(ask)
    request.state.audit = {"passages": passages}
    return Response(rendered, media_type="application/json")
