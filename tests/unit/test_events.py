"""Events: written with the change, in the order of the commits, once, and shown to their tenant only."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from sqlmodel import col, select

from config.database import Database
from config.errors import BudgetExhausted, Conflict, InvalidInput
from tenants import events
from tenants.context import Scope
from tenants.events import DAY_MS, EventLog, TenantEvents, emit, emit_once
from tenants.identity.keys import KeyRing
from tenants.ledger.budget import Ledger
from tenants.registry import TenantRegistry
from tenants.tables import Event
from tests.support import FakeScope
from tests.unit.conftest import NOON, SetClock

A, B = FakeScope("a"), FakeScope("b")


@pytest.fixture
def log(database: Database, clock: SetClock) -> EventLog:
    return EventLog(database, clock)


def _say(database: Database, clock: SetClock, scope: FakeScope, *names: str) -> None:
    for name in names:
        with database.write(scope) as session:
            emit(session, clock, scope.tenant_id, name, f"subject of {name}", count=1)


def _types(handle: TenantEvents, **options: str) -> list[str]:
    """All pages of the list, one event on each but the last."""
    found: list[str] = []
    after = options.pop("after", None)
    while True:
        page, after = handle.list(after=after, limit=1, **options)
        found += [event.type for event in page]
        if after is None:
            return found


def test_a_tenant_reads_its_own_events_in_order(database: Database, clock: SetClock, log: EventLog) -> None:
    _say(database, clock, A, "document.queued", "job.queued")
    _say(database, clock, B, "document.queued")
    _say(database, clock, A, "document.live")
    assert _types(log.for_tenant(A)) == ["document.queued", "job.queued", "document.live"]
    assert _types(log.for_tenant(B)) == ["document.queued"]
    (event,) = log.for_tenant(B).list(limit=10)[0]
    assert (event.subject, event.data, event.at) == ("subject of document.queued", {"count": 1}, NOON)


def test_a_reader_goes_on_behind_the_last_event_it_has(database: Database, clock: SetClock, log: EventLog) -> None:
    _say(database, clock, A, "one", "two")
    (_, last), following = log.for_tenant(A).list(limit=10)
    assert following is None
    assert log.for_tenant(A).list(after=last.id, limit=10) == ([], None)
    _say(database, clock, A, "three")
    assert _types(log.for_tenant(A), after=last.id) == ["three"]


def test_a_foreign_cursor_is_as_unknown_as_a_missing_one(database: Database, clock: SetClock, log: EventLog) -> None:
    _say(database, clock, A, "one")
    (mine,), _ = log.for_tenant(A).list(limit=1)
    details = []
    for cursor in (mine.id, "evt_none"):
        with pytest.raises(InvalidInput) as refused:
            log.for_tenant(B).list(after=cursor, limit=1)
        details.append((refused.value.detail, refused.value.field))
    assert details[0] == details[1]


def test_types_are_told_apart_by_their_beginning(database: Database, clock: SetClock, log: EventLog) -> None:
    _say(database, clock, A, "document.queued", "job.queued", "document.live", "documents.other")
    _say(database, clock, B, "document.foreign")
    handle = log.for_tenant(A)
    assert _types(handle, type="document.") == ["document.queued", "document.live"]
    assert _types(handle, type="document.live") == ["document.live"]
    assert _types(handle, type="key.") == []
    for odd in ("%", "document%", "Document.", "a.b.c", "", " "):
        with pytest.raises(InvalidInput):
            handle.list(type=odd, limit=1)
    assert _types(handle, type="_") == [], "an underscore is a character, not a pattern"


def test_a_page_of_a_rare_type_looks_at_so_many_events(
    database: Database, clock: SetClock, log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    _say(database, clock, A, "key.made", *["document.live"] * 7, "key.made", "document.live", "key.revoked", "document.live")
    _say(database, clock, B, "key.made")
    for scanned in (1, 3, 4, 12, 13, 100):
        monkeypatch.setattr(events, "SCANNED", scanned)
        assert _types(log.for_tenant(A), type="key.") == ["key.made", "key.made", "key.revoked"]
        assert _types(log.for_tenant(A), type="budget.") == []
    monkeypatch.setattr(events, "SCANNED", 4)
    page, following = log.for_tenant(A).list(type="key.", limit=10)
    assert len(page) == 1
    page, following = log.for_tenant(A).list(type="key.", after=following, limit=10)
    assert page == []
    assert following is not None
    assert len(log.for_tenant(A).list(limit=100)[0]) == 12, "without a type a page is full"


def test_an_event_exists_with_its_change_or_not_at_all(database: Database, clock: SetClock, log: EventLog) -> None:
    with suppress(RuntimeError), database.write(A) as session:
        emit(session, clock, "a", "document.live", "d")
        raise RuntimeError("the change fails")
    assert _types(log.for_tenant(A)) == []


def test_numbers_follow_the_order_of_commits_whoever_writes(tmp_path: Path, database: Database, clock: SetClock) -> None:
    """A reader that always goes on behind the last number it saw misses no event of any writer."""
    writers, turns = 8, 25
    stop, seen, handle = threading.Event(), [], EventLog(database, clock).for_tenant(A)

    def read() -> None:
        after = None
        while True:
            last_round = stop.is_set()
            page, _ = handle.list(after=after, limit=7)
            seen.extend(event.subject for event in page)
            after = page[-1].id if page else after
            if last_round and not page:
                return

    def write(writer: int) -> None:
        for turn in range(turns):
            with database.write(A if writer % 4 else B) as session:
                emit(session, clock, "a" if writer % 4 else "b", "document.live", f"{writer}:{turn}")
                emit(session, clock, "a" if writer % 4 else "b", "job.succeeded", f"{writer}:{turn}")

    reader = threading.Thread(target=read)
    reader.start()
    with ThreadPoolExecutor(writers) as pool:
        list(pool.map(write, range(writers)))
    stop.set()
    reader.join(60)
    expected = {f"{writer}:{turn}" for writer in range(writers) if writer % 4 for turn in range(turns)}
    assert len(seen) == 2 * len(expected)
    assert set(seen) == expected
    for writer in range(writers):
        own = [subject for subject in seen if subject.startswith(f"{writer}:")]
        assert own == sorted(own, key=lambda subject: int(subject.partition(":")[2]))


def test_what_is_said_once_is_said_once_to_each_tenant(database: Database, clock: SetClock, log: EventLog) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: emit_once(database, clock, A, "budget.exhausted", "2026-03"), range(16)))
    emit_once(database, clock, B, "budget.exhausted", "2026-03")
    emit_once(database, clock, A, "budget.exhausted", "2026-04")
    assert [event.subject for event in log.for_tenant(A).list(limit=10)[0]] == ["2026-03", "2026-04"]
    assert _types(log.for_tenant(B)) == ["budget.exhausted"]


def test_the_first_refusal_of_a_month_is_an_event(database: Database, clock: SetClock, log: EventLog) -> None:
    registry, ledger = TenantRegistry(database, clock), Ledger(database, clock, lease_s=60)
    registry.update("a", {"monthly_tokens": 10})
    meter = ledger.for_tenant(A, "ingest")
    meter.debit("fits", 10)
    assert _types(log.for_tenant(A), type="budget.exhausted") == []
    for refused in (lambda: meter.hold("h", 1), lambda: meter.debit("d", 1), meter.require):
        with pytest.raises(BudgetExhausted):
            refused()
    assert _types(log.for_tenant(A), type="budget.exhausted") == ["budget.exhausted"]
    clock.now += 31 * DAY_MS
    with pytest.raises(BudgetExhausted):
        meter.hold("h", 11)
    exhausted, _ = log.for_tenant(A).list(type="budget.exhausted", limit=10)
    assert [event.subject for event in exhausted] == ["embedding:2026-03", "embedding:2026-04"]
    assert _types(log.for_tenant(B)) == []


def test_tenants_and_their_budgets_tell_what_changed(database: Database, clock: SetClock, log: EventLog) -> None:
    registry = TenantRegistry(database, clock)
    tenant = registry.create("new", monthly_tokens=5)
    registry.update(tenant.id, {"monthly_tokens": None})
    registry.update(tenant.id, {"monthly_tokens": None})  # changes nothing
    with pytest.raises(Conflict):
        registry.create("new", monthly_tokens=None)
    told, _ = log.for_tenant(FakeScope(tenant.id)).list(limit=10)
    assert [(event.type, event.data) for event in told] == [
        ("tenant.created", {"monthly_tokens": 5}),
        ("tenant.updated", {"monthly_tokens": None, "plan": None}),
        ("budget.changed", {"old": 5, "new": None}),
    ]
    assert {event.subject for event in told} == {tenant.id}
    assert _types(log.for_tenant(A)) == []


def test_keys_are_told_of_when_made_and_when_revoked(database: Database, clock: SetClock, log: EventLog) -> None:
    keys = KeyRing(database, clock)
    key = keys.create("a", name="secret name", scopes=[Scope.QUERY])
    keys.create(None, name="operator", scopes=[Scope.OPERATE])
    for _ in range(2):
        keys.revoke(key.row.id)
    told, _ = log.for_tenant(A).list(limit=10)
    assert [(event.type, event.subject) for event in told] == [("key.created", key.row.id), ("key.revoked", key.row.id)]
    assert "secret" not in repr([event.data for event in told])
    with database.system_read() as session:
        assert len([*session.scalars(select(Event))]) == 2


def test_what_is_said_once_is_kept_for_as_long_as_it_could_be_said_again(
    database: Database, clock: SetClock, log: EventLog
) -> None:
    _say(database, clock, A, "one")
    for scope in (A, B):
        for said in events.ONCE:
            emit_once(database, clock, scope, said, "embedding:2026-03")
    clock.now += 31 * DAY_MS
    assert log.purge(1) == 1
    for said in events.ONCE:
        emit_once(database, clock, A, said, "embedding:2026-03")
    assert _types(log.for_tenant(A)) == _types(log.for_tenant(B)) == [*events.ONCE]
    clock.now += 2 * DAY_MS
    assert log.purge(1) == 6


def test_old_events_are_purged_page_by_page(
    database: Database, clock: SetClock, log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "PURGE_ROWS", 2)
    _say(database, clock, A, "one", "two", "three")
    _say(database, clock, B, "four", "five")
    clock.now += 10 * DAY_MS
    _say(database, clock, A, "young")
    clock.now += 25 * DAY_MS
    assert log.purge(30) == 5
    assert log.purge(30) == 0
    assert (_types(log.for_tenant(A)), _types(log.for_tenant(B))) == (["young"], [])
    with database.system_read() as session:
        assert len([*session.scalars(select(Event).order_by(col(Event.seq)))]) == 1
