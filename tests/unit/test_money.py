"""Money is exact to the picodollar, whatever changes of the price; and parts of a hold are charged once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from sqlmodel import select

from config.database import Database
from config.errors import BudgetExhausted, LeaseLost
from config.money import MAX_PRICE, micro_usd
from config.settings import MAX_TOKENS
from tenants.ledger.budget import RELEASED, SETTLED, UNSETTLED, Ledger
from tenants.ledger.usage import Usage, UsageReader
from tenants.registry import TenantRegistry
from tenants.tables import BudgetWindow, LedgerEntry, UsageDay
from tests.support import FakeScope
from tests.unit.conftest import SetClock

A, B = FakeScope("a"), FakeScope("b")
LEASE_MS = 60_000
PRICE = 20_000  # two cents for a million tokens


@pytest.fixture
def ledger(database: Database, clock: SetClock) -> Ledger:
    return Ledger(database, clock, lease_s=LEASE_MS // 1000, price=PRICE)


def _usage(ledger: Ledger, scope: FakeScope = A) -> Usage:
    return UsageReader(ledger.database, ledger.clock).of(scope)


def _money(ledger: Ledger, scope: FakeScope = A) -> tuple[int, int]:
    """Cost of the month's window, and of its days."""
    usage = _usage(ledger, scope)
    return usage.cost, usage.total.cost


def _entry(ledger: Ledger, entry_id: str, scope: FakeScope = A) -> LedgerEntry:
    with ledger.database.read(scope) as session:
        return session.get_one(LedgerEntry, (scope.tenant_id, entry_id))


@given(st.integers(0, 2**63))
def test_shown_money_is_off_by_half_a_micro_dollar_at_most(picodollars: int) -> None:
    off = micro_usd(picodollars) * 1_000_000 - picodollars
    assert -500_000 < off <= 500_000  # a half goes up


def test_every_way_of_charging_costs_its_tokens_at_the_price(ledger: Ledger, clock: SetClock) -> None:
    meter = ledger.for_tenant(A, "ingest")
    meter.debit("debit", 5)
    meter.hold("less", 10)
    meter.settle("less", 7)
    meter.hold("given back", 100)
    meter.release("given back")
    meter.debit("refunded", 50)
    meter.refund("refunded")
    meter.hold("topped up", 2)
    meter.hold("topped up", 4)
    meter.settle("topped up", 4)
    assert not meter.hold("topped up", 6)
    meter.hold("lost", 3, started=True)
    meter.hold("never begun", 9)
    assert _money(ledger) == (18 * PRICE, 18 * PRICE)
    clock.now += LEASE_MS + 1
    assert ledger.sweep() == 2
    assert _money(ledger) == (21 * PRICE, 21 * PRICE)
    assert _entry(ledger, "lost").cost == 3 * PRICE
    assert _money(ledger, B) == (0, 0)


def test_an_entry_keeps_the_price_at_which_it_was_made(ledger: Ledger) -> None:
    meter, dearer = ledger.for_tenant(A, "ingest"), ledger.at(7 * PRICE).for_tenant(A, "ingest")
    meter.debit("d", 1)
    meter.hold("h", 1)
    dearer.debit("d", 1)
    dearer.hold("h", 3)
    dearer.settle("h", 3)
    dearer.hold("later", 1)
    meter.settle("later", 1)
    assert [_entry(ledger, name).cost for name in ("d", "h", "later")] == [PRICE, 3 * PRICE, 7 * PRICE]
    assert _money(ledger) == (11 * PRICE, 11 * PRICE)
    dearer.refund("d")
    assert _money(ledger) == (10 * PRICE, 10 * PRICE)


def test_savings_are_worth_the_price_of_their_moment(ledger: Ledger, clock: SetClock) -> None:
    ledger.for_tenant(A, "query").saved(3, 0, hits=1)
    dearer = ledger.at(2 * PRICE)
    dearer.for_tenant(A, "query").saved(4, 1, hits=2)
    dearer.for_tenant(B, "query").saved(99, 0)
    clock.now += 86_400_000
    dearer.for_tenant(A, "query").saved(1, 0, hits=1)
    usage = _usage(ledger)
    assert [(day.hits, day.saved_cost) for day in usage.days] == [(3, 13 * PRICE), (1, 2 * PRICE)]
    assert (usage.total.cached, usage.total.deduplicated, usage.total.hits) == (8, 1, 4)
    assert (usage.total.saved_cost, usage.total.cost, usage.cost) == (15 * PRICE, 0, 0)


