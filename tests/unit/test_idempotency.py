"""The store of first results: one claim for each key, a fence against slow owners, and nothing of another tenant."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

import pytest
from sqlalchemy.orm import Session
from sqlmodel import select

from config.database import Database
from config.errors import IdempotencyInProgress, IdempotencyKeyReused, NotFound
from config.settings_limits import LimitSettings
from config.vault import CannotOpen, Vault
from tenants import idempotency
from tenants.idempotency import KEEP_S, LEASE_S, Call, Claim, IdempotencyStore, Result
from tenants.registry import TenantRegistry
from tenants.tables import IdempotencyRecord, Tenant
from tests.support import FakeScope
from tests.unit.conftest import SetClock

CALL = Call("a", "a", "POST /v1/things", "key-1", b"digest")
OPERATOR = replace(CALL, owner="operator:key_1", tenant_id=None)
DONE = Result(201, b'{"secret":"s3cret"}')
MASTER = bytes(range(32))


@pytest.fixture
def store(database: Database, clock: SetClock) -> IdempotencyStore:
    return IdempotencyStore(database, clock, Vault([MASTER]))


def claimed(store: IdempotencyStore, call: Call = CALL) -> Claim:
    claim = store.claim(call)
    assert isinstance(claim, Claim)
    return claim


def records(database: Database) -> list[IdempotencyRecord]:
    with database.system_read() as session:
        return [*session.scalars(select(IdempotencyRecord))]


def tenants_named(database: Database, name: str) -> int:
    with database.system_read() as session:
        return len(session.scalars(select(Tenant).where(Tenant.name == name)).all())


@pytest.mark.parametrize("call", [CALL, OPERATOR], ids=["tenant", "operator"])
def test_the_first_claims_others_wait_and_then_get_its_result(store: IdempotencyStore, call: Call) -> None:
    claim = claimed(store, call)
    assert store.claim(call) is None
    assert store.finish(claim, DONE) == DONE
    assert store.claim(call) == DONE
    assert store.finish(claim, Result(500, b"later")) == DONE


def test_what_was_retracted_is_neither_told_nor_done_again(
    store: IdempotencyStore, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idempotency, "PURGE_ROWS", 2)
    monkeypatch.setattr(idempotency, "_OF_SUBJECT", idempotency._OF_SUBJECT.limit(2))
    anns = [replace(CALL, subject="ann", key=f"key-{number}") for number in range(5)]
    others = [
        replace(anns[0], **other)
        for other in ({"subject": "bob", "key": "x"}, {"route": "y"}, {"owner": "b", "tenant_id": "b"})
    ]
    for number, call in enumerate((*anns, *others)):
        store.finish(claimed(store, call), Result(201, b'{"id":"mem_%d"}' % (number % 4)))
    with database.write(FakeScope("a")) as session:
        store.retract(session, "a", route=CALL.route, subject="ann", names=["mem_0", "mem_3"])
    for number, call in enumerate(anns):
        if number in (0, 3, 4):
            with pytest.raises(NotFound, match="deleted since"):
                store.claim(call)
            with pytest.raises(IdempotencyKeyReused):
                store.claim(replace(call, body_sha256=b"other"))
        else:
            assert store.claim(call) == Result(201, b'{"id":"mem_%d"}' % number)
    assert {type(store.claim(call)) for call in others} == {Result}
    assert [row.response for row in records(database)].count(None) == 3


@pytest.mark.parametrize(
    "other",
    [
        replace(CALL, owner="b", tenant_id="b", body_sha256=b"other"),
        replace(OPERATOR, body_sha256=b"other"),
        replace(CALL, route="POST /v1/others", body_sha256=b"other"),
        replace(CALL, key="key-2", body_sha256=b"other"),
    ],
    ids=["tenant", "operator", "route", "key"],
)
def test_another_tenant_route_or_key_is_another_call(store: IdempotencyStore, other: Call) -> None:
    store.finish(claimed(store), DONE)
    claimed(store, other)
    assert store.claim(CALL) == DONE


def test_operators_keys_are_their_own(store: IdempotencyStore) -> None:
    store.finish(claimed(store, OPERATOR), DONE)
    claimed(store, replace(OPERATOR, owner="operator:key_2"))


@pytest.mark.parametrize("finished", [True, False])
def test_a_key_stands_for_one_body(store: IdempotencyStore, finished: bool) -> None:
    claim = claimed(store)
    if finished:
        store.finish(claim, DONE)
    with pytest.raises(IdempotencyKeyReused) as refused:
        store.claim(replace(CALL, body_sha256=b"other"))
    assert (refused.value.status, refused.value.field) == (422, "Idempotency-Key")


def test_what_was_released_can_be_claimed_again_even_with_another_body(store: IdempotencyStore) -> None:
    store.release(claimed(store))
    claimed(store, replace(CALL, body_sha256=b"mended"))


def test_a_release_touches_neither_a_result_nor_anothers_claim(store: IdempotencyStore, clock: SetClock) -> None:
    first = claimed(store)
    clock.now += LEASE_S * 1000 + 1
    second = claimed(store)
    store.release(first)
    assert store.claim(CALL) is None
    store.finish(second, DONE)
    store.release(second)
    assert store.claim(CALL) == DONE


def test_a_claim_without_a_result_is_taken_over_when_its_lease_ran_out(
    store: IdempotencyStore, database: Database, clock: SetClock
) -> None:
    slow = claimed(store)
    clock.now += LEASE_S * 1000
    assert store.claim(CALL) is None
    clock.now += 1
    quick = claimed(store)
    assert store.claim(CALL) is None
    assert records(database)[0].created_at == clock.now, "a day counts from the try that gave the result"

    def record(session: Session, _tenant: Tenant) -> None:
        store.record(session, slow, DONE)

    with pytest.raises(IdempotencyInProgress):  # and its effect is undone
        TenantRegistry(database, clock).create("slow", monthly_tokens=None, record=record)
    assert tenants_named(database, "slow") == 0
    with pytest.raises(IdempotencyInProgress):
        store.finish(slow, DONE)
    assert store.finish(quick, DONE) == DONE


def test_effect_and_result_are_one_transaction(store: IdempotencyStore, database: Database, clock: SetClock) -> None:
    claim, registry = claimed(store, OPERATOR), TenantRegistry(database, clock)

    def fails(session: Session, _tenant: Tenant) -> None:
        store.record(session, claim, DONE)
        raise ZeroDivisionError

    def works(session: Session, _tenant: Tenant) -> None:
        store.record(session, claim, DONE)

    with pytest.raises(ZeroDivisionError):
        registry.create("once", monthly_tokens=None, record=fails)
    assert tenants_named(database, "once") == 0
    assert store.claim(OPERATOR) is None
    registry.create("once", monthly_tokens=None, record=works)
    with pytest.raises(IdempotencyInProgress):
        registry.create("twice", monthly_tokens=None, record=works)
    assert (tenants_named(database, "once"), tenants_named(database, "twice")) == (1, 0)
    assert store.claim(OPERATOR) == DONE


def test_a_result_is_sealed_and_opens_for_its_own_call_only(store: IdempotencyStore, database: Database) -> None:
    for call in (CALL, replace(CALL, owner="b", tenant_id="b")):
        store.finish(claimed(store, call), DONE)
    (mine, theirs) = sorted(records(database), key=lambda row: row.owner)
    assert mine.response is not None
    assert b"s3cret" not in mine.response
    with database.system_write() as session:
        theirs.response = mine.response
        session.add(theirs)
    with pytest.raises(CannotOpen):
        store.claim(replace(CALL, owner="b", tenant_id="b"))


def run_together(work: Callable[[int], None], threads: int) -> None:
    started = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join()


@pytest.mark.parametrize("lapsed", [False, True], ids=["fresh", "lapsed"])
def test_of_many_at_once_one_claims(store: IdempotencyStore, clock: SetClock, lapsed: bool) -> None:
    if lapsed:
        claimed(store)
        clock.now += LEASE_S * 1000 + 1
    found: list[object] = []
    run_together(lambda _: found.append(store.claim(CALL)), 32)
    assert len(found) == 32
    assert [claim for claim in found if claim is not None] == [claim for claim in found if isinstance(claim, Claim)]
    assert sum(claim is not None for claim in found) == 1


def test_results_are_kept_for_a_day_and_deleted_in_bounded_pages(
    store: IdempotencyStore, database: Database, clock: SetClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    hour = 3600 * LimitSettings().requests_per_second
    assert hour <= idempotency.PURGE_ROWS * idempotency.PURGE_PAGES, "as many as one key can make until the next call"
    monkeypatch.setattr(idempotency, "PURGE_ROWS", 3)
    monkeypatch.setattr(idempotency, "PURGE_PAGES", 2)
    for number in range(8):
        call = replace(CALL if number % 2 else OPERATOR, key=f"key-{number}")
        store.finish(claimed(store, call), DONE)
    clock.now += 24 * 3600 * 1000
    assert store.purge() == 0
    store.finish(claimed(store, replace(CALL, key="young")), DONE)
    clock.now += (KEEP_S - 24 * 3600) * 1000 + 1
    assert [store.purge(), store.purge(), store.purge()] == [6, 2, 0]
    assert [row.key for row in records(database)] == ["young"]
