"""The middlewares together, around an application that answers at once: who comes in, how fast, and at what cost in SQL."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest
from sqlalchemy import event

from api.middleware import stack
from api.middleware.authenticate import TrustedProxies
from api.middleware.request_id import RequestId
from api.routing import require
from api.wiring.core import Core
from api.wiring.gates import build_gates
from config.database import Database
from config.errors import CarrelError, Forbidden, TenantSuspended
from config.plans import Plan
from config.settings import Settings
from tenants.audit.record import AuditLog
from tenants.audit.record import Event as Entry
from tenants.context import Principal, PrincipalKind, Scope
from tenants.identity.authenticator import Identity
from tenants.identity.keys import KeyRing, make_secret
from tenants.identity.tokens import TokenSigner, Wish
from tenants.limits.plans import LimitsInForce, Plans
from tenants.standing import ACTIVE, Standing
from tests.unit.conftest import SetClock

HERE = "192.0.2.1"


@dataclass
class Answer:
    status: int
    headers: dict[str, str]


@dataclass
class Recorded:
    entries: list[Entry] = field(default_factory=list)

    def append(self, entry: Entry, *, intent: str | None = None) -> None:
        self.entries.append(entry)


class Service:
    def __init__(self, database: Database, clock: SetClock, plan: Plan, **settings: Any) -> None:
        self.keys, self.audit, self.reached, self.weighs = KeyRing(database, clock), Recorded(), 0, 0
        self.tokens = TokenSigner(bytes(32), clock)
        core = SimpleNamespace(settings=Settings(**settings), clock=clock, database=database)
        core.limits = LimitsInForce(database, clock, Plans({"p": plan}, "p"), fresh_ms=60_000)
        self.gates = build_gates(cast(Core, core), self.keys, self.tokens)
        audit = cast(AuditLog, self.audit)
        self._app = stack(self._answer, self.gates, draining=threading.Event(), audit=audit, max_body=1000)

    async def _answer(self, scope: Any, _receive: Any, send: Any) -> None:
        self.reached += 1
        scope["state"]["tokens"] = self.weighs
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    def ask(self, *credentials: str, method: str = "POST", address: str = HERE, forwarded: str | None = None) -> list[Answer]:
        async def all_of_them() -> list[Answer]:
            return [await self._call(credential, method, address, forwarded) for credential in credentials]

        return asyncio.run(all_of_them())

    async def _call(self, credential: str, method: str, address: str, forwarded: str | None) -> Answer:
        headers = [(b"authorization", f"Bearer {credential}".encode())]
        headers += [] if forwarded is None else [(b"x-forwarded-for", forwarded.encode())]
        scope = {"type": "http", "method": method, "path": "/v1/query", "headers": headers, "client": (address, 1)}
        started: dict[str, Any] = {}

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                started.update(message)

        await self._app(scope, receive, send)
        return Answer(started["status"], {name.decode(): value.decode() for name, value in started["headers"]})


@pytest.fixture
def service(database: Database, clock: SetClock) -> Service:
    return Service(database, clock, Plan())


def key(service: Service, tenant: str = "a", **terms: Any) -> str:
    return service.keys.create(tenant, **{"name": "k", "scopes": [Scope.QUERY]} | terms).secret


def test_a_known_keys_requests_run_no_sql(service: Service, database: Database) -> None:
    secrets = [key(service, tenant) for tenant in "ab"]
    context = service.gates.identifier.identify(secrets[0]).tenant
    assert context is not None
    credentials = [*secrets, service.tokens.issue_for(context, _wish())[0]]
    statements: list[str] = []
    assert {answer.status for answer in service.ask(*credentials)} == {200}

    def seen(*args: Any) -> None:
        statements.append(args[2])

    event.listen(database.engine, "before_cursor_execute", seen)
    try:
        answers = service.ask(*credentials * 50)
    finally:
        event.remove(database.engine, "before_cursor_execute", seen)
    assert {answer.status for answer in answers} == {200}
    looks = [statement for statement in statements if "set_config" not in statement]
    assert all("changed_at" in statement for statement in looks), looks
    assert len(looks) <= 3, "one look a second, whatever is asked"


def _wish() -> Wish:
    return Wish([Scope.QUERY], 900, "ann")


def test_of_ten_thousand_guesses_almost_all_get_429_and_known_keys_go_on(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    good, fresh = key(service), key(service, "b")
    assert [answer.status for answer in service.ask(good)] == [200]
    guesses = [make_secret(f"key_{number % 7}") for number in range(10_000)]
    answers = Counter(answer.status for answer in service.ask(*guesses))
    assert answers[429] >= 9_900
    assert answers.keys() == {401, 429}
    assert [answer.status for answer in service.ask(good)] == [200], "from the same address"
    assert [answer.status for answer in service.ask(fresh, address="192.0.2.2")] == [200]
    [refused] = service.ask(guesses[0])
    assert int(refused.headers["retry-after"]) >= 1
    secrets = [one.split("_", 3)[3] for one in (*guesses, good, fresh)]
    told = repr([vars(record) for record in caplog.records]) + repr(service.audit.entries)
    assert "denied without identity" in told
    assert not [secret for secret in secrets if secret in told]


def test_answers_tell_what_is_left_and_refusals_when_to_come_back(database: Database, clock: SetClock) -> None:
    service = Service(database, clock, Plan(requests_per_second=1, burst=5), requests_per_second=100)
    one, two, others = key(service), key(service), key(service, "b")
    answers = service.ask(one, two, one, two, one, two)
    assert [answer.status for answer in answers] == [200] * 5 + [429], "the tenant's, whichever of its keys"
    assert answers[0].headers["ratelimit-policy"] == '"key";q=500;w=5, "tenant";q=5;w=5'
    assert [answer.headers["ratelimit"].split(";")[:2] for answer in answers[:2]] == [['"tenant"', "r=4"], ['"tenant"', "r=3"]]
    assert answers[5].headers["retry-after"] == "1"
    assert [answer.status for answer in service.ask(others)] == [200]


def test_what_fails_around_the_routes_is_a_problem_with_an_id_and_on_record(
    service: Service, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def breaks(_rates: Any) -> None:
        raise ZeroDivisionError("secret of the inside")

    monkeypatch.setattr(service.gates.rates.rates, "take", breaks)
    mine, other = service.ask(key(service), key(service, "b"))
    for answer in (mine, other):
        assert (answer.status, answer.headers["content-type"]) == (500, "application/problem+json")
    assert mine.headers["x-request-id"] != other.headers["x-request-id"]
    assert [(entry.tenant_id, entry.status) for entry in service.audit.entries] == [("a", 500), ("b", 500)]
    assert [entry.request_id for entry in service.audit.entries] == [one.headers["x-request-id"] for one in (mine, other)]
    assert [record.exc_info is not None for record in caplog.records if record.levelname == "ERROR"] == [True, True]


def test_an_answer_that_fails_after_it_began_is_cut_off() -> None:
    sent: list[Any] = []

    async def half(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise ZeroDivisionError

    async def keep(message: Any) -> None:
        sent.append(message)

    with pytest.raises(ZeroDivisionError):
        asyncio.run(RequestId(half)({"type": "http", "headers": []}, cast(Any, None), keep))
    assert [message["type"] for message in sent] == ["http.response.start"]


def test_tokens_count_against_their_key(database: Database, clock: SetClock) -> None:
    service = Service(database, clock, Plan(), requests_per_second=1)
    identity = service.gates.identifier.identify(key(service))
    assert identity.tenant is not None
    tokens = [service.tokens.issue_for(identity.tenant, _wish())[0] for _ in range(6)]
    assert [answer.status for answer in service.ask(*tokens)] == [200] * 5 + [429]


def test_what_a_request_turned_out_to_weigh_is_paid_by_the_next(database: Database, clock: SetClock) -> None:
    service = Service(database, clock, Plan(), requests_per_second=2, rate_tokens=100)
    service.weighs = 1000
    assert [answer.status for answer in service.ask(*[key(service)] * 2)] == [200, 429]
    assert [answer.status for answer in service.ask(key(service, "b"))] == [200]


def test_a_class_has_a_rate_of_its_own(database: Database, clock: SetClock) -> None:
    service = Service(database, clock, Plan(), class_requests_per_second={"query": 1})
    mine = key(service)
    assert [answer.status for answer in service.ask(mine, mine)] == [200, 429]
    assert [answer.status for answer in service.ask(mine, mine, method="GET")] == [200, 200]


def test_refusals_for_asking_too_fast_are_recorded_once_and_counted(
    database: Database, clock: SetClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = Service(database, clock, Plan(requests_per_second=0.001, burst=1))
    mine = key(service)
    service.ask(*[mine] * 100)
    assert [entry.status for entry in service.audit.entries] == [200, 429]
    monkeypatch.setattr("api.middleware.audit.time.monotonic", lambda: 10**9)
    service.ask(mine)
    assert service.audit.entries[-1].detail == {"refused_before": 98}
    assert service.reached == 1


@pytest.mark.parametrize(
    ("trusted", "peer", "forwarded", "caller"),
    [
        ((), "10.0.0.1", "192.0.2.9", "10.0.0.1"),
        (("10.0.0.0/8",), "192.0.2.7", "192.0.2.9", "192.0.2.7"),
        (("10.0.0.0/8",), "10.0.0.1", "192.0.2.9", "192.0.2.9"),
        (("10.0.0.0/8",), "10.0.0.1", "203.0.113.5, 192.0.2.9, 10.0.0.2", "192.0.2.9"),
        (("10.0.0.0/8",), "10.0.0.1", "192.0.2.9, nonsense", "10.0.0.1"),
        (("10.0.0.0/8",), "10.0.0.1", "10.0.0.3", "10.0.0.3"),
        (("10.0.0.0/8",), "10.0.0.1", None, "10.0.0.1"),
        (("::1",), "::1", "2001:db8::5", "2001:db8::5"),
    ],
)
def test_a_header_counts_as_far_as_trusted_proxies_wrote_it(
    trusted: tuple[str, ...], peer: str, forwarded: str | None, caller: str
) -> None:
    headers = [] if forwarded is None else [(b"x-forwarded-for", forwarded.encode())]
    assert TrustedProxies(trusted).caller({"client": (peer, 1), "headers": headers}) == caller


def test_a_key_with_addresses_is_refused_whatever_a_header_says(service: Service) -> None:
    bound = key(service, allowed_addresses=["203.0.113.5"])
    assert [answer.status for answer in service.ask(bound, forwarded="203.0.113.5")] == [401]
    assert [answer.status for answer in service.ask(bound, address="203.0.113.5")] == [200]


@pytest.mark.parametrize(
    ("standing", "read_only", "changes", "refusal"),
    [
        (ACTIVE, False, True, None),
        (ACTIVE, True, False, None),
        (ACTIVE, True, True, Forbidden),
        (Standing(True, True), False, False, None),
        (Standing(True, True), False, True, TenantSuspended),
        (Standing(True, False), False, False, TenantSuspended),
    ],
)
def test_who_is_suspended_or_may_only_read(
    standing: Standing, read_only: bool, changes: bool, refusal: type[CarrelError] | None
) -> None:
    identity = Identity(Principal(PrincipalKind.KEY, "k", frozenset({Scope.QUERY}), "k", read_only), None, standing)
    if refusal is None:
        require(identity, Scope.QUERY, reads=not changes)
        return
    with pytest.raises(refusal) as refused:
        require(identity, Scope.QUERY, reads=not changes)
    assert type(refused.value) is refusal