def test_the_largest_budget_is_counted_exactly_at_the_highest_price(ledger: Ledger) -> None:
    TenantRegistry(ledger.database, ledger.clock).update("a", {"monthly_tokens": MAX_TOKENS})
    meter, size = ledger.at(MAX_PRICE).for_tenant(A, "ingest"), 2**31 - 1
    meter.debit("d", size)
    with ledger.database.write(A) as session:
        for window in session.scalars(select(BudgetWindow)):
            window.used, window.cost = MAX_TOKENS - 1, (MAX_TOKENS - 1) * MAX_PRICE
            session.add(window)
    meter.debit("last", 1)
    assert _usage(ledger).cost == MAX_TOKENS * MAX_PRICE
    with pytest.raises(BudgetExhausted):
        meter.debit("one more", 1)


# --- parts of a hold


def test_a_part_is_charged_and_the_rest_is_given_back(ledger: Ledger) -> None:
    meter = ledger.for_tenant(A, "ingest")
    meter.hold("h", 10, started=True)
    dearer = ledger.at(9 * PRICE).for_tenant(A, "ingest")
    assert dearer.settle_part("h", "1", 4) == 4
    assert (_usage(ledger).used, _usage(ledger).held, meter.charged("h")) == (4, 0, 4)
    assert _entry(ledger, "h").state == RELEASED
    part = _entry(ledger, "h/1")
    assert (part.state, part.tokens, part.part_of, part.price, part.operation) == (SETTLED, 4, "h", PRICE, "ingest")
    assert dearer.hold("h", 6, started=True)
    assert (_usage(ledger).used, _usage(ledger).held) == (4, 6)
    assert dearer.settle("h", 6) == dearer.charged("h") == 10
    assert _money(ledger) == ((4 + 6 * 9) * PRICE,) * 2


def test_a_part_is_charged_once(ledger: Ledger) -> None:
    meter = ledger.for_tenant(A, "ingest")
    meter.hold("h", 10, started=True)
    assert [meter.settle_part("h", "1", tokens) for tokens in (4, 4, 9)] == [4, 4, 4]
    meter.hold("h", 6, started=True)
    assert meter.settle_part("h", "1", 4) == 4
    assert (_usage(ledger).used, _usage(ledger).held) == (4, 0)
    meter.hold("h", 6, started=True)
    assert meter.settle_part("h", "2", 5) == 5
    assert meter.charged("h") == 9


def test_a_part_costs_no_more_than_was_held(ledger: Ledger) -> None:
    TenantRegistry(ledger.database, ledger.clock).update("a", {"monthly_tokens": 10})
    meter = ledger.for_tenant(A, "ingest")
    meter.hold("h", 10)
    assert meter.settle_part("h", "1", 11) == 10
    assert meter.remaining() == 0


def test_a_part_without_a_hold_is_a_mistake(ledger: Ledger) -> None:
    meter = ledger.for_tenant(A, "ingest")
    with pytest.raises(RuntimeError):
        meter.settle_part("h", "1", 1)
    with pytest.raises(ValueError, match="another hold"):
        meter.settle_part("h", "1/2", 1)
    assert _usage(ledger).used == 0


@pytest.mark.parametrize("state", [SETTLED, UNSETTLED])
def test_a_part_of_what_was_charged_in_full_is_free(ledger: Ledger, clock: SetClock, state: str) -> None:
    meter = ledger.for_tenant(A, "ingest")
    meter.hold("h", 10, started=True)
    if state == SETTLED:
        meter.settle("h", 10)
    else:
        clock.now += LEASE_MS + 1
        assert ledger.sweep() == 1
    assert meter.settle_part("h", "1", 4) == 0
    assert not meter.hold("h", 6)
    assert meter.charged("h") == _usage(ledger).used == 10


