"""The ledger: never over budget by one token, never charged twice, and its sums always add up."""

from __future__ import annotations

import datetime as dt
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from sqlalchemy.orm import Session
from sqlmodel import select

from config.database import Database
from config.errors import BudgetExhausted, Unavailable
from config.money import MAX_PRICE
from tenants.ledger.bounds import ceilings_of, kind_of
from tenants.ledger.budget import HELD, RELEASED, SETTLED, STARTED, UNSETTLED, Ledger, TenantMeter
from tenants.ledger.usage import UsageReader
from tenants.limits.plans import Limits
from tenants.registry import TenantRegistry
from tenants.tables import BudgetWindow, Event, LedgerEntry, Tenant, UsageDay
from tests.postgresql import database_url
from tests.support import FakeScope
from tests.tables import make_tables
from tests.unit.conftest import SetClock

A, B = FakeScope("a"), FakeScope("b")
LEASE_MS = 60_000


@pytest.fixture
def ledger(database: Database, clock: SetClock) -> Ledger:
    return Ledger(database, clock, lease_s=LEASE_MS // 1000)


@pytest.fixture
def meter(ledger: Ledger) -> TenantMeter:
    return ledger.for_tenant(A, "ingest")


def _limit(ledger: Ledger, tokens: int | None, tenant: str = "a") -> None:
    TenantRegistry(ledger.database, ledger.clock).update(tenant, {"monthly_tokens": tokens})


def _window(ledger: Ledger, scope: FakeScope = A) -> tuple[int, int]:
    """(used, held) of the current month"""
    usage = UsageReader(ledger.database, ledger.clock).of(scope)
    return usage.used, usage.held


def _state(ledger: Ledger, entry_id: str, scope: FakeScope = A) -> str | None:
    with ledger.database.read(scope) as session:
        entry = session.get(LedgerEntry, (scope.tenant_id, entry_id))
    return entry.state if entry else None


def _at(text: str) -> int:
    return int(dt.datetime.fromisoformat(text).timestamp() * 1000)


@pytest.mark.parametrize("kind", ["hold", "debit"])
def test_concurrent_takers_never_pass_the_limit_and_use_it_up(ledger: Ledger, kind: str) -> None:
    limit, size, takers = 1_000, 7, 32
    _limit(ledger, limit)

    def take(taker: int) -> int:
        meter, taken = ledger.for_tenant(A, kind), 0
        for turn in range(10):
            with suppress(BudgetExhausted):
                getattr(meter, kind)(f"{taker}:{turn}", size)
                taken += size
        return taken

    with ThreadPoolExecutor(takers) as pool:
        taken = sum(pool.map(take, range(takers)))
    assert taken == sum(_window(ledger)) == limit // size * size


def test_the_last_token_can_be_spent_and_not_one_more(ledger: Ledger, meter: TenantMeter) -> None:
    _limit(ledger, 10)
    meter.hold("h", 6)
    meter.debit("d", 4)
    for take in (meter.hold, meter.debit):
        with pytest.raises(BudgetExhausted) as refused:
            take("x", 1)
        assert (refused.value.field, refused.value.limit) == ("budget", 10)
    assert _state(ledger, "x") is None
    assert meter.remaining() == 0
    with pytest.raises(BudgetExhausted):
        meter.require()


def test_a_tenant_without_a_limit_has_no_end(ledger: Ledger, meter: TenantMeter) -> None:
    for number in range(5):
        meter.debit(f"d{number}", 2**31 - 1)
    meter.require()
    assert meter.remaining() is None
    assert _window(ledger) == (5 * (2**31 - 1), 0)


def test_a_limit_lowered_below_what_was_used_leaves_nothing(ledger: Ledger, meter: TenantMeter) -> None:
    meter.debit("d", 100)
    _limit(ledger, 50)
    assert meter.remaining() == 0
    with pytest.raises(BudgetExhausted):
        meter.debit("e", 1)


def test_two_tenants_use_the_same_ids_without_meeting(ledger: Ledger, meter: TenantMeter) -> None:
    other = ledger.for_tenant(B, "ingest")
    _limit(ledger, 10)
    assert meter.hold("h", 10)
    assert other.hold("h", 50)
    other.start("h")
    other.settle("h", 50)
    other.debit("d", 5)
    meter.refund("d")
    assert (_window(ledger, A), _window(ledger, B)) == ((0, 10), (55, 0))
    assert (_state(ledger, "h", A), _state(ledger, "h", B)) == (HELD, SETTLED)


def test_holding_again_under_the_same_id_reserves_once(ledger: Ledger, meter: TenantMeter) -> None:
    assert meter.hold("h", 10)
    assert meter.hold("h", 10)
    meter.start("h")
    assert meter.hold("h", 10)
    assert _window(ledger) == (0, 10)
    meter.settle("h", 10)
    assert not meter.hold("h", 10)
    assert _window(ledger) == (10, 0)


def test_concurrent_holds_under_one_id_reserve_once(ledger: Ledger) -> None:
    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(lambda _: ledger.for_tenant(A, "ingest").hold("h", 10), range(64)))
    assert _window(ledger) == (0, 10)


