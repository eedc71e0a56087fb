"""What a route's outcome does to the key it was sent with: kept, given back, waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI, Request
from pydantic import BaseModel
from sqlalchemy.exc import OperationalError
from sqlmodel import select

from api import idempotency
from api.idempotency import ChargeId, Once
from api.problems import install_handlers
from api.routing import in_thread, router, scope
from config.database import Database
from config.errors import (
    BudgetExhausted,
    CarrelError,
    Conflict,
    EngineUnavailable,
    Forbidden,
    InvalidInput,
    NotFound,
    RateLimited,
)
from config.vault import Vault
from tenants.audit.record import AuditLog
from tenants.context import Principal, PrincipalKind, Scope, TenantContext
from tenants.idempotency import IdempotencyStore
from tenants.identity.authenticator import Identity
from tenants.ledger.budget import Ledger
from tenants.registry import TenantRegistry
from tenants.tables import BudgetWindow, Tenant
from tests.unit.conftest import SetClock

OPERATOR = Identity(Principal(PrincipalKind.OPERATOR, "key_op", frozenset({Scope.INGEST})), None)


def of_tenant(name: str) -> Identity:
    principal = Principal(PrincipalKind.KEY, f"key_{name}", frozenset({Scope.INGEST}))
    return Identity(principal, TenantContext(name, b"salt", principal))


class Out(BaseModel):
    value: str


class Stand:
    """Routes that do what a test sets, with a real store behind them."""

    def __init__(self, database: Database, clock: SetClock) -> None:
        self.runs, self.identity, self.act = 0, of_tenant("a"), self.answer
        self.registry = TenantRegistry(database, clock)
        self.app = FastAPI()
        self.app.state.services = SimpleNamespace(
            core=SimpleNamespace(idempotency=IdempotencyStore(database, clock, Vault([bytes(32)]))),
            audit=AuditLog(database, clock),
        )
        routes = router("Test")

        @routes.post("/v1/act", status_code=201, **scope(Scope.INGEST))
        async def act(request: Request, once: Once) -> Out:
            self.runs += 1
            return await self.act(request, once)

        @routes.post("/v1/ask", **scope(Scope.INGEST, retrieval=True))
        async def ask(charge_id: ChargeId) -> Out:
            return Out(value=charge_id)

        self.app.include_router(routes)
        install_handlers(self.app)

    async def answer(self, _request: Request, _once: Any) -> Out:
        return Out(value=f"run {self.runs}")

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        scope.setdefault("state", {}).update(identity=self.identity, request_id="req_test")
        await self.app(scope, receive, send)

    async def post(self, key: str | None = "k", *, path: str = "/v1/act", **options: Any) -> httpx2.Response:
        headers = options.pop("headers", {}) | ({} if key is None else {"Idempotency-Key": key})
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=self), base_url="http://test") as client:
            return await client.post(path, headers=headers, **options)

    def send(self, key: str | None = "k", **options: Any) -> httpx2.Response:
        return asyncio.run(self.post(key, **options))


@pytest.fixture
def stand(database: Database, clock: SetClock) -> Stand:
    return Stand(database, clock)


def raising(error: Exception) -> Callable[..., Any]:
    async def act(_request: Request, _once: Any) -> Out:
        raise error

    return act


def test_without_a_key_every_request_is_carried_out(stand: Stand) -> None:
    assert [stand.send(None).json()["value"] for _ in range(2)] == ["run 1", "run 2"]


def test_what_recorded_nothing_itself_is_recorded_when_it_answers(stand: Stand) -> None:
    first, again = stand.send(), stand.send()
    assert (first.status_code, first.content) == (again.status_code, again.content) == (201, b'{"value":"run 1"}')
    assert [answer.headers.get("idempotent-replayed") for answer in (first, again)] == [None, "true"]


@pytest.mark.parametrize("error", [NotFound("x"), Conflict("x"), Forbidden("x"), BudgetExhausted("x"), CarrelError("x")])
def test_a_refusal_is_kept(stand: Stand, error: CarrelError) -> None:
    stand.act = raising(error)
    first, again = stand.send(), stand.send()
    assert (first.status_code, first.content) == (again.status_code, again.content)
    assert first.status_code == error.status
    assert stand.runs == 1


def test_a_defect_is_kept(stand: Stand) -> None:
    stand.act = raising(ZeroDivisionError("inside"))
    first, again = stand.send(), stand.send()
    assert (first.status_code, first.content) == (again.status_code, again.content)
    assert (first.json()["code"], stand.runs) == ("internal_error", 1)


@pytest.mark.parametrize(
    "error",
    [
        InvalidInput("x"),
        RateLimited("x", retry_after_s=1),
        EngineUnavailable("x", retry_after_s=1),
        OperationalError("select", {}, Exception("gone")),
    ],
    ids=["invalid", "rate", "engine", "database"],
)
def test_what_may_succeed_later_or_when_mended_gives_the_key_back(stand: Stand, error: Exception) -> None:
    stand.act = raising(error)
    assert stand.send().status_code in (422, 429, 503)
    stand.act = stand.answer
    assert stand.send(json={"mended": True}).json() == {"value": "run 2"}


@pytest.mark.parametrize("later", [EngineUnavailable("x"), InvalidInput("x"), NotFound("x"), ZeroDivisionError()])
def test_an_effect_that_is_committed_keeps_its_result_whatever_fails_later(stand: Stand, later: Exception) -> None:
    stand.identity = OPERATOR

    async def act(_request: Request, once: Any) -> Out:
        record = once.records(lambda tenant: Out(value=tenant.name), status=201)
        await in_thread(lambda: stand.registry.create("made", monthly_tokens=None, record=record))
        raise later

    stand.act = act
    stand.send()
    again = stand.send()
    assert (again.status_code, again.json()) == (201, {"value": "made"})
    assert (again.headers["idempotent-replayed"], stand.runs) == ("true", 1)


def test_what_is_sent_is_what_was_recorded_with_the_effect(stand: Stand, database: Database) -> None:
    stand.identity = OPERATOR

    async def act(_request: Request, once: Any) -> Out:
        record = once.records(lambda _: Out(value="recorded"), status=lambda _: 202)
        await in_thread(lambda: stand.registry.create("made", monthly_tokens=None, record=record))
        return Out(value="rendered again")

    stand.act = act
    answers = [stand.send(), stand.send()]
    assert [(answer.status_code, answer.content) for answer in answers] == [(202, b'{"value":"recorded"}')] * 2
    with database.system_read() as session:
        assert len(session.scalars(select(Tenant).where(Tenant.name == "made")).all()) == 1


def test_a_record_that_was_rolled_back_is_not_the_answer(stand: Stand) -> None:
    stand.identity = OPERATOR

    async def act(_request: Request, once: Any) -> Out:
        record = once.records(lambda _: Out(value="never"), status=201)
        await in_thread(lambda: stand.registry.create("taken", monthly_tokens=None))
        await in_thread(lambda: stand.registry.create("taken", monthly_tokens=None, record=record))
        return Out(value="not reached")

    stand.act = act
    answers = [stand.send(), stand.send()]
    assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [(409, "conflict")] * 2


def test_tenants_and_operators_do_not_meet(stand: Stand) -> None:
    values = []
    for identity in (of_tenant("a"), of_tenant("b"), OPERATOR, of_tenant("a")):
        stand.identity = identity
        values.append(stand.send().json()["value"])
    assert values == ["run 1", "run 2", "run 3", "run 1"]


@pytest.mark.parametrize("waits_long_enough", [True, False])
def test_whoever_comes_meanwhile_waits_for_a_while(
    stand: Stand, monkeypatch: pytest.MonkeyPatch, waits_long_enough: bool
) -> None:
    monkeypatch.setattr(idempotency, "WAIT_S", 20.0 if waits_long_enough else 0.1)

    async def both() -> tuple[httpx2.Response, httpx2.Response]:
        begun, go_on = asyncio.Event(), asyncio.Event()

        async def act(_request: Request, _once: Any) -> Out:
            begun.set()
            await go_on.wait()
            return Out(value="late")

        stand.act = act
        first = asyncio.create_task(stand.post())
        await begun.wait()
        second = asyncio.create_task(stand.post())
        if waits_long_enough:
            go_on.set()
        answered = await second
        go_on.set()
        return await first, answered

    first, second = asyncio.run(both())
    assert (first.status_code, stand.runs) == (201, 1)
    if waits_long_enough:
        assert (second.content, second.headers["idempotent-replayed"]) == (first.content, "true")
    else:
        problem = second.json()
        assert (second.status_code, problem["code"], problem["retryable"]) == (409, "idempotency_in_progress", True)
        assert second.headers["retry-after"] == "1"


def form(boundary: str, content: str = "text", *, name: str = "file") -> dict[str, Any]:
    part = f'Content-Disposition: form-data; name="{name}"; filename="a.txt"\r\n\r\n{content}'
    body = f"--{boundary}\r\n{part}\r\n--{boundary}--\r\n"
    return {"content": body.encode(), "headers": {"content-type": f"multipart/form-data; boundary={boundary}"}}


def test_a_form_is_the_same_whatever_its_boundary(stand: Stand) -> None:
    assert stand.send(**form("abc")).json() == stand.send(**form("def")).json()
    assert stand.send(**form("ghi", "other")).json()["code"] == "idempotency_key_reused"
    assert stand.send(**form("abc", name="other")).json()["code"] == "idempotency_key_reused"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (form("abc", "tell abc"), form("def", "tell def")),
        ({"content": b"a"}, {"content": b"a "}),
        (
            {"content": b"a", "headers": {"content-type": "text/plain"}},
            {"content": b"a", "headers": {"content-type": "text/html"}},
        ),
        ({"params": {"x": "1"}}, {"params": {"x": "2"}}),
    ],
    ids=["boundary in the content", "blank", "media type", "query"],
)
def test_what_differs_is_not_the_same_request(stand: Stand, one: dict[str, Any], other: dict[str, Any]) -> None:
    assert stand.send(**one).status_code == 201
    assert stand.send(**other).json()["code"] == "idempotency_key_reused"


def test_what_is_asked_again_is_charged_under_one_name(stand: Stand, database: Database, clock: SetClock) -> None:
    def charge(key: str | None, question: str, tenant: str = "a") -> str:
        stand.identity = of_tenant(tenant)
        name: str = stand.send(key, path="/v1/ask", content=question.encode()).json()["value"]
        return name

    again = charge("k", "why?")
    assert charge("k", "why?") == again
    others = [charge("l", "why?"), charge("k", "how?"), charge("k", "why?", "b"), charge(None, "why?"), charge(None, "why?")]
    assert len({again, *others}) == 6
    meter = Ledger(database, clock, lease_s=60).for_tenant(of_tenant("a").tenant, "query")  # type: ignore[arg-type]
    for _ in range(2):
        meter.debit(again, 7)
    assert meter.charged(again) == 7
    with database.system_read() as session:
        assert [window.used for window in session.scalars(select(BudgetWindow))] == [7, 7]