def test_a_repeated_step_is_topped_up_by_what_neither_hold_nor_parts_paid(ledger: Ledger) -> None:
    meter = ledger.for_tenant(A, "ingest")
    meter.hold("h", 10, started=True)
    meter.settle_part("h", "1", 4)
    meter.hold("h", 6, started=True)
    meter.settle("h", 6)
    assert not meter.hold("h", 10)
    assert meter.charged("h") == 10
    assert not meter.hold("h", 11)
    assert meter.charged("h") == _usage(ledger).used == 11


def test_only_the_owner_of_a_hold_charges_a_part_of_it(ledger: Ledger) -> None:
    late, owner = (ledger.for_tenant(A, "ingest", epoch=epoch) for epoch in (1, 2))
    owner.hold("h", 10, started=True)
    with pytest.raises(LeaseLost):
        late.settle_part("h", "1", 4)
    assert owner.settle_part("h", "1", 4) == 4
    for call in (lambda: late.settle_part("h", "1", 4), lambda: late.hold("h", 6)):
        with pytest.raises(LeaseLost):
            call()
    assert (_usage(ledger).used, _usage(ledger).held) == (4, 0)


def test_parts_are_found_by_the_hold_and_by_nothing_like_it(ledger: Ledger) -> None:
    meter, other = ledger.for_tenant(A, "ingest"), ledger.for_tenant(B, "ingest")
    for number, hold_id in enumerate(("v", "v%", "v_", "vv", "v/x", "V", "v0", "é", "*"), 1):
        meter.hold(hold_id, 100)
        meter.settle_part(hold_id, "p", number)
        other.hold(hold_id, 100)
        other.settle_part(hold_id, "p", 50)
    assert [meter.charged(hold_id) for hold_id in ("v", "v%", "v_", "vv", "v/x", "V", "v0", "é", "*")] == [*range(1, 10)]
    assert other.charged("v") == 50
    assert meter.charged("v/") == 0


def test_concurrent_parts_are_charged_once_each(ledger: Ledger) -> None:
    meter = ledger.for_tenant(A, "ingest")
    meter.hold("h", 10, started=True)
    with ThreadPoolExecutor(8) as pool:
        paid = [*pool.map(lambda _: ledger.for_tenant(A, "ingest").settle_part("h", "1", 4), range(16))]
    assert paid == [4] * 16
    assert meter.charged("h") == _usage(ledger).used == 4


def test_parts_are_looked_up_by_an_index(ledger: Ledger) -> None:
    statement = sa.select(sa.func.sum(LedgerEntry.__table__.c.tokens)).where(  # type: ignore[attr-defined]
        LedgerEntry.__table__.c.tenant_id == "a",  # type: ignore[attr-defined]
        LedgerEntry.__table__.c.part_of == "h",  # type: ignore[attr-defined]
    )
    explain = "EXPLAIN " if ledger.database.is_postgresql else "EXPLAIN QUERY PLAN "
    with ledger.database.system_read() as session:
        connection = session.connection()
        if ledger.database.is_postgresql:
            connection.exec_driver_sql("SET LOCAL enable_seqscan = off")  # of an empty table it would be the cheapest
        text = str(statement.compile(ledger.database.engine, compile_kwargs={"literal_binds": True}))
        plan = " ".join(str(row) for row in connection.exec_driver_sql(explain + text))
    assert "ix_ledger_part_of" in plan


def test_the_sums_of_a_tenant_are_those_of_its_entries(ledger: Ledger) -> None:
    for scope, price in ((A, PRICE), (B, 3)):
        meter = ledger.at(price).for_tenant(scope, "query")
        for number in range(5):
            meter.debit(f"d{number}", number)
    with ledger.database.system_read() as session:
        for table in (BudgetWindow, LedgerEntry, UsageDay):
            rows, times = session.scalars(select(table)).all(), 2 if table is BudgetWindow else 1  # of the month, of the day
            assert [sum(row.cost for row in rows if row.tenant_id == t) for t in "ab"] == [10 * PRICE * times, 30 * times]
