"""Budgets by kind, day and month, in tokens and in money: hard and soft, overridden, told of, forecast, and invoiced."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import OperationalError
from sqlmodel import col, select

from api.invoices import COLUMNS, Invoice
from config.database import Database
from config.errors import BudgetExhausted, InvalidInput, NotFound
from config.plans import BUILT_IN, UNLIMITED
from tenants.events import EventLog
from tenants.ledger import usage
from tenants.ledger.anomalies import LEAST_TOKENS, AnomalyWatch, threshold
from tenants.ledger.budget import Ledger
from tenants.ledger.forecast import HOUR_MS, start_of
from tenants.ledger.policy import BudgetPolicy
from tenants.ledger.usage import Range, UsageReader
from tenants.limits.plans import LimitsInForce, Plans
from tenants.registry import TenantRegistry
from tenants.tables import LimitOverride, UsageDay
from tests.support import FakeScope
from tests.unit.conftest import SetClock

A, B = FakeScope("a"), FakeScope("b")
DAY_MS = 24 * HOUR_MS
PRICE = 1_000_000  # a micro-dollar a token

Change = Callable[..., None]


@pytest.fixture
def limits(database: Database, clock: SetClock) -> LimitsInForce:
    return LimitsInForce(database, clock, Plans(BUILT_IN, UNLIMITED))


@pytest.fixture
def change(database: Database, clock: SetClock, limits: LimitsInForce) -> Change:
    return BudgetPolicy(database, clock, limits).change


@pytest.fixture
def ledger(database: Database, clock: SetClock, limits: LimitsInForce) -> Ledger:
    return Ledger(database, clock, lease_s=60, price=PRICE, limits=limits.of)


@pytest.fixture
def reader(database: Database, clock: SetClock, limits: LimitsInForce) -> UsageReader:
    return UsageReader(database, clock, limits)


def _told(ledger: Ledger, kind: str, scope: FakeScope = A) -> list[str]:
    return [event.subject for event in EventLog(ledger.database, ledger.clock).for_tenant(scope).list(type=kind, limit=100)[0]]


def test_a_day_is_a_budget_of_its_own_within_the_month(ledger: Ledger, change: Change, clock: SetClock) -> None:
    change("a", "embedding", "day", {"tokens": 10})
    change("a", "embedding", "month", {"tokens": 15})
    meter = ledger.for_tenant(A, "query")
    meter.debit("today", 10)
    with pytest.raises(BudgetExhausted, match="day's 10"):
        meter.debit("too much", 1)
    meter.hold("not today", 0)
    ledger.for_tenant(B, "query").debit("foreign", 100)
    clock.now += DAY_MS
    assert meter.remaining() == 5
    with pytest.raises(BudgetExhausted, match="month's 15"):
        meter.hold("more than the month", 6)
    meter.hold("the rest", 5)
    assert _told(ledger, "budget.exhausted") == ["embedding:2026-03-10", "embedding:2026-03"]


def test_money_is_a_limit_to_the_picodollar(ledger: Ledger, change: Change) -> None:
    change("a", "embedding", "day", {"micro_usd": 10})
    meter = ledger.at(3 * PRICE).for_tenant(A, "ingest")
    assert meter.remaining() == 3
    meter.hold("three", 3)
    for take in (meter.hold, meter.debit):
        with pytest.raises(BudgetExhausted, match="10 micro-dollars") as refused:
            take("one more", 1)
        assert refused.value.limit == 10
    ledger.for_tenant(A, "ingest").debit("the last micro-dollar", 1)
    with pytest.raises(BudgetExhausted):
        ledger.at(1).for_tenant(A, "ingest").debit("one picodollar", 1)
    ledger.at(0).for_tenant(A, "ingest").debit("free of charge", 1)


def test_language_models_spend_a_budget_of_their_own(ledger: Ledger, change: Change, reader: UsageReader) -> None:
    change("a", "llm", "month", {"tokens": 5})
    ledger.for_tenant(A, "query").debit("q", 100)
    ledger.for_tenant(A, "llm").debit("l", 5)
    with pytest.raises(BudgetExhausted):
        ledger.for_tenant(A, "llm").debit("m", 1)
    found = {(budget.window.kind, budget.window.period): budget.window.used for budget in reader.of(A).budgets}
    months, days = {"embedding": 100, "llm": 5}, ("2026-03", "2026-03-10")
    assert found == {(kind, period): used for kind, used in months.items() for period in days}
    assert (reader.of(A).used, reader.of(B).used) == (100, 0)


def test_a_soft_limit_tells_and_refuses_nothing(ledger: Ledger, change: Change) -> None:
    change("a", "embedding", "month", {"tokens": 10}, soft=True)
    meter = ledger.for_tenant(A, "query")
    for number in range(4):
        meter.debit(f"d{number}", 5)
    assert (meter.remaining(), meter.strained()) == (None, False)
    assert _told(ledger, "budget.warned") == [f"embedding:2026-03:{step}" for step in (50, 75, 90, 100)]
    assert _told(ledger, "budget.exhausted") == []
    change("a", "embedding", "month", {}, soft=False)
    with pytest.raises(BudgetExhausted):
        meter.debit("d5", 1)


def test_what_cannot_be_told_fails_no_charge_and_is_told_with_the_next(
    ledger: Ledger, change: Change, monkeypatch: pytest.MonkeyPatch
) -> None:
    for tenant in "ab":
        change(tenant, "embedding", "month", {"tokens": 100})

    def locked(*_: object, **__: object) -> None:
        raise OperationalError("", {}, Exception("database is locked"))

    with monkeypatch.context() as busy:
        busy.setattr("tenants.ledger.ladder.emit_once", locked)
        ledger.for_tenant(A, "query").debit("q1", 60)
    assert (ledger.for_tenant(A, "query").remaining(), _told(ledger, "budget.warned")) == (40, [])
    for scope in (A, B):
        ledger.for_tenant(scope, "query").debit("q2", 1)
    assert _told(ledger, "budget.warned") == ["embedding:2026-03:50"]
    assert _told(ledger, "budget.warned", B) == []


def test_each_step_of_the_ladder_is_told_once(ledger: Ledger, change: Change, limits: LimitsInForce) -> None:
    change("a", "embedding", "month", {"tokens": 100})
    meter = ledger.for_tenant(A, "query")
    meter.debit("below", 49)
    assert _told(ledger, "budget.warned") == []
    meter.debit("half", 1)
    meter.hold("nearly", 39)
    assert not meter.strained()
    meter.hold("at", 1)
    assert meter.strained() and ledger.for_tenant(A, "ingest").strained()  # noqa: PT018
    meter.release("at")
    again = Ledger(ledger.database, ledger.clock, lease_s=60, limits=limits.of).for_tenant(A, "query")  # another process
    again.debit("and again", 1)
    assert _told(ledger, "budget.warned") == [f"embedding:2026-03:{step}" for step in (50, 75, 90)]
    event = EventLog(ledger.database, ledger.clock).for_tenant(A).list(type="budget.warned", limit=9)[0][-1]
    expected = {
        "kind": "embedding",
        "period": "2026-03",
        "step": 90,
        "unit": "tokens",
        "limit": 100,
        "spent": 90,
        "soft": False,
    }
    assert event.data == expected
    assert _told(ledger, "budget.warned", B) == []


def test_an_event_that_a_dying_process_left_out_is_made_by_the_next(
    ledger: Ledger, change: Change, limits: LimitsInForce, monkeypatch: pytest.MonkeyPatch
) -> None:
    change("a", "embedding", "day", {"tokens": 10})
    monkeypatch.setattr(ledger.ladder, "tell", lambda *_: None)
    ledger.for_tenant(A, "query").debit("dies before it tells", 8)
    Ledger(ledger.database, ledger.clock, lease_s=60, limits=limits.of).for_tenant(A, "query").debit("next", 0)
    assert _told(ledger, "budget.warned") == ["embedding:2026-03-10:50", "embedding:2026-03-10:75"]


def test_an_override_ends_and_what_was_set_holds_again(ledger: Ledger, change: Change, clock: SetClock) -> None:
    for kind, operation in (("embedding", "query"), ("llm", "llm")):
        clock.now += DAY_MS
        meter, until = ledger.for_tenant(A, operation), clock.now + HOUR_MS
        change("a", kind, "month", {"tokens": 10})
        change("a", kind, "month", {"tokens": 20}, until=until, reason="a busy hour")
        assert meter.remaining() == 20
        change("a", kind, "month", {"tokens": 30}, until=until)
        assert meter.remaining() == 30
        clock.now = until
        assert meter.remaining() == 10
        change("a", kind, "month", {"tokens": 40}, until=clock.now + HOUR_MS)
        change("a", kind, "month", {"tokens": 15})  # under an override: holds when that has ended
        assert meter.remaining() == 40
        clock.now += HOUR_MS
        assert meter.remaining() == 15
        change("a", kind, "month", {"tokens": None})
        assert meter.remaining() is None
    assert ledger.for_tenant(B, "query").remaining() is None


def test_what_the_operator_sets_is_checked_and_told(ledger: Ledger, change: Change, clock: SetClock) -> None:
    for given, wanted in (
        (("a", "embedding", "month", {"tokens": -1}), {}),
        (("a", "other", "month", {"tokens": 1}), {}),
        (("a", "embedding", "year", {"tokens": 1}), {}),
        (("a", "embedding", "day", {"tokens": 1}), {"until": clock.now}),
        (("a", "embedding", "day", {"tokens": 1}), {"until": clock.now + 1, "soft": True}),
    ):
        with pytest.raises(InvalidInput):
            change(*given, **wanted)
    with pytest.raises(NotFound):
        change("nobody", "embedding", "day", {"tokens": 1})
    change("a", "embedding", "day", {"tokens": 1, "micro_usd": 2}, until=clock.now + 1)
    with ledger.database.system_read() as session:
        assert {row.tenant_id for row in session.scalars(select(LimitOverride))} == {"a"}
    events, _ = EventLog(ledger.database, clock).for_tenant(A).list(type="budget.changed", limit=9)
    told = {"old": None, "until": clock.now + 1}
    assert [event.data for event in events] == [
        {"limit": "embedding_tokens_day", "new": 1, **told},
        {"limit": "embedding_micro_usd_day", "new": 2, **told},
    ]


def test_a_month_set_here_and_with_the_tenant_is_one_value(ledger: Ledger, change: Change, limits: LimitsInForce) -> None:
    change("a", "embedding", "month", {"tokens": 7})
    TenantRegistry(ledger.database, ledger.clock).update("a", {"monthly_tokens": 9})
    limits.forget("a")
    assert ledger.for_tenant(A, "query").remaining() == 9


# --- forecasts


def test_a_forecast_names_the_hour_in_which_the_first_limit_is_reached(
    ledger: Ledger, change: Change, reader: UsageReader, clock: SetClock
) -> None:
    for kind, span, tokens in (("embedding", "day", 1_900), ("embedding", "month", 10**6)):
        change("a", kind, span, {"tokens": tokens})
    meter = ledger.for_tenant(A, "query")
    meter.debit("half a day", 1_200)  # 100 an hour since midnight: the rest lasts seven
    month, day, *_ = reader.of(A).budgets
    assert (day.forecast.tokens_per_hour, day.forecast.cost_per_hour) == (100, 100 * PRICE)
    assert day.forecast.exhausted_at == start_of("2026-03-10") + 19 * HOUR_MS
    assert (month.forecast.tokens_per_hour, month.forecast.exhausted_at) == (100, None)
    clock.now = start_of("2026-03-11") + 60_000
    _, day, *_ = reader.of(A).budgets
    assert (day.forecast.tokens_per_hour, day.forecast.exhausted_at) == (0, None)
    change("a", "embedding", "month", {"micro_usd": 1_000})
    assert reader.of(A).budgets[0].forecast.exhausted_at == start_of("2026-03-11")
    assert all(budget.forecast.exhausted_at is None for budget in reader.of(B).budgets)


# --- usage


def _fill(ledger: Ledger, clock: SetClock) -> None:
    for number, (key, collection, tokens) in enumerate((("k1", "x", 3), ("k1", "=y", 5), ("k2", "x", 7))):
        meter = ledger.for_tenant(A, "query", key=key, collection=collection)
        meter.debit(f"d{number}", tokens)
        meter.saved(tokens, 0, 1)
        clock.now += DAY_MS
    ledger.for_tenant(B, "query", key="k9", collection="x").debit("foreign", 100)


def test_usage_is_grouped_as_asked(ledger: Ledger, reader: UsageReader, clock: SetClock) -> None:
    _fill(ledger, clock)
    for by, expected in (
        (("key",), [("k1", None, 8), ("k2", None, 7)]),
        (("collection",), [(None, "=y", 5), (None, "x", 10)]),
        (("collection", "key"), [("k1", "=y", 5), ("k1", "x", 3), ("k2", "x", 7)]),
    ):
        groups = reader.of(A, group_by=by).groups
        assert sorted((row.key, row.collection, row.charged) for row in groups) == sorted(expected)  # type: ignore[type-var]
    few = reader.of(A, Range("2026-03-11", "2026-03-11"), ("day",))
    assert [(row.day, row.charged, row.saved_cost) for row in few.groups] == [("2026-03-11", 5, 5 * PRICE)]
    assert (few.total.charged, few.used) == (5, 15)


def test_a_range_is_days_in_order_and_not_too_many() -> None:
    for first, last in (("2026-03-02", "2026-03-01"), ("2026-01-01", "2027-02-01"), ("2026-3-1", "2026-03-02"), ("", "x")):
        with pytest.raises(InvalidInput):
            Range(first, last)
    for month in ("2026-13", "26-01", "2026-1", "../x"):
        with pytest.raises(InvalidInput):
            Range.of_month(month)
    assert Range.of_month("2028-02") == Range("2028-02-01", "2028-02-29")
    assert Range.of_month("2026-12") == Range("2026-12-01", "2026-12-31")


def test_more_groups_than_are_shown_are_refused(
    ledger: Ledger, reader: UsageReader, clock: SetClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    _fill(ledger, clock)
    clock.now -= DAY_MS
    ledger.for_tenant(A, "query", key="k3").debit("another key", 1)
    monkeypatch.setattr(usage, "MAX_GROUPS", 4)
    assert len(reader.of(A, group_by=("day", "key")).groups) == 4
    monkeypatch.setattr(usage, "MAX_GROUPS", 3)
    assert len(reader.of(A, group_by=("key",)).groups) == 3
    with pytest.raises(InvalidInput):
        reader.of(A, group_by=("day", "key"))


def test_an_invoice_has_every_line_of_its_month_and_their_exact_sum(
    ledger: Ledger, reader: UsageReader, clock: SetClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage, "PAGE", 1)
    clock.now = start_of("2026-02-28")
    ledger.for_tenant(A, "query").debit("the month before", 1000)
    clock.now += DAY_MS
    _fill(ledger, clock)
    rows = [*csv.DictReader(io.StringIO("".join(Invoice("2026-03", reader.lines(A, "2026-03")).csv())))]
    assert tuple(rows[0]) == COLUMNS
    assert [(row["day"], row["key"], row["collection"], row["charged"]) for row in rows] == [
        ("2026-03-01", "k1", "x", "3"),
        ("2026-03-02", "k1", "'=y", "5"),  # no formula
        ("2026-03-03", "k2", "x", "7"),
        ("total", "", "", "15"),
    ]
    assert (rows[-1]["cost_picodollars"], rows[-1]["cost_micro_usd"]) == (str(15 * PRICE), "15")
    told = json.loads("".join(Invoice("2026-03", reader.lines(A, "2026-03")).json()))
    assert [line["collection"] for line in told["lines"]] == ["x", "=y", "x"]
    assert told["total"]["cost_picodollars"] == sum(line["cost_picodollars"] for line in told["lines"]) == 15 * PRICE
    empty = json.loads("".join(Invoice("2026-05", reader.lines(A, "2026-05")).json()))
    assert (empty["lines"], empty["total"]["charged"]) == ([], 0)


# --- what is unusual


def test_a_day_is_unusual_against_the_tenants_own_days() -> None:
    assert threshold([50_000] * 6) is None
    assert threshold([0] * 20 + [50_000] * 6) is None  # before the first use there was no history
    assert threshold([50_000] * 7) == pytest.approx(80_000)
    assert threshold([10] * 20) == LEAST_TOKENS
    steady = threshold([100_000, 110_000, 90_000, 105_000, 95_000, 100_000, 2_000_000] * 4)
    assert steady is not None
    assert 140_000 < steady < 170_000  # one wild day among them changes nothing


def test_unusual_days_are_told_once(database: Database, clock: SetClock, ledger: Ledger) -> None:
    days = [f"2026-03-{number:02}" for number in range(1, 10)]
    with database.system_write() as session:
        for tenant, last in (("a", 90_000), ("b", 60_000)):
            for on, charged in zip((*days, "2026-03-10"), (*[50_000] * 9, last), strict=True):
                for operation, part in (("query", 2), ("ingest", 2)):
                    session.add(UsageDay(tenant_id=tenant, day=on, operation=operation, charged=charged // part))
    watch = AnomalyWatch(database, clock)
    assert [watch.run_once(), watch.run_once()] == [1, 1]
    assert _told(ledger, "usage.unusual") == ["embedding:2026-03-10"]
    assert _told(ledger, "usage.unusual", B) == []
    with database.system_write() as session:
        late = sa.update(UsageDay).where(col(UsageDay.day) == "2026-03-09", col(UsageDay.tenant_id) == "b")
        session.execute(late.values(charged=200_000))
    assert watch.run_once() == 2  # the day before is looked at again: what came after its last look
    assert _told(ledger, "usage.unusual", B) == ["embedding:2026-03-09"]
