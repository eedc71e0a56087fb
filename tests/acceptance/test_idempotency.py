"""Requests that come again, over a running service: one effect, one answer, and no mixing of tenants, routes or bodies."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest
from sqlmodel import col, select

from config.clock import system_clock
from config.database import Database
from tenants.audit.record import AuditLog
from tenants.tables import IdempotencyRecord, LedgerEntry
from tests.changes import CHANGES, Change, post
from tests.support import Service

AT_ONCE, FEW = 64, 8
EACH = [
    *[(kind, AT_ONCE if kind in ("document", "turns") else FEW) for kind in CHANGES],
    *[pytest.param(kind, AT_ONCE, marks=pytest.mark.full) for kind in CHANGES if kind not in ("document", "turns")],
]


@dataclass
class Stand:
    service: Service
    database: Database

    def tenant(self, **settings: Any) -> tuple[str, str]:
        """A new tenant's name and the secret of a key with all scopes."""
        name, _ = self.service.tenant(**settings)
        return name, self.service.key(name)

    @property
    def operator(self) -> str:
        return (self.service.data_dir / "operator.key").read_text().strip()

    def post(self, credential: str, path: str, key: str | None, **options: Any) -> httpx2.Response:
        return post(self.service.url, credential, path, key, options)

    def change(self, change: Change, tenant: tuple[str, str], name: str, key: str) -> httpx2.Response:
        change.prepare(self.database, tenant[0], name)
        path, options = change.send(tenant[0], name)
        return self.post(self.operator if change.operator else tenant[1], path, key, **options)


@pytest.fixture
def stand(quick: Service) -> Iterator[Stand]:
    database = Database(f"sqlite:///{quick.data_dir / 'carrel.db'}")
    yield Stand(quick, database)
    database.close()


def fresh(prefix: str = "n") -> str:
    return f"{prefix}-{uuid.uuid4().hex[:12]}"


def replayed(response: httpx2.Response) -> bool:
    return response.headers.get("idempotent-replayed") == "true"


@pytest.mark.parametrize(("kind", "count"), EACH)
def test_many_at_once_have_one_effect_and_get_equal_answers(stand: Stand, kind: str, count: int) -> None:
    change, tenant, name, key = CHANGES[kind], stand.tenant(), fresh(), fresh("key")
    with ThreadPoolExecutor(count) as pool:
        answers = list(pool.map(lambda _: stand.change(change, tenant, name, key), range(count)))
    assert {answer.status_code for answer in answers} == {change.status}, answers[0].text
    assert len({answer.content for answer in answers}) == 1
    assert len({answer.headers["content-type"] for answer in answers}) == 1
    assert sum(not replayed(answer) for answer in answers) == 1
    effects = change.effects(stand.database, name)
    assert effects == [1] * len(effects)


#: Another body for a path that names what it changes.
OTHERWISE: dict[str, dict[str, Any]] = {
    "turns": {"turns": [{"role": "user", "content": "goodbye"}]},
    "fork": {"title": "another"},
    "attached": {"text": "Another text."},
    "batch": {"attributes": {"shelf": 7}},
    "token": {"scopes": ["ingest"]},
    "rotation": {"overlap_seconds": 61},
}


@pytest.mark.parametrize("kind", CHANGES)
def test_the_same_key_with_another_body_is_refused_and_changes_nothing(stand: Stand, kind: str) -> None:
    change, tenant, name, key = CHANGES[kind], stand.tenant(), fresh(), fresh("key")
    assert stand.change(change, tenant, name, key).status_code == change.status
    before = change.effects(stand.database, name)
    other = name if kind in OTHERWISE else fresh()
    path, options = change.send(tenant[0], other)
    if kind in OTHERWISE:
        options["json"] |= OTHERWISE[kind]
    refused = stand.post(stand.operator if change.operator else tenant[1], path, key, **options)
    problem = refused.json()
    told = problem.get("error", problem)  # of OpenAI's shape
    assert (told["code"], told.get("field", told.get("param"))) == ("idempotency_key_reused", "Idempotency-Key")
    assert refused.status_code == (400 if "error" in problem else 422)
    assert change.effects(stand.database, name) == before
    assert other == name or not any(change.effects(stand.database, other))


