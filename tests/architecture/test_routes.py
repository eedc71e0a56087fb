"""Every route declares its scope, and without a key nothing but the public ones is reached, whatever is sent."""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from fastapi.routing import APIRoute
from sqlmodel import select
from starlette.routing import BaseRoute
from starlette.testclient import TestClient

from api.app import create_app, create_service
from api.cursors import _cursor
from api.idempotency import _recorder
from api.middleware import ASKING, PUBLIC, STREAMED, class_of
from api.openai.errors import PATHS as OPENAI
from api.routing import RETRIEVAL_KEY, SCOPE_KEY, STREAMED_KEY, ScopedRoute
from api.schemas.documents import Page
from api.wiring.api import ApiServices
from api.wiring.core import Core
from api.wiring.gates import build_gates
from config.clock import system_clock
from config.database import Database
from config.plans import BUILT_IN, UNLIMITED
from config.settings import Settings
from tenants.audit.record import AuditLog
from tenants.audit.tables import AuditEntry
from tenants.context import TENANT_SCOPES, Scope
from tenants.identity.keys import KeyRing, make_secret
from tenants.identity.tokens import TokenSigner
from tenants.limits.plans import LimitsInForce, Plans
from tenants.limits.rates import OperationClass
from tenants.registry import TenantRegistry
from tests.changes import CHANGES
from tests.tables import make_tables

APP = create_app(cast(ApiServices, None))
DOCUMENTATION = {"/openapi.json", "/docs"}


def _flat(routes: list[BaseRoute]) -> Iterator[BaseRoute]:
    """Routes with those of included routers, which the framework keeps apart."""
    for route in routes:
        included = getattr(route, "original_router", route)
        yield from _flat(included.routes) if hasattr(included, "routes") else [route]


ROUTES = [route for route in _flat(APP.routes) if isinstance(route, APIRoute)]
CALLS = sorted((method, route.path) for route in ROUTES for method in route.methods)
PRIVATE = [call for call in CALLS if call[1] not in PUBLIC]


def _scope(route: APIRoute) -> str:
    return str((route.openapi_extra or {}).get(SCOPE_KEY))


def _scopes() -> dict[tuple[str, str], str]:
    return {(method, route.path): _scope(route) for route in ROUTES for method in route.methods}


def _code(answer: Any) -> str:
    """Of a refusal in either shape."""
    body = answer.json()
    return str(body["error"]["code"] if "error" in body else body["code"])


def _name(value: object) -> str | None:
    return " ".join(value) if isinstance(value, tuple) else None


#: POST routes whose answer is not recorded with an effect in one transaction, each with its reason.
WITHOUT_AN_EFFECT = {
    "/v1/bulk": "a line that is brought again changes nothing, which holds for each of a stream, however far it came",
    "/v1/query": "changes nothing but a charge, whose id comes from the key",
    "/v1/context": "the same",
    "/v1/recall": "the same",
    "/v1/sessions/{session_id}/recall": "the same",
    "/v1/memories/search": "the same",
    "/v1/traces/replay": "the same",
    "/v1/traces/{trace_id}/replay": "the same",
    "/v1/admin/search": "changes nothing",
    "/retrieval": "changes nothing but a charge; Dify names no key",
    "/mcp/": "the protocol knows no keys; a memory that is added again confirms the first",
    "/v1/tokens": "a token is signed, not stored: one that nobody received is worth nothing",
    "/v1/feedback": "its row names the request's key: repeated, that row is the answer",
    "/v1/sessions/{session_id}/promote": "what is there already under its name and content answers every repetition",
    "/v1/erasures": "the erasure that runs answers every repetition, and a second one finds nothing",
    "/v1/jobs/{job_id}/cancel": "a job is cancelled once, and answers as it is however often it is asked",
    "/v1/jobs/retry": "each job has one successor at most; repeated, it retries what is left",
    "/v1/jobs/{job_id}/retry": "a job has one successor at most, which answers every repetition",
    "/v1/sessions/{session_id}/close": "a session that is closed answers as it is however often it is closed",
    "/v1/sessions/{session_id}/archive": "the same",
    "/v1/sessions/{session_id}/resume": "the same of one that is open",
    "/v1/webhooks/{webhook_id}/rotate": "a secret that nobody received signs beside the others until their overlap ends",
    "/v1/webhooks/{webhook_id}/test": "a second test says no more than the first",
    "/v1/webhooks/{webhook_id}/replay": "what is sent again comes under its first id, by which receivers know it",
    "/v1/webhooks/{webhook_id}/deliveries/{delivery_id}/replay": "the same, and one that waits stays as it is",
    "/v1/sessions/{session_id}/pins": "a turn that is pinned stays as it is, and answers every repetition",
    "/v1/admin/tenants/{tenant}/tokens": "a token is signed, not stored: one that nobody received is worth nothing",
    "/v1/embeddings": "changes nothing but a charge, whose id comes from the key",
    "/v1/vector_stores/{vector_store_id}/search": "the same",
    "/v1/vector_stores/{vector_store_id}": "what it sets is the same however often it is set",
    "/v1/vector_stores/{vector_store_id}/files": "a file is in a store once: put there again, it stays as it is",
    "/v1/vector_stores/{vector_store_id}/files/{file_id}": "what it sets is the same however often it is set",
    "/v1/vector_stores/{vector_store_id}/file_batches/{batch_id}/cancel": "a batch is cancelled once",
}


