"""When the next request may leave under limits of requests and tokens a minute. Pure: it is told the time.

Requests are spread evenly (generic cell rate algorithm): a provider that counts by the second meets no burst each minute.
"""

from __future__ import annotations

#: How far behind its schedule the pace may be and catch up, if somebody waited: threads wake late by milliseconds on a
#: quiet machine and by a tenth of a second on a busy one, which would add up. Who comes after idle time gets no credit.
SLACK_S = 0.25


class Pacer:
    def __init__(self, *, requests_per_minute: int | None = None, tokens_per_minute: int | None = None) -> None:
        self._request_s = 60 / requests_per_minute if requests_per_minute else 0.0
        self._token_s = 60 / tokens_per_minute if tokens_per_minute else 0.0
        self._request_due = self._token_due = self._held_until = float("-inf")

    def wait_s(self, now: float) -> float:
        """Seconds until a request may leave; 0 or less: at once."""
        return max(self._request_due, self._token_due, self._held_until) - now

    def left(self, tokens: int, now: float, *, waited: bool) -> None:
        """A request of this size leaves now."""
        from_then = now - SLACK_S if waited else now
        self._request_due = max(self._request_due, from_then) + self._request_s
        self._token_due = max(self._token_due, from_then) + tokens * self._token_s

    def hold(self, until: float) -> None:
        """The provider asked to be left alone."""
        self._held_until = max(self._held_until, until)
