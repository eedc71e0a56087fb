"""A burst is bounded and paid back, refusals say when to come back, and nobody pays for another."""

from __future__ import annotations

import random

import pytest
from sqlalchemy.exc import OperationalError

from config.database import Database
from config.errors import RateLimited
from tenants.limits.rates import MOST_DEBT_S, SWEPT_ABOVE, Rate, Rates
from tenants.limits.shared_rates import FORGET_MS, RateExchange
from tests.unit.conftest import SetClock


def rate(whose: str = "key a", per_second: float = 20, burst: float = 100, policy: str = "key") -> Rate:
    return Rate(whose, policy, per_second, burst)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def moment() -> Clock:
    return Clock()


@pytest.fixture
def rates(moment: Clock) -> Rates:
    return Rates(clock=moment)


def taken(rates: Rates, *of: Rate, most: int = 10_000) -> int:
    """How many requests get through now."""
    for count in range(most):
        try:
            rates.take(of)
        except RateLimited:
            return count
    return most


def test_a_burst_is_let_through_and_not_one_more(rates: Rates) -> None:
    assert taken(rates, rate()) == 100
    with pytest.raises(RateLimited) as refused:
        rates.take([rate()])
    assert refused.value.limit == 20
    assert refused.value.retryable


def test_who_comes_back_when_told_is_let_in_and_no_sooner(rates: Rates, moment: Clock) -> None:
    taken(rates, rate())
    with pytest.raises(RateLimited) as refused:
        rates.take([rate()])
    assert refused.value.retry_after_s == pytest.approx(1 / 20, abs=1e-6)
    moment.now += (refused.value.retry_after_s or 0) * 0.9
    assert taken(rates, rate()) == 0
    moment.now += (refused.value.retry_after_s or 0) * 0.1
    assert taken(rates, rate()) == 1


def test_whatever_the_times_no_window_sees_more_than_burst_and_rate(rates: Rates, moment: Clock) -> None:
    chance, passed = random.Random(7), []
    for _ in range(3000):
        moment.now += chance.expovariate(50)
        if taken(rates, rate(per_second=10, burst=5), most=1):
            passed.append(moment.now)
    assert len(passed) >= 10 * (moment.now - 100.0) * 0.95, "and all that may pass does"
    for first in range(0, len(passed), 50):
        for last in range(first, len(passed), 50):
            assert last - first + 1 <= 5 + 10 * (passed[last] - passed[first]) + 1e-3


def test_another_is_not_held_back(rates: Rates) -> None:
    taken(rates, rate())
    assert taken(rates, rate("key b")) == 100


def test_of_several_rates_each_holds_and_a_refusal_takes_from_none(rates: Rates, moment: Clock) -> None:
    key, tenant = rate("key a"), rate("tenant a", 10, 10, "tenant")
    assert taken(rates, key, tenant) == 10
    with pytest.raises(RateLimited, match="one tenant"):
        rates.take([key, tenant])
    assert taken(rates, key) == 90
    moment.now += 1
    assert taken(rates, rate("key c"), tenant) == 10, "another key of the tenant has what the tenant has"


def test_what_is_left_is_that_of_the_tightest(rates: Rates) -> None:
    key, tenant = rate("key a"), rate("tenant a", 10, 10, "tenant")
    left = rates.take([key, tenant])
    assert (left.rate, left.remaining) == (tenant, 9)
    assert left.told() == '"tenant";r=9;t=1'
    assert key.told() == '"key";q=100;w=5'


def test_a_slow_rate_lets_one_through_at_a_time(rates: Rates, moment: Clock) -> None:
    slow = rate(per_second=0.1, burst=1)
    assert taken(rates, slow) == 1
    moment.now += 9.9
    assert taken(rates, slow) == 0
    moment.now += 0.1
    assert taken(rates, slow) == 1


def test_tokens_weigh_afterwards_and_are_paid_back(rates: Rates, moment: Clock) -> None:
    rates.take([rate()])
    rates.charge([rate()], 199)
    assert taken(rates, rate()) == 0
    moment.now += 5.0
    assert taken(rates, rate()) == 0, "it owes five seconds beyond its burst"
    moment.now += 0.05
    assert taken(rates, rate()) == 1


def test_nobody_owes_more_than_a_minute(rates: Rates, moment: Clock) -> None:
    rates.charge([rate()], 10**9)
    moment.now += MOST_DEBT_S
    assert taken(rates, rate()) == 100


def test_whole_buckets_are_forgotten(rates: Rates, moment: Clock) -> None:
    for number in range(SWEPT_ABOVE + 1):
        rates.take([rate(f"key {number}")])
    moment.now += 1
    rates.take([rate("key new")])
    assert len(rates._whole_at) == 1


class Processes:
    def __init__(self, database: Database, clock: SetClock, count: int) -> None:
        self.clock, self.moment = clock, Clock()
        self.rates = [Rates(clock=self.moment) for _ in range(count)]
        self.exchanges = [RateExchange(database, clock, rates) for rates in self.rates]
        self.exchange()

    def exchange(self) -> None:
        for exchange in self.exchanges:
            exchange.run_once()

    def later(self, seconds: float) -> None:
        self.clock.now += int(seconds * 1000)
        self.moment.now += seconds


def test_several_processes_hold_one_rate(database: Database, clock: SetClock) -> None:
    together = Processes(database, clock, 3)
    others = rate("key other", 5, 5)
    passed = 0
    for _ in range(60):
        passed += sum(taken(rates, rate(per_second=10, burst=10), most=20) for rates in together.rates)
        together.exchange()
        together.later(0.5)
    # A burst once in each process, then the rate: 30 s at 10 a second.
    assert 300 * 0.9 <= passed <= 30 + 300 + 3 * 5
    assert taken(together.rates[0], others) == 5


def test_without_the_database_each_process_counts_by_itself(
    database: Database, clock: SetClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = Processes(database, clock, 2)

    def down() -> None:
        raise OperationalError("x", None, Exception())

    assert taken(together.rates[0], rate()) == 100
    with monkeypatch.context() as broken:
        broken.setattr(database, "system_write", down)
        with pytest.raises(OperationalError):
            together.exchanges[0].run_once()
        assert taken(together.rates[1], rate()) == 100
    together.exchange()
    assert taken(together.rates[0], rate()) == 0
    together.later(5)
    together.exchange()
    assert taken(together.rates[1], rate()) == 0, "what was told late counts all the same"


def test_a_clock_that_goes_back_blocks_nobody_for_longer_than_a_debt_can(database: Database, clock: SetClock) -> None:
    together = Processes(database, clock, 2)
    assert taken(together.rates[0], rate()) == 100
    together.exchange()
    clock.now -= 3_600_000
    together.later(MOST_DEBT_S)
    passed = 0
    for _ in range(30):
        passed += taken(together.rates[1], rate(), most=20)
        together.exchange()
        together.later(5)
    assert passed >= 20 * (30 - MOST_DEBT_S / 5 - 1)


def test_rows_of_whole_buckets_are_deleted(database: Database, clock: SetClock) -> None:
    together = Processes(database, clock, 1)
    for whose in ("key a", "key b"):
        together.rates[0].take([rate(whose)])
        together.exchange()
        together.later(2 * FORGET_MS / 1000 + 10)
    with database.system_read() as session:
        assert session.connection().exec_driver_sql("SELECT id FROM rate_buckets").scalars().all() == ["key b"]
