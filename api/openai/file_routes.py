"""Files: uploaded, listed, read and deleted, as the OpenAI SDK does it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import Query, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field, ValidationError
from starlette.datastructures import UploadFile

from api.idempotency import Once
from api.openai.shapes import ListOut, Order, openai_router, seconds
from api.routing import Services, Tenant, in_thread, scope
from api.schemas.documents import Input, Text
from config.errors import InvalidInput, UnsupportedMedia
from ingestion.media import FORMATS
from ingestion.stores.files import Upload
from ingestion.stores.paging import PageWish
from ingestion.stores.tables import StoredFile
from tenants.context import Scope

routes = openai_router()

Purpose = Literal["assistants", "batch", "fine-tune", "vision", "user_data", "evals"]
FIELDS = ("purpose", "expires_after[anchor]", "expires_after[seconds]")
MAX_LISTED = 10_000


class FileExpiry(Input):
    anchor: Literal["created_at"]
    seconds: int = Field(ge=3600, le=2_592_000)


class FileIn(Input):
    file: Text = Field(description="Its name.")
    purpose: Purpose
    expires_after: FileExpiry | None = None


class FileOut(BaseModel):
    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    expires_at: int | None
    filename: str
    purpose: Purpose
    status: Literal["uploaded", "processed", "error"] = "processed"
    status_details: str | None = None

    @classmethod
    def of(cls, row: StoredFile) -> FileOut:
        return cls.model_validate(
            {
                **{"id": row.id, "bytes": row.bytes, "filename": row.name, "purpose": row.purpose},
                "created_at": seconds(row.created_at),
                "expires_at": None if row.expires_at is None else seconds(row.expires_at),
            }
        )


class FileDeleted(BaseModel):
    id: str
    object: Literal["file"] = "file"
    deleted: Literal[True] = True


_FORM = {
    "type": "object",
    "required": ["file", "purpose"],
    "properties": {
        "file": {"type": "string", "format": "binary", "description": f"To be found in vector stores: {FORMATS}."},
        "purpose": {"type": "string", "enum": ["assistants", "batch", "fine-tune", "vision", "user_data", "evals"]},
        "expires_after[anchor]": {"type": "string", "enum": ["created_at"]},
        "expires_after[seconds]": {"type": "integer", "minimum": 3600, "maximum": 2_592_000},
    },
}
_DECLARED = scope(Scope.INGEST)["openapi_extra"] | {
    "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": _FORM}}}
}


@routes.post("/v1/files", operation_id="openai_create_file", summary="Upload a file", openapi_extra=_DECLARED)
async def create_file(request: Request, services: Services, tenant: Tenant, once: Once) -> FileOut:
    upload = await _upload(request)
    handle, record = services.openai.stores.uploads.for_tenant(tenant), once.records(FileOut.of, status=200)
    row = await in_thread(lambda: handle.create(upload, record))
    request.state.audit = {"file": row.id, "bytes": row.bytes}
    return FileOut.of(row)


async def _upload(request: Request) -> Upload:
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "multipart/form-data":
        raise UnsupportedMedia("Send multipart/form-data with `file` and `purpose`.", field="file")
    try:
        async with request.form(max_files=1, max_fields=len(FIELDS)) as form:
            file = form.get("file")
            if not isinstance(file, UploadFile):
                raise InvalidInput("A multipart request needs a `file` part with a file name.", field="file")
            if unknown := sorted(set(form) - {"file", *FIELDS}):
                raise InvalidInput(f"Unknown field {unknown[0]!r}.", field=unknown[0])
            given = _given(file.filename or "", {name: form[name] for name in FIELDS if name in form})
            content = await file.read()
    except (UnicodeError, LookupError) as error:
        raise InvalidInput("The multipart body cannot be decoded; send UTF-8.", field="file") from error
    lifetime = None if given.expires_after is None else given.expires_after.seconds * 1000
    return Upload(given.file, given.purpose, content, lifetime)


def _given(name: str, fields: dict[str, Any]) -> FileIn:
    body: dict[str, Any] = {"file": name, "purpose": fields.get("purpose")}
    expiry = {name.partition("[")[2][:-1]: value for name, value in fields.items() if "[" in name}
    try:
        return FileIn.model_validate(body | ({"expires_after": expiry} if expiry else {}))
    except ValidationError as error:
        raise RequestValidationError(error.errors()) from error


@routes.get("/v1/files", operation_id="openai_list_files", summary="List files", **scope(Scope.QUERY))
async def list_files(
    services: Services,
    tenant: Tenant,
    purpose: Text | None = None,
    limit: Annotated[int, Query(ge=1, le=MAX_LISTED)] = MAX_LISTED,
    order: Order = "desc",
    after: Annotated[Text | None, Query(description="Id of the file that the page follows.")] = None,
) -> ListOut[FileOut]:
    wish = PageWish(limit, after, None, order == "desc")
    rows, more = await in_thread(lambda: services.openai.stores.uploads.for_tenant(tenant).list(purpose, wish))
    return ListOut[FileOut].of([FileOut.of(row) for row in rows], more)


@routes.get("/v1/files/{file_id}", operation_id="openai_get_file", summary="Show a file", **scope(Scope.QUERY))
async def get_file(file_id: Text, services: Services, tenant: Tenant) -> FileOut:
    return FileOut.of(await in_thread(services.openai.stores.uploads.for_tenant(tenant).get, file_id))


@routes.get(
    "/v1/files/{file_id}/content",
    operation_id="openai_get_file_content",
    summary="A file's bytes, as they were uploaded",
    response_class=Response,
    responses={200: {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}},
    **scope(Scope.QUERY),
)
async def get_content(file_id: Text, services: Services, tenant: Tenant) -> Response:
    _, content = await in_thread(services.openai.stores.uploads.for_tenant(tenant).content, file_id)
    headers = {"content-disposition": "attachment", "x-content-type-options": "nosniff"}
    return Response(content, media_type="application/octet-stream", headers=headers)


@routes.delete(
    "/v1/files/{file_id}",
    operation_id="openai_delete_file",
    summary="Delete a file, and take it out of every vector store",
    **scope(Scope.INGEST),
)
async def delete_file(file_id: Text, services: Services, tenant: Tenant) -> FileDeleted:
    await in_thread(services.openai.stores.uploads.for_tenant(tenant).delete, file_id)
    return FileDeleted(id=file_id)
