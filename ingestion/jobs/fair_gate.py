"""Places for work (jobs in flight, documents being read) lent to tenants: all of them to one that is alone, an equal share to
each of several. Knows neither the queue nor what is done in a place.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from rag.fairness import FairClock

#: Times the number of places that can be taken at most: what one tenant has borrowed is not taken from it, so another that
#: comes gets its share beside it, and need not wait for the end of a job that can take minutes.
STRETCH = 2


@dataclass(frozen=True, slots=True)
class Places:
    count: int
    tenant_most: int | None = None  #: that one tenant may take while others have work; None: as many as are free

    @property
    def most(self) -> int:
        return STRETCH * self.count

    def next(self, clock: FairClock, waiting: Iterable[str], running: Mapping[str, int]) -> str | None:
        """Whose work begins next, in a place that is free, or beside them in its share; None: nobody's.

        Of several who may: who has the fewest places, and of these who began least.
        """
        waiting = [*waiting]
        active = len({*waiting, *(tenant for tenant, held in running.items() if held)})
        taken = sum(running.values())
        may = [tenant for tenant in waiting if self._may(running.get(tenant, 0), taken, active)]
        if not may:
            return None
        fewest = min(running.get(tenant, 0) for tenant in may)
        return clock.first(tenant for tenant in may if running.get(tenant, 0) == fewest)

    def _may(self, held: int, taken: int, active: int) -> bool:
        if active > 1 and self.tenant_most is not None and held >= self.tenant_most:
            return False
        return taken < self.count or (taken < self.most and held < max(1, self.count // active))


#: Takes up to so many of the tenant's jobs, those with the most urgent first, and returns their ids.
Take = Callable[[str, int], list[str]]


def take_fairly(places: Places, clock: FairClock, waiting: Iterable[str], running: Mapping[str, int], take: Take) -> list[str]:
    """Jobs for the places that there are, of tenants of whom it is known only that each has some."""
    held, left, taken = Counter(running), dict.fromkeys(waiting), list[str]()
    while wanted := _wanted(places, clock, left, held):
        for tenant, number in wanted.items():
            found = take(tenant, number)
            taken += found
            held[tenant] += len(found)
            clock.charge(tenant, len(found))
            if len(found) < number:
                left.pop(tenant)  # what it did not use is for the others
        if left.keys() >= wanted.keys():
            break  # nobody was short
    return taken


def _wanted(places: Places, clock: FairClock, waiting: Mapping[str, None], running: Mapping[str, int]) -> Counter[str]:
    wanted, held = Counter[str](), Counter(running)
    while (tenant := places.next(clock, waiting, held)) is not None:
        wanted[tenant] += 1
        held[tenant] += 1
    return wanted


class FairGate:
    """Threads wait here for a place."""

    def __init__(self, places: Places) -> None:
        self._places, self._clock = places, FairClock()
        self._changed = threading.Condition()
        self._waiting: dict[str, deque[object]] = {}  #: by tenant, in the order of coming
        self._running: Counter[str] = Counter()

    @contextmanager
    def place(self, tenant: str) -> Iterator[None]:
        with self._changed:
            self._enter(tenant)
        try:
            yield
        finally:
            with self._changed:
                self._running[tenant] -= 1
                self._running += Counter()  # drops those that are at zero
                self._changed.notify_all()

    def _enter(self, tenant: str) -> None:
        ticket, line = object(), self._waiting.setdefault(tenant, deque())
        line.append(ticket)
        try:
            while line[0] is not ticket or self._places.next(self._clock, self._waiting, self._running) != tenant:
                self._changed.wait()
            self._running[tenant] += 1
            self._clock.charge(tenant, 1)
        finally:
            line.remove(ticket)
            if not line:
                self._waiting.pop(tenant)
            self._changed.notify_all()