def test_settling_less_than_was_held_gives_the_rest_back(ledger: Ledger, meter: TenantMeter) -> None:
    meter.hold("h", 10)
    meter.start("h")
    meter.settle("h", 3)
    meter.settle("h", 3)
    assert _window(ledger) == (3, 0)


def test_settling_never_charges_more_than_was_held(ledger: Ledger, meter: TenantMeter) -> None:
    meter.hold("h", 10)
    meter.start("h")
    meter.settle("h", 99)
    assert _window(ledger) == (10, 0)


def test_a_released_hold_costs_nothing_and_can_be_held_again(ledger: Ledger, meter: TenantMeter) -> None:
    meter.hold("h", 10)
    meter.release("h")
    meter.release("h")
    assert (_window(ledger), _state(ledger, "h")) == ((0, 0), RELEASED)
    assert meter.hold("h", 4)
    assert _window(ledger) == (0, 4)


def test_what_was_never_held_cannot_be_started_or_settled(ledger: Ledger, meter: TenantMeter) -> None:
    meter.release("unknown")
    meter.hold("released", 1)
    meter.release("released")
    for entry in ("unknown", "released"):
        with pytest.raises(Unavailable):
            meter.start(entry)
    for settle in (lambda: meter.settle("unknown", 1), lambda: meter.settle_part("unknown", "p", 1)):
        with pytest.raises(RuntimeError):
            settle()
    assert _window(ledger) == (0, 0)


def test_of_two_calls_under_one_hold_the_one_that_was_made_is_charged(ledger: Ledger, meter: TenantMeter) -> None:
    """The other failed meanwhile and gave the hold back. What somebody else took of the budget since is not taken twice."""
    _limit(ledger, 10)
    other = ledger.for_tenant(A, "ingest")
    for name, end in (("whole", lambda: meter.settle("whole", 3)), ("parts", lambda: meter.settle_part("parts", "p", 2))):
        assert meter.hold(name, 4, started=True)
        assert other.hold(name, 4, started=True)
        other.release(name)
        assert end() == meter.charged(name) == (3 if name == "whole" else 2)
    assert meter.hold("late", 4, started=True)
    other.release("late")
    other.debit("others", 5)
    with pytest.raises(BudgetExhausted):
        meter.settle("late", 1)
    assert _window(ledger) == (10, 0)


def test_a_debit_that_another_call_relies_on_is_not_refunded(ledger: Ledger, meter: TenantMeter) -> None:
    other = ledger.for_tenant(A, "ingest")
    assert meter.debit("d", 10)
    assert (other.debit("d", 10), ledger.for_tenant(B, "ingest").keep("d"), other.keep("d")) == (False, False, True)
    assert not meter.refund("d")
    assert (_window(ledger), other.keep("unknown"), other.keep("d")) == ((10, 0), False, True)


def test_a_debit_under_the_same_id_is_taken_once(ledger: Ledger, meter: TenantMeter) -> None:
    meter.debit("d", 10)
    meter.debit("d", 10)
    assert _window(ledger) == (10, 0)


def test_what_comes_with_a_debit_is_in_its_transaction(ledger: Ledger, meter: TenantMeter) -> None:
    def refuse(_session: Session) -> None:
        raise BudgetExhausted("the session has none left")

    inside = list[bool]()
    _limit(ledger, 10)
    assert meter.debit_with("d", 4, lambda session: inside.append(session.in_transaction()))
    assert not meter.debit_with("d", 4, refuse)  # charged before: nothing is done again
    with pytest.raises(BudgetExhausted, match="session"):
        meter.debit_with("e", 4, refuse)
    assert (inside, meter.charged("e"), _window(ledger)) == ([True], 0, (4, 0))
    with pytest.raises(BudgetExhausted, match="month"):
        meter.debit_with("f", 7, lambda session: session.add(_note("f")))
    with ledger.database.read(A) as session:
        assert session.get(LedgerEntry, ("a", "note of f")) is None


