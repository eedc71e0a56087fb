"""Documents: bringing, showing and deleting them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import partial
from typing import Annotated, Any

from fastapi import Query, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import TypeAdapter, ValidationError
from starlette.datastructures import UploadFile

from api.cursors import Cursor, Limit
from api.idempotency import Once
from api.preconditions import Expected, IfMatch
from api.routing import Services, Tenant, in_thread, router, scope
from api.schemas.documents import DeletedOut, DocumentIn, DocumentOut, Page, SubmittedOut, Text, TextOut
from api.schemas.jobs import AfterPolicy, JobOut
from api.schemas.usage import EstimateOut
from config.errors import InvalidInput, UnsupportedMedia
from ingestion.intake.documents import Submitted
from ingestion.intake.preconditions import Precondition
from ingestion.intake.submission import Submission, text_media_type
from ingestion.jobs.rows import MAX_AFTER, After
from ingestion.media import FORMATS
from tenants.context import Scope

routes = router("Documents")

FORM_FIELDS = ("collection", "external_id", "title", "source", "after_policy", "attributes", "labels", "after")
JSON_FIELDS = ("attributes", "labels", "after")
_TEXT = TypeAdapter(Text)
ExternalIds = Annotated[
    list[Text], Query(max_length=100, description="Only documents with these; needs their `collection`. May be repeated.")
]
DryRun = Annotated[bool, Query(description="Only say what it would cost: nothing is stored, queued, embedded or charged.")]

_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": DocumentIn.model_json_schema(ref_template="#/components/schemas/{model}")},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {
                        "file": {"type": "string", "format": "binary", "description": FORMATS},
                        **{name: {"type": "string"} for name in FORM_FIELDS if name not in JSON_FIELDS},
                        "attributes": {"type": "string", "description": "JSON object"},
                        "labels": {"type": "string", "description": "JSON array of strings"},
                        "after": {"type": "string", "description": "JSON array of ids of jobs"},
                    },
                }
            },
        },
    }
}


def with_body(declared: dict[str, Any]) -> dict[str, Any]:
    return {"openapi_extra": {**declared["openapi_extra"], **_BODY}}


@routes.post(
    "/v1/documents",
    operation_id="create_document",
    summary="Bring a document, as text, as a file or by its URL",
    status_code=202,
    response_model=SubmittedOut,
    responses={
        200: {"model": SubmittedOut | EstimateOut, "description": "Live already and free; or of a dry run, the estimate."}
    },
    **with_body(scope(Scope.INGEST, dry_run=True)),
)
async def create_document(
    request: Request,
    response: Response,
    services: Services,
    tenant: Tenant,
    once: Once,
    expected: Expected,
    dry_run: DryRun = False,
) -> SubmittedOut | Response:
    if dry_run:
        return await _estimate(request, services, tenant, expected)
    submission, after = await submission_of(request)
    render = partial(submitted_out, services.core.clock())
    handle, record = services.documents.for_tenant(tenant), once.records(render, status=status_of)
    submitted = await in_thread(lambda: handle.submit(submission, expected=expected, after=after, record=record))
    request.state.audit = {"document": submitted.shown.document.id, "version": submitted.shown.version.number}
    response.status_code, response.headers["ETag"] = status_of(submitted), submitted.shown.etag
    return render(submitted)


async def _estimate(request: Request, services: Services, tenant: Tenant, expected: Precondition) -> Response:
    request.state.audit = {"dry_run": True}
    submission, _after_others = await submission_of(request)
    handle = services.estimates.for_tenant(tenant)
    estimated = await in_thread(lambda: handle.estimate(submission, expected=expected))
    return Response(EstimateOut.of(estimated).model_dump_json(), media_type="application/json")


def status_of(submitted: Submitted) -> int:
    return 200 if submitted.job is None else 202


def submitted_out(now: int, submitted: Submitted) -> SubmittedOut:
    job = None if submitted.job is None else JobOut.of(submitted.job, now)
    return SubmittedOut(document=DocumentOut.of(submitted.shown), job=job)


@routes.get("/v1/documents", operation_id="list_documents", summary="List documents, oldest first", **scope(Scope.QUERY))
async def list_documents(
    services: Services,
    tenant: Tenant,
    cursor: Cursor,
    collection: Text | None = None,
    external_id: ExternalIds = [],  # noqa: B006  FastAPI copies it
    limit: Limit = 20,
) -> Page[DocumentOut]:
    handle, after = services.documents.for_tenant(tenant), cursor.position
    listed = partial(handle.list, collection=collection, external_ids=external_id, after=after, limit=limit)
    shown, following = await in_thread(listed)
    return Page(data=[DocumentOut.of(item) for item in shown], next=cursor.next(following))


@routes.get("/v1/documents/{document_id}", operation_id="get_document", summary="Show a document", **scope(Scope.QUERY))
async def get_document(document_id: Text, response: Response, services: Services, tenant: Tenant) -> DocumentOut:
    shown = await in_thread(services.documents.for_tenant(tenant).get, document_id)
    response.headers["ETag"] = shown.etag
    return DocumentOut.of(shown)


@routes.get(
    "/v1/documents/{document_id}/text",
    operation_id="get_document_text",
    summary="The text that passages cite by offsets",
    **scope(Scope.QUERY),
)
async def get_document_text(document_id: Text, services: Services, tenant: Tenant) -> TextOut:
    shown, text = await in_thread(services.documents.for_tenant(tenant).text, document_id)
    return TextOut(document_id=document_id, version=shown.version.number, text=text)


@routes.delete(
    "/v1/documents/{document_id}",
    operation_id="delete_document",
    summary="Delete a document: gone from every answer when this returns, or after other jobs",
    **scope(Scope.INGEST),
)
async def delete_document(
    document_id: Text,
    services: Services,
    tenant: Tenant,
    expected: IfMatch,
    after_job: Annotated[list[Text] | None, Query(max_length=MAX_AFTER, description="Jobs that must end first.")] = None,
    after_policy: AfterPolicy = "all_succeeded",
) -> DeletedOut:
    handle, waits = services.documents.for_tenant(tenant), _after(after_job or [], after_policy)
    job = await in_thread(lambda: handle.delete(document_id, expected=expected, after=waits))
    return DeletedOut(id=document_id, deleted=not job.held, job=JobOut.of(job, services.core.clock()))


def _after(ids: Iterable[str], policy: str) -> After:
    return After(tuple(dict.fromkeys(ids)), policy)


async def submission_of(request: Request) -> tuple[Submission, After]:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        return of_json(await _json(request))
    if kind == "multipart/form-data":
        return await _of_form(request)
    raise UnsupportedMedia(
        "Send application/json with `text` or `url`, or multipart/form-data with a `file`.", field="content-type"
    )


async def _json(request: Request) -> Any:
    try:
        return await request.json()
    except (ValueError, RecursionError) as error:
        raise InvalidInput("The body is not valid JSON.", field="body") from error


def of_json(body: Any) -> tuple[Submission, After]:
    """Raise RequestValidationError or InvalidInput."""
    try:
        given = DocumentIn.model_validate(body)
    except ValidationError as error:
        raise RequestValidationError(error.errors()) from error
    if (given.text is None) == (given.url is None):
        raise InvalidInput("Give either `text` or `url`.", field="text" if given.url is None else "url")
    submission = Submission(
        content=(given.text or "").encode(),
        media_type=text_media_type(given.format),
        url=given.url,
        collection=given.collection,
        external_id=given.external_id,
        title=given.title,
        source=given.source,
        attributes=given.attributes,
        labels=given.labels,
    )
    return submission, _after(given.after, given.after_policy)


async def _of_form(request: Request) -> tuple[Submission, After]:
    try:
        return await _of_parts(request)
    except (UnicodeError, LookupError) as error:  # a charset that does not exist, or does not fit its bytes
        raise InvalidInput("The multipart body cannot be decoded; send UTF-8.", field="body") from error


async def _of_parts(request: Request) -> tuple[Submission, After]:
    async with request.form(max_files=1, max_fields=len(FORM_FIELDS)) as form:
        if unknown := sorted(set(form) - {"file", *FORM_FIELDS}):
            raise InvalidInput(f"Unknown field {unknown[0]!r}; here are file, {', '.join(FORM_FIELDS)}.", field=unknown[0])
        upload = form.get("file")
        if not isinstance(upload, UploadFile):
            raise InvalidInput("A multipart request needs a `file` part with a file name.", field="file")
        fields = {name: _field(form.get(name), name) for name in FORM_FIELDS if name in form}
        content = await upload.read()
    name = _field(upload.filename or "", "file")
    try:
        checked = DocumentIn.model_validate({"text": "-", **fields, **_parsed(fields)})
    except ValidationError as error:
        raise RequestValidationError(error.errors()) from error
    submission = Submission(
        content=content,
        file_name=name,
        collection=checked.collection,
        external_id=checked.external_id,
        title=checked.title,
        source=checked.source or name or None,
        attributes=checked.attributes,
        labels=checked.labels,
    )
    return submission, _after(checked.after, checked.after_policy)


def _field(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise InvalidInput(f"`{name}` is a text field.", field=name)
    try:
        return _TEXT.validate_python(value)
    except ValidationError as error:
        raise InvalidInput(f"`{name}` has characters that are not allowed (NUL or lone surrogates).", field=name) from error


def _parsed(fields: dict[str, str]) -> dict[str, Any]:
    parsed: dict[str, Any] = {}
    for name in JSON_FIELDS:
        if name in fields:
            try:
                parsed[name] = json.loads(fields[name])
            except (ValueError, RecursionError) as error:
                raise InvalidInput(f"`{name}` is not valid JSON.", field=name) from error
    return parsed
