"""Who guesses keys is answered 429, remembers nothing to our cost, and takes nobody with it."""

from __future__ import annotations

import pytest

from config.errors import RateLimited
from tenants.identity.guesses import LONGEST_S, MAX_ADDRESSES, WINDOW_S, Guesses


class Clock:
    now = 50.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def guess(guesses: Guesses, address: str = "192.0.2.1") -> int:
    """The status that a wrong key gets."""
    try:
        guesses.admit(address)
        guesses.wrong(address)
    except RateLimited:
        return 429
    return 401


@pytest.mark.parametrize("seconds", [0.0, 0.001, 0.1, 1.0])
def test_of_ten_thousand_guesses_a_few_are_answered_as_such(clock: Clock, seconds: float) -> None:
    guesses, answers = Guesses(20, clock=clock), []
    for _ in range(10_000):
        answers.append(guess(guesses))
        clock.now += seconds
    assert answers.count(429) >= 9_900
    assert answers[:20] == [401] * 20
    assert guess(guesses, "192.0.2.2") == 401


def test_an_address_that_stops_is_let_in_again(clock: Clock) -> None:
    guesses = Guesses(20, clock=clock)
    for _ in range(1000):
        guess(guesses)
        clock.now += 0.2
    clock.now += LONGEST_S + WINDOW_S
    assert guess(guesses) == 401


def test_a_good_key_behind_the_same_address_is_looked_up_within_some_tries(clock: Clock) -> None:
    guesses, waits = Guesses(20, clock=clock), list[float]()
    for _ in range(1000):
        guess(guesses)
    for _ in range(100):  # each 0.1 s: the good key comes before a guess does
        clock.now += 0.1
        try:
            guesses.admit("192.0.2.1")
        except RateLimited as refused:
            waits.append(refused.retry_after_s or 0)
        guess(guesses)
    assert len(waits) <= 10
    assert all(0 < wait <= 1 for wait in waits)


def test_memory_is_bounded_and_the_latest_are_remembered(clock: Clock) -> None:
    guesses = Guesses(1, clock=clock)
    for number in range(MAX_ADDRESSES + 500):
        guess(guesses, f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
    assert len(guesses._records) == MAX_ADDRESSES
    last = MAX_ADDRESSES + 499
    assert guess(guesses, f"10.0.{last >> 8}.{last & 255}") == 429


def test_of_ipv6_a_network_counts_as_one(clock: Clock) -> None:
    guesses = Guesses(2, clock=clock)
    answers = [guess(guesses, f"2001:db8::{number:x}") for number in range(1, 6)]
    assert answers == [401, 401, 429, 429, 429]
    assert guess(guesses, "2001:db8:0:1::1") == 401
    assert [guess(guesses, f"::ffff:192.0.2.{number}") for number in range(3)] == [401] * 3