@pytest.mark.parametrize("kind", ["document", "file", "collection"])
def test_another_tenants_same_key_is_its_own(stand: Stand, kind: str) -> None:
    change, key = CHANGES[kind], fresh("key")
    names = fresh(), fresh()
    answers = [stand.change(change, stand.tenant(), name, key) for name in names]
    assert [answer.status_code for answer in answers] == [change.status] * 2
    assert not any(replayed(answer) for answer in answers)
    for name in names:
        effects = change.effects(stand.database, name)
        assert effects == [1] * len(effects)


def test_another_route_and_another_operator_are_their_own(stand: Stand) -> None:
    tenant, key = stand.tenant(), fresh("key")
    for kind in ("document", "collection", "tenant", "key", "token"):
        answer = stand.change(CHANGES[kind], tenant, fresh(), key)
        assert (answer.status_code, replayed(answer)) == (CHANGES[kind].status, False)


def test_a_refusal_is_a_result_and_is_replayed_even_when_it_would_succeed_now(stand: Stand) -> None:
    name, secret = stand.tenant(monthly_tokens=0)
    missing, poor = {"text": "x", "collection": "later"}, {"text": "poor"}
    first = [
        stand.post(secret, "/v1/documents", "missing", json=missing),
        stand.post(secret, "/v1/documents", "poor", json=poor),
    ]
    assert [(one.status_code, one.json()["code"]) for one in first] == [(404, "not_found"), (402, "budget_exhausted")]
    stand.service.client(secret).collections.create(name="later")
    with stand.service.admin as admin:
        admin.admin.tenants.update(name, monthly_tokens=None)
    again = [
        stand.post(secret, "/v1/documents", "missing", json=missing),
        stand.post(secret, "/v1/documents", "poor", json=poor),
    ]
    assert [one.content for one in again] == [one.content for one in first]
    assert all(replayed(one) and one.headers["content-type"] == "application/problem+json" for one in again)
    assert stand.post(secret, "/v1/documents", "another", json=missing).status_code == 202


def test_a_conflict_is_replayed(stand: Stand) -> None:
    _, secret = stand.tenant()
    stand.post(secret, "/v1/collections", None, json={"name": "taken"})
    answers = [stand.post(secret, "/v1/collections", "again", json={"name": "taken"}) for _ in range(2)]
    assert [(answer.status_code, replayed(answer)) for answer in answers] == [(409, False), (409, True)]


@pytest.mark.parametrize(
    "broken",
    [
        {"json": {"unknown": 1}},
        {"json": {"name": "not a name"}},
        {"content": b"{broken", "headers": {"content-type": "application/json"}},
    ],
    ids=["shape", "value", "syntax"],
)
def test_a_request_that_is_not_valid_gives_its_key_back(stand: Stand, broken: dict[str, Any]) -> None:
    _, secret = stand.tenant()
    assert stand.post(secret, "/v1/collections", "mended", **broken).status_code in (400, 422)
    mended = stand.post(secret, "/v1/collections", "mended", json={"name": "valid"})
    assert (mended.status_code, replayed(mended)) == (201, False)


def test_a_form_that_cannot_be_parsed_gives_its_key_back(stand: Stand) -> None:
    _, secret = stand.tenant()
    broken = {"content": b"no form", "headers": {"content-type": "multipart/form-data; boundary=missing"}}
    assert stand.post(secret, "/v1/documents", "mended", **broken).status_code in (400, 422)
    assert stand.post(secret, "/v1/documents", "mended", files={"file": ("a.txt", b"text")}).status_code == 202


@pytest.mark.parametrize("key", ["", "x" * 256, "é", "a\tb"], ids=["empty", "long", "letter", "control"])
@pytest.mark.parametrize("path", ["/v1/collections", "/v1/query"])
def test_what_is_no_key_is_refused_by_name(stand: Stand, key: str, path: str) -> None:
    _, secret = stand.tenant()
    headers = {"Authorization": f"Bearer {secret}".encode(), "Idempotency-Key": key.encode("latin-1")}
    refused = httpx2.post(stand.service.url + path, headers=headers, json={"name": "x"} if "coll" in path else {"query": "x"})
    assert refused.status_code == 422
    problem = refused.json()
    assert (problem["code"], problem["field"], problem["limit"]) == ("invalid_input", "Idempotency-Key", 255)


def test_the_longest_key_with_every_character_works(stand: Stand) -> None:
    _, secret = stand.tenant()
    key = ("".join(map(chr, range(33, 127))) * 3)[:254] + "~"
    answers = [stand.post(secret, "/v1/collections", key, json={"name": "x"}) for _ in range(2)]
    assert [replayed(answer) for answer in answers] == [False, True]


