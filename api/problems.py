"""Errors as RFC 9457 problem details: one shape for every refusal, whatever layer it came from."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from config.errors import CarrelError, InvalidInput, NotFound, Overloaded, StorageFull, VersionConflict
from config.logs import request_id

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
MAX_LISTED = 10


class Problem(BaseModel):
    """Why a request was refused. `code` is stable; `field` and `limit` name the input at fault."""

    type: str = Field(examples=["urn:carrel:problem:invalid_input"])
    title: str
    status: int
    code: str = Field(examples=["invalid_input"])
    detail: str
    retryable: bool = Field(description="Whether the same request can succeed later.")
    field: str | None = None
    limit: int | float | str | None = None
    etag: str | None = Field(None, description="Of a `version_conflict`: what the document has now.")
    request_id: str | None = None
    errors: list[dict[str, Any]] | None = Field(None, description="Each input at fault, where there are several.")


def problem_of(error: CarrelError, errors: list[dict[str, Any]] | None = None) -> Problem:
    return Problem(
        type=f"urn:carrel:problem:{error.code}",
        title=error.title,
        status=error.status,
        code=error.code,
        detail=error.detail,
        retryable=error.retryable,
        field=error.field and error.field.encode("utf-8", "replace").decode(),  # it can be the caller's own word
        limit=error.limit,
        etag=error.etag if isinstance(error, VersionConflict) else None,
        request_id=request_id.get(),
        errors=errors,
    )


def problem_response(error: CarrelError, errors: list[dict[str, Any]] | None = None) -> Response:
    problem = problem_of(error, errors)
    headers = {}
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(math.ceil(error.retry_after_s))
    if error.status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(problem.model_dump(exclude_none=True), error.status, headers, media_type=MEDIA_TYPE)


def unexpected(error: Exception) -> Response:
    """The reason goes to the log under the request id; the caller learns nothing of the inside."""
    log.error("request failed", exc_info=error)
    return problem_response(CarrelError("The request failed inside the service; quote the request id when asking."))


def install_handlers(app: FastAPI, routes: Sequence[APIRoute] = ()) -> None:
    """`routes`: all that there are, so that a refused method can be told the others."""
    app.state.routes = routes
    app.add_exception_handler(CarrelError, _domain)
    app.add_exception_handler(RequestValidationError, _validation)
    app.add_exception_handler(HTTPException, _http)


def refusal(error: CarrelError) -> Response:
    if isinstance(error, Overloaded | StorageFull):  # every document's answer for a while: a traceback each would fill the disk
        log.warning("a document was refused", extra={"code": error.code})
    elif error.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        log.warning("request could not be served", exc_info=error)
    return problem_response(error)


async def _domain(_request: Request, error: Exception) -> Response:
    return refusal(error) if isinstance(error, CarrelError) else unexpected(error)


async def _validation(_request: Request, error: Exception) -> Response:
    return problem_response(*invalid(error))


def invalid(error: Exception) -> tuple[InvalidInput, list[dict[str, Any]]]:
    """The first input at fault as an error of ours, and all of them."""
    listed = [_listed(item) for item in error.errors()[:MAX_LISTED]] if isinstance(error, RequestValidationError) else []
    first: Mapping[str, Any] = listed[0] if listed else {}
    refused = InvalidInput(
        str(first.get("detail", "The request is not valid.")), field=first.get("field"), limit=first.get("limit")
    )
    return refused, listed


def _listed(item: Mapping[str, Any]) -> dict[str, Any]:
    """Place, reason and limit; never the input itself, which may be anything."""
    place = [str(part) for part in item["loc"]]
    if place and place[0] in ("body", "query", "path"):  # where it came from, not its name
        place = place[1:]
    bounds = {"max_length", "min_length", "le", "ge", "lt", "gt"}
    limits = [value for name, value in (item.get("ctx") or {}).items() if name in bounds]
    if item["type"] == "json_invalid":
        place = []  # FastAPI gives the byte offset
    listed = {"field": ".".join(place) or "body", "detail": f"{item['msg']}."}
    return listed | ({"limit": limits[0]} if limits else {})


async def _http(request: Request, error: Exception) -> Response:
    if isinstance(error.__cause__, CarrelError):  # raised while the body was read, and wrapped by the framework
        return problem_response(error.__cause__)
    status = error.status_code if isinstance(error, HTTPException) else HTTPStatus.INTERNAL_SERVER_ERROR
    if status == HTTPStatus.NOT_FOUND:
        return problem_response(NotFound("There is nothing at this path."))
    if status == HTTPStatus.BAD_REQUEST:  # of a body: no UTF-8, no form, nested too deep, or a number of thousands of digits
        return problem_response(InvalidInput(str(getattr(error, "detail", "")).rstrip(".") + ".", field="body"))
    refused = _Refused(str(getattr(error, "detail", "")) or HTTPStatus(status).phrase)
    refused.status, refused.title = int(status), HTTPStatus(status).phrase  # type: ignore[misc]
    refused.code = HTTPStatus(status).name.lower()  # type: ignore[misc]
    response = problem_response(refused)
    response.headers.update(getattr(error, "headers", None) or {})
    if status == HTTPStatus.METHOD_NOT_ALLOWED and (methods := _methods(request)):  # the framework names the first route's
        response.headers["Allow"] = ", ".join(sorted(methods))
    return response


def _methods(request: Request) -> set[str]:
    """Of all routes at the request's path."""
    routes: Sequence[APIRoute] = request.app.state.routes
    return {method for route in routes if route.path_regex.match(request.scope["path"]) for method in route.methods or ()}


class _Refused(CarrelError):
    """A refusal by the HTTP framework: method not allowed, a body that cannot be parsed."""
