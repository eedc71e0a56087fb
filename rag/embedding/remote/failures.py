"""How one request to a provider fails. What reads these decides on retry, concurrency and breaker; callers never see them.

ProviderFailure
├── Pressed   429: too much at once, and a sign of life
├── TooMuch   the request was larger than the provider takes
└── Broken    5xx, silence, half an answer, a wrong answer: it may pass
"""

from __future__ import annotations


class ProviderFailure(Exception):
    """`retry_after_s`: how long the provider asks to be left alone. `reached`: whether it can have seen the request."""

    def __init__(
        self, detail: str, *, retry_after_s: float | None = None, timed_out: bool = False, reached: bool = True
    ) -> None:
        super().__init__(detail)
        self.detail, self.retry_after_s = detail, retry_after_s
        self.timed_out, self.reached = timed_out, reached


class Pressed(ProviderFailure):
    pass


class TooMuch(ProviderFailure):
    pass


class Broken(ProviderFailure):
    pass