def test_every_post_has_its_effect_and_its_answer_in_one_transaction_or_a_reason() -> None:
    posts = {route.path: route for route in ROUTES if "POST" in route.methods}
    recording = {
        path for path, route in posts.items() if any(given.call is _recorder for given in route.dependant.dependencies)
    }
    assert recording | set(WITHOUT_AN_EFFECT) == set(posts)
    assert not recording & set(WITHOUT_AN_EFFECT)
    died_in = {change.route for change in CHANGES.values()}
    assert recording <= died_in, "tests/changes.py lacks a route: the API must die at every point of it"


def test_what_is_not_kept_for_repetitions_changes_nothing() -> None:
    assert {route.path for route in ROUTES if (route.openapi_extra or {}).get(RETRIEVAL_KEY)} == ASKING


def test_every_post_but_streams_offers_the_key() -> None:
    for path, methods in APP.openapi()["paths"].items():
        for method, operation in methods.items():
            named = [given["name"] for given in operation.get("parameters", []) if given["in"] == "header"]
            assert ("Idempotency-Key" in named) == (method == "post" and path not in STREAMED), path


def test_what_is_streamed_is_so_for_the_middleware_and_the_routes() -> None:
    assert {route.path for route in ROUTES if (route.openapi_extra or {}).get(STREAMED_KEY)} == STREAMED


def test_the_class_of_a_request_is_that_of_its_route() -> None:
    for (method, path), scope in _scopes().items():
        if scope == "none":
            continue
        reads = OperationClass.QUERY if path in ASKING else OperationClass.READ
        asks = method == "GET" or path in ASKING
        changes = OperationClass.QUERY if scope == "converse" else OperationClass.INGEST
        expected = OperationClass.ADMIN if scope == "operate" else reads if asks else changes
        assert class_of(method, path) is expected, path


class Reached(Exception):
    """A request came through to the services, which a denied one must not."""


class Unreachable:
    def __getattr__(self, name: str) -> Any:
        raise Reached(name)


class Stand:
    """The whole way in, with real identities and nothing behind it."""

    def __init__(self, folder: Path) -> None:
        self.database = Database(f"sqlite:///{folder / 'carrel.db'}")
        make_tables(self.database)
        keys = KeyRing(self.database, system_clock)
        tokens = TokenSigner(secrets.token_bytes(32), system_clock)
        tenant = TenantRegistry(self.database, system_clock).create("a", monthly_tokens=None)
        self.keys = {scope: keys.create(tenant.id, name="t", scopes=[scope]).secret for scope in TENANT_SCOPES}
        self.keys[Scope.OPERATE] = keys.create(None, name="o", scopes=[Scope.OPERATE]).secret
        beyond = Unreachable()
        settings = Settings(max_document_bytes=1024, requests_per_second=100_000, bad_keys_per_minute=1_000_000)
        core = SimpleNamespace(settings=settings, registry=beyond, ledger=beyond, clock=system_clock, database=self.database)
        core.limits = LimitsInForce(self.database, system_clock, Plans(BUILT_IN, UNLIMITED))
        gates = build_gates(cast(Core, core), keys, tokens)
        known: dict[str, Any] = {
            "core": core,
            "audit": AuditLog(self.database, system_clock),
            "identifier": gates.identifier,
            "gates": gates,
            "draining": threading.Event(),
        }
        self.draining = known["draining"]
        services = SimpleNamespace(**{field.name: known.get(field.name, beyond) for field in fields(ApiServices)})
        self.client = TestClient(create_service(cast(ApiServices, services)))

    def call(self, method: str, path: str, key: str | None = None, **options: Any) -> Any:
        headers = {"authorization": f"Bearer {key}"} if key else {}
        headers |= options.pop("headers", {})
        return self.client.request(method, path.replace("{", "").replace("}", ""), headers=headers, **options)

    def audited(self) -> list[AuditEntry]:
        with self.database.system_read() as session:
            return [*session.scalars(select(AuditEntry))]


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    stand = Stand(tmp_path_factory.mktemp("stand"))
    with stand.client:
        yield stand
    stand.database.close()


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{sorted(route.methods)[0]} {route.path}")
def test_a_route_declares_its_scope_and_names_itself(route: APIRoute) -> None:
    assert isinstance(route, ScopedRoute)
    assert _scope(route) in {"none", *map(str, Scope)}
    assert route.operation_id
    assert route.summary
    assert not route.summary.endswith(".")