def _note(name: str) -> LedgerEntry:
    words = {"tenant_id": "a", "id": f"note of {name}", "day": "2026-01-01", "operation": "query", "state": SETTLED}
    return LedgerEntry(**words, tokens=0, price=0, cost=0, created_at=0)


def test_a_refund_gives_back_once(ledger: Ledger, meter: TenantMeter) -> None:
    meter.debit("d", 10)
    meter.refund("d")
    meter.refund("d")
    assert _window(ledger) == (0, 0)
    meter.debit("d", 10)
    assert _window(ledger) == (10, 0)


def test_an_expired_hold_is_returned(ledger: Ledger, meter: TenantMeter, clock: SetClock) -> None:
    meter.hold("h", 10)
    clock.now += LEASE_MS
    assert ledger.sweep() == 0
    clock.now += 1
    assert ledger.sweep() == 1
    assert ledger.sweep() == 0
    assert (_window(ledger), _state(ledger, "h")) == ((0, 0), RELEASED)


def test_an_expired_hold_whose_call_had_begun_is_charged(ledger: Ledger, meter: TenantMeter, clock: SetClock) -> None:
    meter.hold("h", 10)
    meter.start("h")
    clock.now += LEASE_MS + 1
    assert ledger.sweep() == 1
    assert (_window(ledger), _state(ledger, "h")) == ((10, 0), UNSETTLED)
    assert not meter.hold("h", 10)


def test_settling_or_releasing_after_the_sweep_does_not_charge_twice(
    ledger: Ledger, meter: TenantMeter, clock: SetClock
) -> None:
    for entry in ("settled", "released"):
        meter.hold(entry, 10)
        meter.start(entry)
    clock.now += LEASE_MS + 1
    assert ledger.sweep() == 2
    meter.settle("settled", 10)
    meter.release("released")
    assert _window(ledger) == (20, 0)
    assert (_state(ledger, "settled"), _state(ledger, "released")) == (SETTLED, UNSETTLED)


@pytest.mark.parametrize("renew", ["hold", "start"])
def test_a_renewed_lease_is_not_swept(ledger: Ledger, meter: TenantMeter, clock: SetClock, renew: str) -> None:
    meter.hold("h", 10)
    clock.now += LEASE_MS
    meter.hold("h", 10) if renew == "hold" else meter.start("h")
    clock.now += LEASE_MS
    assert ledger.sweep() == 0


def test_a_sweep_ends_the_holds_of_every_tenant(ledger: Ledger, meter: TenantMeter, clock: SetClock) -> None:
    meter.hold("h", 10)
    ledger.for_tenant(B, "ingest").hold("h", 20)
    clock.now += LEASE_MS + 1
    assert ledger.sweep() == 2
    assert _window(ledger, A) == _window(ledger, B) == (0, 0)


def test_a_new_month_starts_afresh(ledger: Ledger, meter: TenantMeter, clock: SetClock) -> None:
    _limit(ledger, 10)
    clock.now = _at("2026-03-31T23:59:59.999+00:00")
    meter.debit("d", 4)
    meter.hold("h", 6)
    meter.start("h")
    clock.now += 1
    assert _window(ledger) == (0, 0)
    meter.debit("next", 10)
    meter.settle("h", 5)  # belongs to the month in which it was held
    assert _window(ledger) == (10, 0)
    clock.now -= 1
    assert _window(ledger) == (9, 0)


def test_a_refund_after_midnight_corrects_the_day_of_the_charge(ledger: Ledger, meter: TenantMeter, clock: SetClock) -> None:
    clock.now = _at("2026-03-10T23:59:59.999+00:00")
    meter.debit("d", 4)
    clock.now += 1
    meter.refund("d")
    days = UsageReader(ledger.database, clock).of(A).days
    assert [(day.day, day.charged) for day in days] == [("2026-03-10", 0)]


def test_a_refund_after_the_months_end_goes_to_the_month_of_the_charge(
    ledger: Ledger, meter: TenantMeter, clock: SetClock
) -> None:
    clock.now = _at("2026-03-31T23:59:59.999+00:00")
    meter.debit("d", 4)
    clock.now += 1
    meter.debit("next", 7)
    meter.refund("d")
    assert _window(ledger) == (7, 0)
    clock.now -= 1
    assert _window(ledger) == (0, 0)


