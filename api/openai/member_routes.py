"""Files in vector stores, one by one and in batches, as the OpenAI SDK handles them."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import Query, Request, Response
from pydantic import BaseModel, Field

from api.idempotency import Once
from api.openai.shapes import (
    POLL_HEADER,
    POLL_MS,
    Attributes,
    FileCounts,
    ListOut,
    Paged,
    Status,
    Strategy,
    StrategyOut,
    openai_router,
    seconds,
    sizes_of,
)
from api.openai.store_schemas import ContentOut
from api.routing import Services, Tenant, in_thread, scope
from api.schemas.documents import Input, Text
from config.errors import InvalidInput
from ingestion.stores.batches import MAX_FILES, ShownBatch
from ingestion.stores.members import ShownFile
from ingestion.stores.parts import WantedFile
from tenants.context import Scope

routes = openai_router()

Filter = Annotated[Status | None, Query(alias="filter", description="Only files of this status.")]
_FILES = "/v1/vector_stores/{vector_store_id}/files"
_BATCHES = "/v1/vector_stores/{vector_store_id}/file_batches"


class FileOptions(Input):
    """What Carrel knows besides."""

    labels: list[Text] = Field(default_factory=list, max_length=16, description="Readers must hold every one of these.")


class StoreFileIn(Input):
    file_id: Text
    attributes: Attributes | None = Field(None, description="Up to 16 values to filter by.")
    chunking_strategy: Strategy | None = None
    carrel: FileOptions = Field(default_factory=FileOptions)

    def wanted(self) -> WantedFile:
        return WantedFile(self.file_id, self.attributes or {}, sizes_of(self.chunking_strategy), tuple(self.carrel.labels))


class StoreFilePatch(Input):
    attributes: Attributes | None


class BatchIn(Input):
    """Either `file_ids`, which share the other fields, or `files`, which have their own."""

    file_ids: list[Text] | None = Field(None, max_length=MAX_FILES)
    files: list[StoreFileIn] | None = Field(None, max_length=MAX_FILES)
    attributes: Attributes | None = None
    chunking_strategy: Strategy | None = None
    carrel: FileOptions = Field(default_factory=FileOptions)

    def wanted(self) -> list[WantedFile]:
        if (self.file_ids is None) == (self.files is None):
            raise InvalidInput("Give either `file_ids` or `files`.", field="file_ids")
        if self.files is not None:
            return [one.wanted() for one in self.files]
        sizes, labels = sizes_of(self.chunking_strategy), tuple(self.carrel.labels)
        return [WantedFile(file_id, self.attributes or {}, sizes, labels) for file_id in self.file_ids or ()]


class LastError(BaseModel):
    code: Literal["server_error", "unsupported_file", "invalid_file"]
    message: str


class StoreFileOut(BaseModel):
    id: str
    object: Literal["vector_store.file"] = "vector_store.file"
    created_at: int
    usage_bytes: int
    vector_store_id: str
    status: Status
    last_error: LastError | None
    attributes: dict[str, str | float | bool]
    chunking_strategy: StrategyOut

    @classmethod
    def of(cls, shown: ShownFile) -> StoreFileOut:
        row, error = shown.row, shown.error
        return cls.model_validate(
            {
                "id": row.file_id,
                "created_at": seconds(row.created_at),
                "usage_bytes": shown.usage_bytes,
                "vector_store_id": shown.store_id,
                "status": shown.status,
                "last_error": None if error is None else {"code": error[0], "message": error[1]},
                "attributes": row.attributes,
                "chunking_strategy": StrategyOut.of(shown.chunking),
            }
        )


class StoreFileDeleted(BaseModel):
    id: str
    object: Literal["vector_store.file.deleted"] = "vector_store.file.deleted"
    deleted: Literal[True] = True


class FileContentOut(BaseModel):
    object: Literal["vector_store.file_content.page"] = "vector_store.file_content.page"
    data: list[ContentOut]
    has_more: Literal[False] = False
    next_page: None = None


class BatchOut(BaseModel):
    id: str
    object: Literal["vector_store.files_batch"] = "vector_store.files_batch"
    created_at: int
    vector_store_id: str
    status: Status
    file_counts: FileCounts

    @classmethod
    def of(cls, shown: ShownBatch) -> BatchOut:
        return cls(
            id=shown.row.id,
            created_at=seconds(shown.row.created_at),
            vector_store_id=shown.store_id,
            status=shown.status,
            file_counts=FileCounts.of(shown.counts),
        )


def _polled(response: Response, status: str) -> None:
    if status == "in_progress":
        response.headers[POLL_HEADER] = POLL_MS


@routes.post(_FILES, operation_id="openai_create_store_file", summary="Put a file into a vector store", **scope(Scope.INGEST))
async def create_store_file(
    vector_store_id: Text, body: StoreFileIn, response: Response, services: Services, tenant: Tenant
) -> StoreFileOut:
    handle = services.openai.stores.files.for_tenant(tenant)
    shown = await in_thread(lambda: handle.attach(vector_store_id, body.wanted()))
    _polled(response, shown.status)
    return StoreFileOut.of(shown)


@routes.get(_FILES, operation_id="openai_list_store_files", summary="List the files of a vector store", **scope(Scope.QUERY))
async def list_store_files(
    vector_store_id: Text, services: Services, tenant: Tenant, wish: Paged, status: Filter = None
) -> ListOut[StoreFileOut]:
    handle = services.openai.stores.files.for_tenant(tenant)
    shown, more = await in_thread(lambda: handle.list(vector_store_id, wish, status=status))
    return ListOut[StoreFileOut].of([StoreFileOut.of(one) for one in shown], more)


@routes.get(
    f"{_FILES}/{{file_id}}",
    operation_id="openai_get_store_file",
    summary="Show a file of a vector store",
    **scope(Scope.QUERY),
)
async def get_store_file(
    vector_store_id: Text, file_id: Text, response: Response, services: Services, tenant: Tenant
) -> StoreFileOut:
    shown = await in_thread(services.openai.stores.files.for_tenant(tenant).get, vector_store_id, file_id)
    _polled(response, shown.status)
    return StoreFileOut.of(shown)


@routes.post(
    f"{_FILES}/{{file_id}}",
    operation_id="openai_update_store_file",
    summary="Give a file of a vector store other attributes",
    **scope(Scope.INGEST),
)
async def update_store_file(
    vector_store_id: Text, file_id: Text, body: StoreFilePatch, services: Services, tenant: Tenant
) -> StoreFileOut:
    handle = services.openai.stores.files.for_tenant(tenant)
    return StoreFileOut.of(await in_thread(lambda: handle.update(vector_store_id, file_id, body.attributes or {})))


@routes.delete(
    f"{_FILES}/{{file_id}}",
    operation_id="openai_delete_store_file",
    summary="Take a file out of a vector store; the file itself stays",
    **scope(Scope.INGEST),
)
async def delete_store_file(vector_store_id: Text, file_id: Text, services: Services, tenant: Tenant) -> StoreFileDeleted:
    await in_thread(services.openai.stores.files.for_tenant(tenant).remove, vector_store_id, file_id)
    return StoreFileDeleted(id=file_id)


@routes.get(
    f"{_FILES}/{{file_id}}/content",
    operation_id="openai_get_store_file_content",
    summary="The text that was read from a file",
    **scope(Scope.QUERY),
)
async def get_store_file_content(vector_store_id: Text, file_id: Text, services: Services, tenant: Tenant) -> FileContentOut:
    text = await in_thread(services.openai.stores.files.for_tenant(tenant).text, vector_store_id, file_id)
    return FileContentOut(data=[ContentOut(text=text)])


@routes.post(
    _BATCHES, operation_id="openai_create_file_batch", summary="Put several files into a vector store", **scope(Scope.INGEST)
)
async def create_batch(
    vector_store_id: Text, body: BatchIn, request: Request, response: Response, services: Services, tenant: Tenant, once: Once
) -> BatchOut:
    handle, record = services.openai.stores.batches.for_tenant(tenant), once.records(BatchOut.of, status=200)
    wanted = body.wanted()
    shown = await in_thread(lambda: handle.create(vector_store_id, wanted, record))
    request.state.audit = {"batch": shown.row.id, "files": len(wanted)}
    _polled(response, shown.status)
    return BatchOut.of(shown)


@routes.get(
    f"{_BATCHES}/{{batch_id}}",
    operation_id="openai_get_file_batch",
    summary="Show how far a batch of files is",
    **scope(Scope.QUERY),
)
async def get_batch(vector_store_id: Text, batch_id: Text, response: Response, services: Services, tenant: Tenant) -> BatchOut:
    shown = await in_thread(services.openai.stores.batches.for_tenant(tenant).get, vector_store_id, batch_id)
    _polled(response, shown.status)
    return BatchOut.of(shown)


@routes.post(
    f"{_BATCHES}/{{batch_id}}/cancel",
    operation_id="openai_cancel_file_batch",
    summary="End what of a batch has not ended",
    **scope(Scope.INGEST),
)
async def cancel_batch(vector_store_id: Text, batch_id: Text, services: Services, tenant: Tenant) -> BatchOut:
    return BatchOut.of(await in_thread(services.openai.stores.batches.for_tenant(tenant).cancel, vector_store_id, batch_id))


@routes.get(
    f"{_BATCHES}/{{batch_id}}/files",
    operation_id="openai_list_batch_files",
    summary="List the files of a batch",
    **scope(Scope.QUERY),
)
async def list_batch_files(
    vector_store_id: Text, batch_id: Text, services: Services, tenant: Tenant, wish: Paged, status: Filter = None
) -> ListOut[StoreFileOut]:
    handle = services.openai.stores.batches.for_tenant(tenant)
    shown, more = await in_thread(lambda: handle.list_files(vector_store_id, batch_id, wish, status=status))
    return ListOut[StoreFileOut].of([StoreFileOut.of(one) for one in shown], more)
