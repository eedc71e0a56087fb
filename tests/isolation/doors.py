"""The ways into the service. A door lists its operations with their scopes, and sends one call.

The suite knows nothing else of a door: tools of another protocol or a client's methods join as further classes of this shape.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Protocol
from urllib.parse import quote, unquote, urlencode

import anyio
import anyio.to_thread
import sqlalchemy as sa
from anyio.from_thread import start_blocking_portal
from fastapi.routing import APIRoute
from sqlalchemy import event
from starlette.routing import BaseRoute

from api.app import create_app, create_service
from api.routing import SCOPE_KEY
from api.wiring.api import ApiServices
from config.errors import CarrelError

REQUEST_ID = "req-probe"
BOUNDARY = "carrel-isolation"
ANSWER_S = 30
_NOW_AND_THEN = ("api_keys.changed_at >=", "UPDATE vector_stores SET last_active_at=? WHERE")
REFUSED_TOOL = {"not_found": 404, "forbidden": 403, "budget_exhausted": 402}
LINES = "application/x-ndjson"
PARTS = {"multipart/form-data": "form", LINES: "line"}  #: of a call, by media type


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: tuple[tuple[str, str], ...]
    body: str
    read: bool  #: whether the request's body was asked for
    statements: tuple[str, ...]  #: SQL in the order of execution

    @property
    def wrote(self) -> bool:
        return any(statement.startswith(("INSERT", "UPDATE", "DELETE")) for statement in self.statements)


class Door(Protocol):
    def operations(self) -> Mapping[str, str]:
        """Every operation that the real service offers here, with the scope that it declares itself."""

    def inputs(self) -> Mapping[str, frozenset[str]]:
        """For each operation the places that a caller can fill, by the service's own description."""

    def send(self, name: str, values: Mapping[str, Any], credential: str | None) -> Answer: ...


class Statements:
    """What is sent to the database between two looks."""

    def __init__(self, engine: sa.Engine) -> None:
        self._seen: list[str] = []
        event.listen(engine, "before_cursor_execute", lambda *args: self._seen.append(args[2]))

    def taken(self) -> tuple[str, ...]:
        """Without what comes once in a while, whatever is asked: looks at what changed of keys, a store's new second."""
        seen, self._seen[:] = tuple(each for each in self._seen if not any(part in each for part in _NOW_AND_THEN)), []
        return seen


