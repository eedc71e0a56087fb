"""`Idempotency-Key` on POST routes: the first result is kept and given to every repetition, byte for byte.

scope → key → claim ─┬─ a result: replayed        a route ─ once.records(…) ─► the effect and its result, one transaction
                     ├─ in progress: waited for           └─ what had no transaction is recorded when it has answered
                     └─ claimed: the route runs           └─ a refusal without an effect gives the key back
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Coroutine, Iterable
from typing import Annotated, Any, TypeVar
from urllib.parse import quote

import anyio
from anyio import to_thread
from fastapi import Depends, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from python_multipart.multipart import parse_options_header
from sqlalchemy.orm import Session
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from api.problems import MEDIA_TYPE, refusal
from config.errors import CarrelError, IdempotencyInProgress, InvalidInput
from config.ids import new_id
from tenants.context import TenantContext
from tenants.idempotency import Call, Claim, IdempotencyStore, Result
from tenants.identity.authenticator import Identity

T = TypeVar("T")
Handler = Callable[[Request], Coroutine[Any, Any, Response]]

HEADER, REPLAYED = "Idempotency-Key", "Idempotent-Replayed"
MAX_KEY_CHARS = 255
_MADE, _UNDER = re.compile(rb'"id":"(ses_[0-9a-z]{26})"'), re.compile(rb"/v1/sessions/(ses_[0-9a-z]{26})(?:/|$)")
WAIT_S, POLL_S = 5.0, 0.05  # for a request with the same key that is under way
MAX_ROUTE_CHARS, MAX_PARTS = 300, 1_000  # a longer path is hashed; a form with more parts is refused by every route


class Recorder:
    """Lets a route write its result in the transaction of its effect. Without a key it does nothing."""

    def __init__(self, store: IdempotencyStore | None = None, claim: Claim | None = None) -> None:
        self._store, self._claim = store, claim

    def records(
        self, render: Callable[[T], BaseModel], *, status: int | Callable[[T], int]
    ) -> Callable[[Session, T], None] | None:
        """For a domain call's `record`. `render` makes the body that is sent and stored; it must be cheap."""
        store, claim = self._store, self._claim
        if store is None or claim is None:
            return None

        def record(session: Session, value: T) -> None:
            code = status if isinstance(status, int) else status(value)
            store.record(session, claim, _result(claim.call, code, render(value).model_dump_json().encode()))

        return record


async def _recorder(request: Request) -> Recorder:
    recorder: Recorder | None = getattr(request.state, "once", None)
    return recorder or Recorder()


async def _charge_id(request: Request) -> str:
    """Names what the request is charged as: with a key, the same for every repetition."""
    key = _key(request)
    if key is None:
        return new_id("charge")
    call = await to_thread.run_sync(_call, request, key, await request.body())
    return f"charge_{_sha256((call.owner.encode(), call.route.encode(), key.encode(), call.body_sha256)).hex()}"


Once = Annotated[Recorder, Depends(_recorder)]
ChargeId = Annotated[str, Depends(_charge_id)]


def once(inner: Handler) -> Handler:
    """A handler whose requests are carried out once for each key. Needs an identity, and an outer handler for errors."""

    async def handler(request: Request) -> Response:
        key = _key(request)
        if key is None:
            return await inner(request)
        store: IdempotencyStore = request.app.state.services.core.idempotency
        call = await to_thread.run_sync(_call, request, key, await request.body())
        claim = await _claim(store, call)
        if isinstance(claim, Result):
            request.state.audit = {"replayed": True}
            return _response(claim, {REPLAYED: "true"})
        request.state.once = Recorder(store, claim)
        result = await _first(request, inner, store, claim)
        return _response(await to_thread.run_sync(store.finish, claim, result))

    return handler


async def _claim(store: IdempotencyStore, call: Call) -> Claim | Result:
    deadline = anyio.current_time() + WAIT_S
    while (claim := await to_thread.run_sync(store.claim, call)) is None:
        if anyio.current_time() > deadline:
            raise IdempotencyInProgress("A request with this key is still running; repeat it.", field=HEADER, retry_after_s=1)
        await anyio.sleep(POLL_S)
    return claim


async def _first(request: Request, inner: Handler, store: IdempotencyStore, claim: Claim) -> Result:
    """Run the route. Its refusal is a result too, unless the same key should be able to try again."""
    try:
        response = await inner(request)
    except CarrelError as error:
        if error.retryable or isinstance(error, InvalidInput):
            await to_thread.run_sync(store.release, claim)
            raise
        response = refusal(error)
    except (RequestValidationError, HTTPException, ClientDisconnect):
        await to_thread.run_sync(store.release, claim)
        raise
    return _result(claim.call, response.status_code, bytes(response.body))


