"""The Model Context Protocol, for agents: one endpoint, without sessions, for both generations of clients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from anyio import to_thread
from fastapi import Request, Response
from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as AsgiScope

from api.routing import Services, Tenant, router, scope
from config.errors import Forbidden, UnsupportedMedia
from tenants.context import Scope

routes = router("Agents")
_JSON_RPC: dict[str, Any] = {"application/json": {"schema": {"type": "object"}}}
ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"description": "A JSON-RPC answer, or why the request got none.", "content": _JSON_RPC},
    202: {"description": "A notification was taken."},
    400: {"description": "Not a request of the protocol.", "content": _JSON_RPC},
    406: {"description": "`Accept` must allow application/json and text/event-stream.", "content": _JSON_RPC},
}
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class _Exchange(Response):
    """Answered by the protocol's own server, with the request as it came."""

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        answer = await to_thread.run_sync(_loaded)
        await answer(scope, receive, send)


def _loaded() -> ASGIApp:
    """In a thread: the first import takes 0.6 s, for which the event loop would stand."""
    from api.mcp.server import answer

    return answer


@routes.post(
    "/mcp/",
    operation_id="mcp",
    summary="The Model Context Protocol, over streamable HTTP and without sessions",
    responses=ANSWERS,
    openapi_extra={
        **scope(Scope.QUERY, retrieval=True)["openapi_extra"],
        "requestBody": {"required": True, "description": "A JSON-RPC request or notification.", "content": {**_JSON_RPC}},
    },
)
async def mcp(request: Request, services: Services, tenant: Tenant) -> Response:
    _require_origin(request, services.core.settings.mcp_origins)
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise UnsupportedMedia("Send application/json.", field="content-type")  # the protocol's server says so in bare words
    return _Exchange()


def _require_origin(request: Request, allowed: Sequence[str]) -> None:
    """Browsers say from which page they ask: it is of this machine, or allowed. A name that was bent to us is neither."""
    origin = request.headers.get("origin")
    if origin is None or origin in allowed or _host(origin) in LOOPBACK:
        return
    raise Forbidden("This origin is not allowed; the operator can add it to CARREL_MCP_ORIGINS.", field="origin")


def _host(origin: str) -> str | None:
    try:
        return urlsplit(origin).hostname
    except ValueError:  # it opens a bracket and does not close it
        return None