def test_two_keys_at_once_are_refused(stand: Stand) -> None:
    _, secret = stand.tenant()
    headers = [("Authorization", f"Bearer {secret}"), ("Idempotency-Key", "a"), ("Idempotency-Key", "b")]
    assert httpx2.post(f"{stand.service.url}/v1/collections", headers=headers, json={"name": "x"}).status_code == 422


def test_a_key_with_other_bounds_is_not_shown_the_answer(stand: Stand) -> None:
    name, secret = stand.tenant()
    body = {"text": "For everybody.", "labels": []}
    assert stand.post(secret, "/v1/documents", "shared", json=body).status_code == 202
    bounded = stand.service.key(name, "ingest", collections=["other"])
    assert stand.post(bounded, "/v1/documents", "shared", json=body).json()["code"] == "idempotency_key_reused"
    equal = stand.service.key(name, "ingest")
    assert replayed(stand.post(equal, "/v1/documents", "shared", json=body))


def test_the_scope_is_checked_before_anything_is_replayed(stand: Stand) -> None:
    name, secret = stand.tenant()
    stand.post(secret, "/v1/collections", "mine", json={"name": "x"})
    reader = stand.service.key(name, "query")
    assert stand.post(reader, "/v1/collections", "mine", json={"name": "x"}).status_code == 403


def test_a_long_or_strange_path_has_its_own_results(stand: Stand) -> None:
    for tenant in ("x" * 4000, "%00%ff%e2%98%83"):
        path = f"/v1/admin/tenants/{tenant}/tokens"
        answers = [stand.post(stand.operator, path, fresh("key"), json={"scopes": ["query"]}) for _ in range(2)]
        assert all(answer.status_code in (404, 422) for answer in answers)


def test_the_stored_answer_of_a_new_key_does_not_hold_its_secret_in_the_clear(stand: Stand) -> None:
    tenant, key = stand.tenant(), fresh("key")
    secret = stand.change(CHANGES["key"], tenant, fresh(), key).json()["secret"]
    again = stand.post(secret, "/v1/query", None, json={"query": "does it open?"})
    assert again.status_code == 200
    with stand.database.system_read() as session:
        row = session.scalars(select(IdempotencyRecord).where(col(IdempotencyRecord.key) == key)).one()
    assert row.tenant_id is None
    assert row.owner.startswith("operator:key_")
    assert row.response is not None
    assert secret.encode() not in row.response


def test_a_query_with_a_key_is_charged_under_it_and_answered_anew(stand: Stand) -> None:
    name, secret = stand.tenant()
    client = stand.service.client(secret)
    submitted = client.documents.create(text="The lamps are lit at dusk.")
    submitted.wait()
    with stand.service.admin as admin:
        tenant_id = admin.admin.tenants.get(name).id

    def charges() -> list[str]:
        mine = col(LedgerEntry.tenant_id) == tenant_id, col(LedgerEntry.operation) == "query"
        with stand.database.system_read() as session:
            return [*session.scalars(select(col(LedgerEntry.id)).where(*mine))]

    question = {"query": f"when are the lamps lit? {fresh()}"}
    first = stand.post(secret, "/v1/query", "q", json=question)
    assert (first.status_code, len(first.json()["passages"])) == (200, 1)
    (charge,) = charges()
    assert re.fullmatch(r"charge_[0-9a-f]{64}", charge), "not derived from the key, so a repetition would be charged again"
    client.documents.delete(submitted.document.id)
    again = stand.post(secret, "/v1/query", "q", json=question)
    assert (again.status_code, again.json()["passages"], replayed(again)) == (200, [], False)
    stand.post(secret, "/v1/query", "q", json={"query": fresh("other")})
    assert len(charges()) == 2


def test_a_replay_is_on_record_as_one(stand: Stand) -> None:
    name, secret = stand.tenant()
    for _ in range(2):
        stand.post(secret, "/v1/collections", "audited", json={"name": "x"})
    with stand.service.admin as admin:
        tenant_id = admin.admin.tenants.get(name).id
    entries = AuditLog(stand.database, system_clock).of(tenant_id)
    assert [entry.detail for entry in entries if entry.action == "POST /v1/collections"] == [{"replayed": True}, {}]