def test_there_are_routes_and_their_names_differ() -> None:
    assert len(ROUTES) >= 15
    assert len({route.operation_id for route in ROUTES}) == len(ROUTES)


def test_what_is_public_is_so_for_the_middleware_and_the_routes() -> None:
    assert {route.path for route in ROUTES if _scope(route) == "none"} == PUBLIC - DOCUMENTATION


def test_administration_needs_an_operator_and_nothing_else_does() -> None:
    for (_, path), scope in _scopes().items():
        assert (scope == "operate") == path.startswith("/v1/admin/"), path


OF_SUBJECTS = ("/v1/sessions", "/v1/memories", "/v1/subjects", "/v1/erasures")


def test_reading_never_needs_more_than_changing() -> None:
    for (method, path), scope in _scopes().items():
        if (
            path.startswith("/v1/")
            and not path.startswith("/v1/admin/")
            and not path.startswith("/v1/webhooks")
            and path not in (*ASKING, "/v1/usage", "/v1/usage/export", "/v1/events", "/v1/feedback")
            and not path.startswith("/v1/audit")
        ):
            changing = {"converse", "ingest"} if path.startswith(OF_SUBJECTS) else {"ingest"}
            assert scope in ({"query"} if method == "GET" else changing), path


def _is_page(model: object) -> bool:
    return isinstance(model, type) and issubclass(model, Page)


def test_every_list_goes_on_by_a_sealed_cursor_and_is_bounded() -> None:
    lists = {route.path for route in ROUTES if "GET" in route.methods and _is_page(route.response_model)}
    sealed = {route.path for route in ROUTES if any(inner.call is _cursor for inner in route.dependant.dependencies)}
    assert lists == sealed
    assert len(lists) >= 4
    for path in lists:
        given = {item["name"]: item["schema"] for item in APP.openapi()["paths"][path]["get"]["parameters"]}
        assert {"after", "limit"} <= given.keys()
        assert given["limit"]["maximum"] <= 100
    for (method, path), operation in _operations().items():
        named = {item["name"] for item in operation.get("parameters", ())}
        if not OPENAI.fullmatch(path):  # where lists go on behind an id, which is compared and looked up nowhere
            assert "after" not in named or (method == "GET" and path in lists), path


def _operations() -> dict[tuple[str, str], Any]:
    paths = APP.openapi()["paths"]
    return {(method.upper(), path): item for path, methods in paths.items() for method, item in methods.items()}


def test_the_openapi_document_declares_scopes_and_refusals() -> None:
    document = APP.openapi()
    json.dumps(document)
    assert document["security"] == [{"key": []}]
    operations = _operations()
    assert set(operations) == set(CALLS)
    for (_, path), operation in operations.items():
        assert operation[SCOPE_KEY] == _scopes()[_, path]
        if path in PUBLIC:
            assert operation["security"] == []
        else:
            invalid, shape = ("400", "OpenAI") if OPENAI.fullmatch(path) else ("422", "Problem")
            assert {"401", "403", "429", "503"} <= set(operation["responses"])
            assert operation["responses"]["401"]["$ref"].rpartition("/")[2].startswith(shape)
            if operation.get("parameters") or "requestBody" in operation:
                assert invalid in operation["responses"]


def test_every_reference_in_the_openapi_document_leads_somewhere() -> None:
    document = APP.openapi()
    text = json.dumps(document)
    named = {part.partition('"')[0] for part in text.split('"#/components/schemas/')[1:]}
    assert named <= set(document["components"]["schemas"])


BROKEN: list[dict[str, Any]] = [
    {},
    {"content": b"{broken", "headers": {"content-type": "application/json"}},
    {"content": b"x" * 5000, "headers": {"content-type": "multipart/form-data; boundary=missing"}},
    {"content": b"x" * (2 << 20)},
]


