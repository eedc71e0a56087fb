"""Documents by the thousand: a stream of lines, each as the body of `POST /v1/documents`, each answered by a line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Query, Request
from fastapi.exceptions import RequestValidationError
from sqlalchemy.orm import Session

from api.bulk import MEDIA_TYPE, BulkStream, Done, Tally
from api.bulk_source import Line
from api.middleware import event_of
from api.problems import invalid
from api.routes.documents import of_json
from api.routing import Services, Tenant, in_thread, require, router, scope
from api.schemas.documents import DocumentIn
from api.wiring.api import ApiServices
from config.errors import CarrelError, Forbidden, InvalidInput, TooLarge, UnsupportedMedia
from ingestion.intake.bulk import Outcome
from ingestion.intake.documents import Submitted
from ingestion.intake.submission import Submission
from tenants.context import Scope, TenantContext

routes = router("Documents")

JSON_OVERHEAD = 1024 * 1024  # of a line beside its text, as of any request beside its document

_BODY = {
    "requestBody": {
        "required": True,
        "description": "One document a line.",
        "content": {MEDIA_TYPE: {"schema": DocumentIn.model_json_schema(ref_template="#/components/schemas/{model}")}},
    }
}
_ANSWER: dict[int | str, dict[str, Any]] = {
    200: {"description": "A line for each line, in their order, and a summary.", "content": {MEDIA_TYPE: {}}}
}


@routes.post(
    "/v1/bulk",
    operation_id="create_documents",
    summary="Bring many documents, one a line, each answered by a line",
    status_code=200,
    response_class=BulkStream,
    response_model=None,
    responses=_ANSWER,
    openapi_extra={**scope(Scope.INGEST, streamed=True)["openapi_extra"], **_BODY},
)
async def create_documents(
    request: Request,
    services: Services,
    tenant: Tenant,
    max_errors: Annotated[int, Query(ge=1, le=1_000_000, description="Refused lines after which it stops.")] = 100,
    new_documents: Annotated[int, Query(ge=0, le=10**9, description="That it will bring, if known: see `new_bytes`.")] = 0,
    new_bytes: Annotated[
        int, Query(ge=0, le=10**15, description="Of their contents. If the plan has no room for all, none is taken.")
    ] = 0,
) -> BulkStream:
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != MEDIA_TYPE:
        raise UnsupportedMedia(f"Send {MEDIA_TYPE}, one document a line.", field="content-type")
    max_line = services.core.settings.max_document_bytes + JSON_OVERHEAD
    await in_thread(services.bulk.for_tenant(tenant).require_room_for, new_documents, new_bytes)
    request.state.audit = {"bulk": "begun"}
    return BulkStream(
        _Intake(request, services, tenant, max_line),
        max_line=max_line,
        max_errors=max_errors,
        draining=services.draining,
        close=services.bulk_turns.begin(tenant.tenant_id),
    )


@dataclass(slots=True)
class _Intake:
    """Satisfies `api.bulk.Work` by shape. The caller's rights are looked at again as long as it takes."""

    request: Request
    services: ApiServices
    tenant: TenantContext
    max_line: int

    def take(self, lines: Sequence[Line], most_refused: int) -> list[Done]:
        self._check()
        items = [_item(line, self.max_line) for line in lines]
        handle = self.services.bulk.for_tenant(self.tenant)
        return [_done(outcome) for outcome in handle.take(items, most_refused=most_refused, record=self._record)]

    def _record(self, session: Session, submitted: Sequence[Submitted]) -> None:
        documents = [[one.shown.document.id, one.shown.version.number] for one in submitted]
        self.services.audit.add(session, event_of(self.request.scope, 202, {"documents": documents}))

    def ended(self, tally: Tally) -> None:
        counts = tally.told()["summary"]
        code = None if tally.problem is None else tally.problem["code"]
        self.services.audit.append(event_of(self.request.scope, 200, {**counts, "bulk": "ended", "stopped": code}))

    def _check(self) -> None:
        """Raise once the credential would not let this stream begin any more; else its bounds are those of now."""
        credential = self.request.headers["authorization"].partition(" ")[2].strip()
        identity = self.services.identifier.identify(credential, self.request.state.address)
        require(identity, Scope.INGEST)
        if identity.tenant is None:
            raise Forbidden("The credential has no tenant any more.")
        self.tenant = identity.tenant


def _item(line: Line, max_line: int) -> Submission | CarrelError:
    if line.content is None:
        return TooLarge(f"A line has at most {max_line} bytes.", field="line", limit=max_line)
    try:
        submission, after = of_json(_parsed(line.content))
        if after.ids:
            raise InvalidInput("A line of a stream waits for no other job: bring the document by itself.", field="after")
        return submission
    except RequestValidationError as error:
        return invalid(error)[0]
    except CarrelError as error:
        return error


def _parsed(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InvalidInput("The line is not valid JSON.", field="line") from error


def _done(outcome: Outcome) -> Done:
    if isinstance(outcome, CarrelError):
        return Done(outcome.status, {}, outcome)
    shown, job = outcome.shown, outcome.job
    return Done(
        200 if job is None else 202,
        {"document_id": shown.document.id, "version": shown.version.number, "job_id": None if job is None else job.id},
    )
