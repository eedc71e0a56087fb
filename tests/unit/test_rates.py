"""One principal's burst is bounded, and costs nobody else anything."""

from __future__ import annotations

import pytest

from config.errors import RateLimited
from tenants.rates import WINDOW_S, RateLimiter


def test_a_burst_of_a_window_is_let_through_and_not_one_more() -> None:
    limiter = RateLimiter(20)
    for _ in range(20 * WINDOW_S):
        limiter.check("key_a")
    with pytest.raises(RateLimited) as refused:
        limiter.check("key_a")
    assert refused.value.limit == 20 * WINDOW_S
    assert refused.value.retry_after_s is not None
    assert 1 <= refused.value.retry_after_s <= 2 * WINDOW_S
    assert refused.value.retryable


def test_another_principal_is_not_held_back() -> None:
    limiter = RateLimiter(1)
    for _ in range(WINDOW_S):
        limiter.check("key_a")
    with pytest.raises(RateLimited):
        limiter.check("key_a")
    limiter.check("key_b")