@pytest.mark.parametrize("call", PRIVATE, ids=_name)
@pytest.mark.parametrize("broken", BROKEN, ids=["empty", "json", "form", "too large"])
def test_without_a_key_nothing_private_answers(stand: Stand, call: tuple[str, str], broken: dict[str, Any]) -> None:
    response = stand.call(*call, **{**broken, "headers": dict(broken.get("headers", {}))})
    assert (response.status_code, _code(response)) == (401, "unauthenticated")
    assert response.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    "path", ["/", "/v1", "/v1/unknown", "/docs/oauth2-redirect", "/redoc", "/healthz/", "//healthz", "/healthz/../v1/usage"]
)
def test_without_a_key_not_even_the_absence_of_a_path_is_told(stand: Stand, path: str) -> None:
    assert stand.call("GET", path).status_code == 401


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", "Basic eDp5", "carrel_key", "bearer\tx", "Bearer  ", "Bearer é"])
def test_what_is_no_bearer_key_is_no_key(stand: Stand, header: str) -> None:
    response = stand.client.get("/v1/usage", headers={"authorization": header.encode("latin-1")})
    assert response.status_code == 401


@pytest.mark.parametrize("call", PRIVATE, ids=_name)
def test_a_key_without_the_scope_is_refused_before_the_body_is_read(stand: Stand, call: tuple[str, str]) -> None:
    needed = Scope(_scopes()[call])
    for scope, key in stand.keys.items():
        if scope != needed:
            response = stand.call(*call, key=key, content=b"{broken")
            assert (response.status_code, _code(response)) == (403, "forbidden")


@pytest.mark.parametrize("call", [call for call in PRIVATE if not call[1].startswith("/v1/admin/")], ids=_name)
def test_no_operator_enters_a_tenants_room(stand: Stand, call: tuple[str, str]) -> None:
    assert stand.call(*call, key=stand.keys[Scope.OPERATE]).status_code == 403


def test_a_key_with_the_scope_does_reach_the_service(stand: Stand) -> None:
    response = stand.call("GET", "/v1/usage", key=stand.keys[Scope.MANAGE])
    assert (response.status_code, response.json()["code"]) == (500, "internal_error")
    assert "Reached" not in response.text


@pytest.mark.parametrize("scope", [Scope.INGEST])
def test_a_body_that_is_too_large_is_refused_however_it_declares_itself(stand: Stand, scope: Scope) -> None:
    for length in (None, "5000000", "-1", "many"):
        headers = {"content-type": "application/json"} | ({"content-length": length} if length else {})
        parts = iter([b"x" * 65_536] * 40)
        response = stand.call("POST", "/v1/documents", key=stand.keys[scope], content=parts, headers=headers)
        assert (response.status_code, response.json()["code"]) == (413, "too_large")


def test_a_denial_is_on_record_without_what_was_sent(stand: Stand) -> None:
    before = len(stand.audited())
    stand.call("POST", "/v1/query", key=stand.keys[Scope.INGEST], json={"query": "my secret question"})
    entry = stand.audited()[before:][0]
    assert (entry.decision, entry.status, entry.action) == ("denied", 403, "POST /v1/query")
    assert "secret question" not in repr(entry)


@pytest.mark.parametrize(("given", "kept"), [("req-1.a_B", True), ("x" * 65, False), ("a b", False), ("é", False), ("", False)])
def test_a_harmless_request_id_is_kept(stand: Stand, given: str, kept: bool) -> None:
    response = stand.client.get("/v1/usage", headers={"x-request-id": given.encode("latin-1")})
    assert (response.headers["x-request-id"] == given) is kept
    assert response.json()["request_id"] == response.headers["x-request-id"]


def test_two_unknown_keys_are_told_the_same(stand: Stand) -> None:
    answers = [stand.call("GET", "/v1/usage", key=make_secret(name)).json() for name in ("key_x", "key_y")]
    for answer in answers:
        del answer["request_id"]
    assert answers[0] == answers[1]


def test_a_process_that_stops_sends_new_requests_away(stand: Stand) -> None:
    stand.draining.set()
    try:
        for method, path in (("GET", "/v1/usage"), ("POST", "/v1/documents"), ("GET", "/nowhere")):
            refused = stand.call(method, path, key=stand.keys[Scope.QUERY])
            assert (refused.status_code, refused.headers["connection"]) == (503, "close")
            assert refused.json()["retryable"]
            assert refused.headers["retry-after"]
            assert refused.json()["request_id"] == refused.headers["x-request-id"]
        alive = stand.call("GET", "/healthz")
        assert (alive.status_code, alive.headers["connection"]) == (200, "close")
    finally:
        stand.draining.clear()
