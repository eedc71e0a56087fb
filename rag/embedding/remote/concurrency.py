"""How many requests may be under way: one more for each round trip that went well, half as many after a refusal or silence.

Additive increase, multiplicative decrease, as TCP does it (Chiu and Jain, 1989). Pure: it is told the time.
"""

from __future__ import annotations

FIRST = 4
SLOW = 2.0  # times the usual latency of requests of such a size
LESS_WHEN_SLOW, LESS_WHEN_PRESSED = 0.9, 0.5
#: Weights of a new latency in the two running means that are compared. Single slow answers are noise and change neither much.
NEW_IN_RECENT, NEW_IN_USUAL = 0.2, 0.02


class Aimd:
    def __init__(self, maximum: int) -> None:
        self._maximum, self._allowed = maximum, float(min(FIRST, maximum))
        self._lowered_at = float("-inf")
        self._means: dict[int, tuple[float, float]] = {}  #: bits of the number of tokens → mean latency, recent and usual

    @property
    def allowed(self) -> int:
        return int(self._allowed)

    def answered(self, tokens: int, *, began: float, now: float, full: bool) -> None:
        """`full`: as many requests as allowed were under way, so that more might have been too many."""
        size, latency = tokens.bit_length(), now - began
        recent, usual = self._means.get(size, (latency, latency))
        recent += NEW_IN_RECENT * (latency - recent)
        usual += NEW_IN_USUAL * (latency - usual)
        self._means[size] = recent, usual
        if recent > SLOW * usual:
            self._lower(LESS_WHEN_SLOW, began, now)
        elif full:
            self._allowed = min(self._maximum, self._allowed + 1 / self._allowed)

    def pressed(self, *, began: float, now: float) -> None:
        self._lower(LESS_WHEN_PRESSED, began, now)

    def _lower(self, factor: float, began: float, now: float) -> None:
        """Once a round trip: what had left before the last time says nothing new."""
        if began >= self._lowered_at:
            self._allowed, self._lowered_at = max(1.0, self._allowed * factor), now