def test_usage_is_counted_by_day_and_operation(ledger: Ledger, clock: SetClock) -> None:
    for operation in ("query", "ingest"):
        meter = ledger.for_tenant(A, operation)
        meter.debit(operation, 3)
        meter.saved(2, 1)
    clock.now += 86_400_000
    ledger.for_tenant(A, "query").debit("later", 4)
    ledger.for_tenant(B, "query").debit("foreign", 99)
    days = UsageReader(ledger.database, clock).of(A).days
    assert [(day.day, day.operation, day.charged, day.cached, day.deduplicated) for day in days] == [
        ("2026-03-10", "ingest", 3, 2, 1),
        ("2026-03-10", "query", 3, 2, 1),
        ("2026-03-11", "query", 4, 0, 0),
    ]


def _account(row: LedgerEntry | UsageDay) -> tuple[str, ...]:
    return row.tenant_id, row.day, row.operation, row.key, row.collection


def _paid(entry: LedgerEntry) -> bool:
    return entry.state in (SETTLED, UNSETTLED)


class LedgerMachine(RuleBasedStateMachine):
    """Any order of calls, of two tenants and two kinds of tokens, with leases that run out, and days and months that end."""

    kind = "sqlite"
    entries = st.sampled_from(["h1", "h2", "h3"])
    scopes = st.sampled_from([A, B])
    amounts = st.integers(0, 8)
    operations = st.sampled_from(["ingest", "query", "llm"])
    named = st.sampled_from([f"{operation} h{number}" for operation in ("ingest", "query", "llm") for number in (1, 2, 3)])

    @initialize(day=st.integers(0, 20), month=st.integers(0, 40), micro_usd=st.sampled_from([None, 40, 90]))
    def open(self, day: int, month: int, micro_usd: int | None) -> None:
        self.folder = TemporaryDirectory()
        self.clock, self.told = SetClock(), set[tuple[str, str]]()
        self.limits = Limits(
            "test", embedding_tokens_day=day, embedding_tokens_month=month, llm_tokens_day=month, llm_micro_usd_month=micro_usd
        )
        self.opened = database_url(self.kind, Path(self.folder.name))
        database = Database(self.opened.__enter__())
        make_tables(database)
        with database.system_write() as session:
            session.add_all([Tenant(id=t, name=t, cache_salt=b"", created_at=0) for t in "ab"])
        self.ledger = Ledger(database, self.clock, lease_s=LEASE_MS // 1000, price=3, limits=lambda _: self.limits)

    @rule(price=st.sampled_from([0, 1, 7, MAX_PRICE]))
    def change_the_price(self, price: int) -> None:
        self.ledger = self.ledger.at(price)

    def _meter(self, scope: FakeScope, operation: str = "ingest") -> TenantMeter:
        return self.ledger.for_tenant(scope, operation, key=f"key of {operation}", collection="c")

    @rule(scope=scopes, entry=entries, operation=operations, tokens=amounts)
    def hold(self, scope: FakeScope, entry: str, operation: str, tokens: int) -> None:
        entry = f"{operation} {entry}"
        before = _state(self.ledger, entry, scope)
        with suppress(BudgetExhausted):
            assert self._meter(scope, operation).hold(entry, tokens) == (before not in (SETTLED, UNSETTLED))

    @rule(scope=scopes, entry=named)
    def start(self, scope: FakeScope, entry: str) -> None:
        with suppress(Unavailable):
            self._meter(scope).start(entry)

    @rule(scope=scopes, entry=named, tokens=amounts)
    def settle(self, scope: FakeScope, entry: str, tokens: int) -> None:
        with suppress(RuntimeError, BudgetExhausted):
            self._meter(scope).settle(entry, tokens)

    @rule(scope=scopes, entry=named, part=st.sampled_from(["p", "q"]), tokens=amounts)
    def settle_part(self, scope: FakeScope, entry: str, part: str, tokens: int) -> None:
        meter = self._meter(scope)
        before, known = meter.charged(entry), _state(self.ledger, f"{entry}/{part}", scope)
        with suppress(RuntimeError, BudgetExhausted):
            paid = meter.settle_part(entry, part, tokens)
            assert meter.charged(entry) == before + (paid if known is None else 0)
            assert _state(self.ledger, entry, scope) not in (HELD, STARTED)

    @rule(scope=scopes, cached=amounts, deduplicated=amounts)
    def save(self, scope: FakeScope, cached: int, deduplicated: int) -> None:
        self._meter(scope).saved(cached, deduplicated, hits=1)

    @rule(scope=scopes, entry=named)
    def release(self, scope: FakeScope, entry: str) -> None:
        self._meter(scope).release(entry)

    @rule(scope=scopes, entry=st.sampled_from(["d1", "d2"]), operation=operations, tokens=amounts)
    def debit(self, scope: FakeScope, entry: str, operation: str, tokens: int) -> None:
        with suppress(BudgetExhausted):
            self._meter(scope, operation).debit(f"{operation} {entry}", tokens)

    @rule(scope=scopes, entry=st.sampled_from(["d1", "d2"]))
    def refund(self, scope: FakeScope, entry: str) -> None:
        self._meter(scope).refund(f"ingest {entry}")

    @rule(scope=scopes, entry=st.sampled_from(["d1", "d2"]))
    def keep(self, scope: FakeScope, entry: str) -> None:
        self._meter(scope).keep(f"ingest {entry}")

    @rule(passes=st.sampled_from([1, LEASE_MS + 1, 43_200_000, 86_400_000, 31 * 86_400_000]))
    def sweep_later(self, passes: int) -> None:
        self.clock.now += passes
        self.ledger.sweep()

    @invariant()
    def windows_are_the_sums_of_their_entries(self) -> None:
        with self.ledger.database.system_read() as session:
            windows = session.scalars(select(BudgetWindow)).all()
            entries = session.scalars(select(LedgerEntry)).all()
            days = session.scalars(select(UsageDay)).all()
            events = session.scalars(select(Event).where(Event.type == "budget.warned")).all()
            told = [(event.tenant_id, event.subject) for event in events]
        for entry in entries:
            assert entry.cost == (entry.tokens * entry.price if entry.state in (SETTLED, UNSETTLED) else 0)
        for day in days:
            here = [e for e in entries if _account(e) == _account(day)]
            assert (day.charged, day.cost) == (sum(e.tokens for e in here if _paid(e)), sum(e.cost for e in here))
        assert {_account(entry) for entry in entries if _paid(entry) and entry.tokens} <= {*map(_account, days)}
        named = {(e.tenant_id, kind_of(e.operation), e.day[:to]) for e in entries for to in (7, 10)}
        assert named <= {(window.tenant_id, window.kind, window.period) for window in windows}
        for window in windows:
            here = [e for e in entries if (e.tenant_id, kind_of(e.operation)) == (window.tenant_id, window.kind)]
            self._check(window, [e for e in here if e.day.startswith(window.period)])
        assert sorted(told) == sorted(self.told)  # once for each window and step, and for no other

    def _check(self, window: BudgetWindow, entries: list[LedgerEntry]) -> None:
        """Against the entries of the window; and what is told of it by now."""
        month, day = ceilings_of(self.limits, window.kind)
        ceiling = month if len(window.period) == 7 else day
        held = [e for e in entries if e.state in (HELD, STARTED)]
        assert (window.held, window.held_cost) == (sum(e.tokens for e in held), sum(e.tokens * e.price for e in held))
        assert window.used == sum(e.tokens for e in entries if _paid(e))
        assert window.cost == sum(e.cost for e in entries)
        for bound, spent in ((ceiling.tokens, window.used + window.held), (ceiling.cost, window.cost + window.held_cost)):
            assert 0 <= spent <= (spent if bound.value is None else bound.value)
            steps = (step for step in (50, 75, 90, 100) if bound.value and spent / bound.value >= step / 100)
            self.told |= {(window.tenant_id, f"{window.kind}:{window.period}:{step}") for step in steps}

    def teardown(self) -> None:
        if hasattr(self, "ledger"):
            self.ledger.database.close()
            self.opened.__exit__(None, None, None)
            self.folder.cleanup()


class LedgerMachineOnPostgreSQL(LedgerMachine):
    kind = "postgresql"


TestLedgerMachine = LedgerMachine.TestCase
TestLedgerMachine.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
TestLedgerMachineOnPostgreSQL = LedgerMachineOnPostgreSQL.TestCase
TestLedgerMachineOnPostgreSQL.settings = settings(max_examples=8, stateful_step_count=25, deadline=None)
