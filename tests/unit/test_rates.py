"""One principal's burst is bounded, and costs nobody else anything."""

from __future__ import annotations

import pytest

from config.errors import RateLimited
from tenants.rates import WINDOW_S, RateLimiter


def test_a_burst_of_a_window_is_let_through_and_not_one_more() -> None:
    limiter = RateLimiter(20, clock=lambda: 100.0)
    for _ in range(20 * WINDOW_S):
        limiter.check("key_a")
    with pytest.raises(RateLimited) as refused:
        limiter.check("key_a")
    assert refused.value.limit == 20 * WINDOW_S
    assert refused.value.retry_after_s is not None
    assert 1 <= refused.value.retry_after_s <= 2 * WINDOW_S
    assert refused.value.retryable


def test_another_principal_is_not_held_back() -> None:
    limiter = RateLimiter(1, clock=lambda: 100.0)
    for _ in range(WINDOW_S):
        limiter.check("key_a")
    with pytest.raises(RateLimited):
        limiter.check("key_a")
    limiter.check("key_b")


def test_what_was_asked_in_the_window_before_fades() -> None:
    now = 100.0
    limiter = RateLimiter(2, clock=lambda: now)
    for _ in range(2 * WINDOW_S):
        limiter.check("key_a")
    now += WINDOW_S
    with pytest.raises(RateLimited):  # at the border of two windows no double burst
        limiter.check("key_a")
    now += WINDOW_S / 2
    for _ in range(WINDOW_S):
        limiter.check("key_a")
    with pytest.raises(RateLimited):
        limiter.check("key_a")
    limiter.check("key_b")


def test_after_two_windows_a_whole_burst_is_let_through_again() -> None:
    now = 100.0
    limiter = RateLimiter(2, clock=lambda: now)
    for _ in range(2):
        for _ in range(2 * WINDOW_S):
            limiter.check("key_a")
        now += 2 * WINDOW_S


def test_who_comes_back_when_told_is_let_in() -> None:
    now = 102.5
    limiter = RateLimiter(2, clock=lambda: now)
    for _ in range(2 * WINDOW_S):
        limiter.check("key_a")
    with pytest.raises(RateLimited) as refused:
        limiter.check("key_a")
    assert refused.value.retry_after_s is not None
    now += refused.value.retry_after_s
    limiter.check("key_a")