class HttpDoor:
    """The application with its middlewares, called in this process without a socket."""

    def __init__(self, services: ApiServices) -> None:
        self._app, self._routes, self._gates = create_service(services), create_app(services), services.gates
        self._residents = services.conversations.recall.residents
        self._statements = Statements(services.core.database.engine)
        self._loop = start_blocking_portal()  # one root task, so that worker threads outlive a request
        self._portal = self._loop.__enter__()

    def close(self) -> None:
        self._loop.__exit__(None, None, None)

    def operations(self) -> dict[str, str]:
        routes = [route for route in _flat(self._routes.routes) if isinstance(route, APIRoute)]
        named = [(f"{method} {route.path}", route) for route in routes for method in route.methods or ()]
        return {name: str((route.openapi_extra or {}).get(SCOPE_KEY)) for name, route in named}

    def inputs(self) -> dict[str, frozenset[str]]:
        document = self._routes.openapi()
        found = {}
        for path, methods in document["paths"].items():
            for method, operation in methods.items():
                places = {f"{item['in']}.{item['name']}" for item in operation.get("parameters", [])}
                for kind, content in operation.get("requestBody", {}).get("content", {}).items():
                    part = PARTS.get(kind, "body")
                    schema = content["schema"]
                    schema = (
                        document["components"]["schemas"][schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
                    )
                    places |= {f"{part}.{name}" for name in schema.get("properties", {})}
                found[f"{method.upper()} {path}"] = frozenset(places)
        return found

    def send(self, name: str, values: Mapping[str, Any], credential: str | None) -> Answer:
        """`values` has the parts path, query, header, and body or form or line or raw."""
        method, _, path = name.partition(" ")
        for key, value in values.get("path", {}).items():
            path = path.replace(f"{{{key}}}", quote(value, safe="", errors="surrogatepass"))
        content, kind = _encoded(values)
        headers = {"content-type": kind} if kind else {}
        headers |= {"authorization": credential} if credential is not None else {}
        headers |= values.get("header", {})
        query = urlencode(values.get("query", {}), errors="surrogatepass")
        return _probed(unquote(path), self.exchange(method, path, query, headers, content))

    def exchange(self, method: str, path: str, query: str, headers: Mapping[str, str], content: bytes) -> Answer:
        """One request as it goes over the wire; `path` and `query` are quoted."""
        headers = {"x-request-id": REQUEST_ID, "host": "carrel", "content-length": str(len(content)), **headers}
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": unquote(path),
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": query.encode(),
            "headers": [(key.lower().encode(), value.encode(errors="replace")) for key, value in headers.items()],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
        }
        answer: Answer = self._portal.call(self._call, scope, content)
        return answer

    def _know(self, credential: bytes | None) -> None:
        """Who asks is known for a moment and then looked up again: let that not fall into one of two calls by chance."""
        bare = (credential or b"").partition(b" ")[2].decode("latin-1").strip()
        self._gates.identifier.distrust()
        self._residents.let_go_unused(0)
        with suppress(CarrelError):
            identity = self._gates.identifier.identify(bare, "127.0.0.1")
            if identity.tenant is not None:
                self._gates.rates.limits.of(identity.tenant.tenant_id)

    async def _call(self, scope: dict[str, Any], content: bytes) -> Answer:
        started: dict[str, Any] = {}
        body, read, seen = bytearray(), False, anyio.Event()

        async def receive() -> dict[str, Any]:
            nonlocal read
            if not read:
                read = True
                return {"type": "http.request", "body": content, "more_body": False}
            await seen.wait()  # a stream that does not end by itself is left after its first words
            return {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                started.update(message)
            else:
                body.extend(message.get("body", b""))
                if body and _endless(started["headers"]):
                    seen.set()

        await anyio.to_thread.run_sync(self._know, dict(scope["headers"]).get(b"authorization"))
        self._statements.taken()
        with anyio.fail_after(ANSWER_S):
            await self._app(scope, receive, send)
        headers = tuple(sorted((key.decode("latin-1"), value.decode("latin-1")) for key, value in started["headers"]))
        statements = self._statements.taken()
        if scope["path"] == "/readyz":
            statements = tuple(sorted(statements))  # the parts are asked side by side
        if _endless(started["headers"]):
            statements = ()  # how often a stream that has begun looks is a matter of time
        return Answer(started["status"], headers, body.decode(errors="replace"), read, statements)


def _endless(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    return any(name == b"content-type" and value.startswith(b"text/event-stream") for name, value in headers)


def _probed(path: str, answer: Answer) -> Answer:
    """With the status of what was asked for, where the transport's own is that of an envelope around it."""
    status = answer.status
    if path == "/mcp/" and status in (200, 400):
        status = _of_tool(answer.body)
    if ("content-type", LINES) in answer.headers:
        status = json.loads(answer.body.partition("\n")[0]).get("status", status)  # of the line that was sent
    return replace(answer, status=status)


def _of_tool(body: str) -> int:
    """A tool's refusal is an answer to its caller; here it has the status that the same refusal has elsewhere."""
    answer = json.loads(body)
    if "error" in answer:
        return 422
    result = answer["result"]
    if not result.get("isError"):
        return 200
    code = re.search(r"\[(\w+)\]", result["content"][0]["text"])
    return REFUSED_TOOL.get(code.group(1) if code else "", 422)


def _flat(routes: list[BaseRoute]) -> Iterator[BaseRoute]:
    for route in routes:
        included = getattr(route, "original_router", route)
        yield from _flat(included.routes) if hasattr(included, "routes") else [route]


def _encoded(values: Mapping[str, Any]) -> tuple[bytes, str | None]:
    if "raw" in values:
        return values["raw"], "application/json"
    if "body" in values:
        return json.dumps(values["body"]).encode(), "application/json"
    if "line" in values:
        return json.dumps(values["line"]).encode() + b"\n", LINES
    if "form" in values:
        parts = [_part(name, value) for name, value in values["form"].items()]
        return b"".join((*parts, f"--{BOUNDARY}--\r\n".encode())), f"multipart/form-data; boundary={BOUNDARY}"
    return b"", None


def _part(name: str, value: str) -> bytes:
    file = '; filename="notes.txt"' if name == "file" else ""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'
    return head.encode() + value.encode("utf-8", "surrogatepass") + b"\r\n"
