"""Single flight: of all who need the vector of a text at the same moment, one has it embedded and the others wait for it."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import Future

from config.errors import BudgetExhausted, CarrelError, Unavailable
from rag.store.base import Vector

Key = bytes  #: of a tenant's text: salted, so that nobody can wait for another tenant's


class Flights:
    """Of this process. Whoever leads a key must land or drop it, and does so before waiting for others: no two can wait for
    each other.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[Key, Future[Vector]] = {}

    def board(self, keys: Iterable[Key]) -> Flight:
        lead, follow = set(), {}
        with self._lock:
            for key in keys:
                if key in lead:
                    continue
                if (waiting := self._open.get(key)) is None:
                    lead.add(key)
                    self._open[key] = Future()
                else:
                    follow[key] = waiting
        return Flight(self, lead, follow)

    def close(self, key: Key) -> Future[Vector]:
        with self._lock:
            return self._open.pop(key)


class Flight:
    """Some keys of one caller: those it leads, and those that somebody else embeds already."""

    def __init__(self, flights: Flights, lead: set[Key], follow: Mapping[Key, Future[Vector]]) -> None:
        self._flights, self.lead, self.follow = flights, lead, follow

    def land(self, vectors: Mapping[Key, Vector]) -> None:
        for key, vector in vectors.items():
            self.lead.remove(key)
            self._flights.close(key).set_result(vector)

    def wait(self, key: Key) -> Vector:
        """For a key that is followed. Raises, if its leader failed, an error of the follower's own."""
        flight = self.follow[key]
        # Not the leader's object: an exception that several threads raise collects all their tracebacks.
        if (error := flight.exception()) is not None:
            raise _for_followers(error)
        return flight.result()

    def __enter__(self) -> Flight:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        """Whatever has not landed fails those who wait for it, each once."""
        while self.lead:
            self._flights.close(self.lead.pop()).set_exception(error or RuntimeError("its leader forgot it"))


def _for_followers(error: BaseException) -> Exception:
    """What concerns only the leader stays with it."""
    if isinstance(error, BudgetExhausted) and not error.of_session:  # theirs too: a key is of one tenant
        return BudgetExhausted(error.detail, field=error.field, limit=error.limit)
    if isinstance(error, CarrelError):
        return Unavailable(error.detail, retry_after_s=error.retry_after_s)
    return Unavailable("Another request that embedded the same text at the same moment failed; try again.")