def _response(result: Result, headers: dict[str, str] | None = None) -> Response:
    """The one rendering of a result, whether it is new or repeated."""
    media_type = "application/json" if result.status < 400 else MEDIA_TYPE
    return Response(result.body, result.status, headers, media_type)


def _key(request: Request) -> str | None:
    given = request.headers.getlist(HEADER)
    if not given:
        return None
    key = given[0]
    if len(given) > 1 or not 1 <= len(key) <= MAX_KEY_CHARS or any(not " " <= character <= "~" for character in key):
        raise InvalidInput(
            f"{HEADER} is one value of 1 to {MAX_KEY_CHARS} printable ASCII characters.", field=HEADER, limit=MAX_KEY_CHARS
        )
    return key


def _call(request: Request, key: str, body: bytes) -> Call:
    identity: Identity = request.state.identity
    tenant = identity.tenant
    route = f"{request.method} {quote(request.url.path)}"
    if len(route) > MAX_ROUTE_CHARS:
        route = f"{request.method} sha256:{hashlib.sha256(route.encode()).hexdigest()}"
    # The caller's bounds belong to the request: what one key was shown must not be replayed to one that sees less.
    kind = request.headers.get("content-type", "")
    bounds = () if tenant is None else (_listed(tenant.collections), _listed(tenant.labels), *_subject(tenant))
    return Call(
        owner=f"operator:{identity.principal.id}" if tenant is None else tenant.tenant_id,
        tenant_id=None if tenant is None else tenant.tenant_id,
        route=route,
        key=key,
        body_sha256=_sha256((*bounds, request.url.query.encode(), *_conditions(request), *_content(kind, body))),
        subject=None if tenant is None else tenant.subject or _named(body),
    )


def _named(body: bytes) -> str | None:
    """The subject that a request names, whose token it does not bring."""
    if b'"subject"' not in body:
        return None
    try:
        given = json.loads(body)
    except (ValueError, RecursionError):  # a form, or nothing that a route takes
        return None
    subject = given.get("subject") if isinstance(given, dict) else None
    return subject if isinstance(subject, str) else None


def _result(call: Call, status: int, body: bytes) -> Result:
    """With the session that it tells of: one that it is itself, or one under which it was asked for."""
    found = _MADE.search(body) or _UNDER.search(call.route.encode())
    return Result(status, body, None if found is None else found[1].decode())


def _conditions(request: Request) -> list[bytes]:
    """Another precondition makes another request."""
    return [f"{name}: {request.headers[name]}".encode() for name in ("if-match", "if-none-match") if name in request.headers]


def _subject(tenant: TenantContext) -> tuple[bytes, ...]:
    return () if tenant.subject is None else (b"subject", tenant.subject.encode())


def _listed(bounds: frozenset[str] | None) -> bytes:
    return b"all" if bounds is None else _sha256(name.encode() for name in sorted(bounds))


def _content(content_type: str, body: bytes) -> list[bytes]:
    """Media type and body; of a form the parts without the boundary between them, which clients choose anew each time."""
    media_type, options = parse_options_header(content_type)
    boundary = options.get(b"boundary", b"")
    if media_type != b"multipart/form-data" or not boundary:
        return [media_type, body]
    return [media_type, *(b"\r\n" + body).split(b"\r\n--" + boundary, MAX_PARTS)]


def _sha256(pieces: Iterable[bytes]) -> bytes:
    """Of the pieces and where each ends."""
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(len(piece).to_bytes(8, "big"))
        digest.update(piece)
    return digest.digest()


def described(schema: dict[str, Any], retrieval_key: str, streamed_key: str) -> None:
    """Add the header to every POST of an OpenAPI document that takes it."""
    for operations in schema["paths"].values():
        operation = operations.get("post")
        if operation and not operation.get(streamed_key):
            again = (
                "charged once and answered anew" if operation.get(retrieval_key) else "carried out once: its answer is replayed"
            )
            operation.setdefault("parameters", []).append(
                {
                    "name": HEADER,
                    "in": "header",
                    "required": False,
                    "description": f"Names the request: repeated within 24 hours with the same key it is {again}.",
                    "schema": {"type": "string", "minLength": 1, "maxLength": MAX_KEY_CHARS, "pattern": "^[ -~]+$"},
                }
            )
