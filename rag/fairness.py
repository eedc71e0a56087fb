"""Whose turn it is, of several tenants who want the same thing: start-time fair queueing (Goyal, Vin and Cheng, 1996).

Pure: knows no threads, no time and no database. Whoever is alone gets everything; nobody saves up turns while idle.
"""

from __future__ import annotations

from collections.abc import Iterable

FORGET_ABOVE = 64  # tenants: those who are not ahead of the others need not be remembered


class FairClock:
    """A virtual time, and for each tenant the moment of it at which all that it was given is even with the others."""

    def __init__(self) -> None:
        self._now = 0.0
        self._due: dict[str, float] = {}

    def first(self, waiting: Iterable[str]) -> str:
        """Of tenants that have work, at least one: who was given least since it has had any; of equals the first named."""
        chosen = min(waiting, key=self._due_of)
        now = self._due_of(chosen)
        if now > self._now and len(self._due) > FORGET_ABOVE:
            self._due = {tenant: due for tenant, due in self._due.items() if due > now}
        self._now = now
        return chosen

    def charge(self, tenant: str, cost: float) -> None:
        """It was given that much."""
        self._due[tenant] = self._due_of(tenant) + cost

    def _due_of(self, tenant: str) -> float:
        return max(self._due.get(tenant, 0.0), self._now)
