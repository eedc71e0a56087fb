"""Where requests to a provider wait for their turn: questions first, then tenants in turns by tokens, within the pace and the
concurrency that it bears."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from types import TracebackType

from config.errors import Unavailable
from rag.embedding.remote.concurrency import Aimd
from rag.embedding.remote.failures import Broken, Pressed
from rag.embedding.remote.pacing import Pacer
from rag.fairness import FairClock

MAX_HOLD_S = 60.0  # whatever the provider says: then one request asks again
Check = Callable[[], None]  #: raises if there is no reason to wait any longer


class Gate:
    def __init__(self, pacer: Pacer, aimd: Aimd, clock: Callable[[], float]) -> None:
        self._pacer, self._aimd, self._clock = pacer, aimd, clock
        self._changed = threading.Condition()
        self._lines = (_Line(), _Line())  #: urgent, others
        self._under_way = 0

    def turn(self, tokens: int, *, tenant: str = "", urgent: bool, deadline: float, check: Check) -> _Turn:
        """To be held while a request is under way. Entering blocks; it raises what `check` raises, asked whenever something
        changed, and Unavailable once it is clear that the turn would come after the deadline."""
        return _Turn(self, tokens, tenant, urgent, deadline, check)

    def pause(self, until: float, check: Check) -> None:
        with self._changed:
            while (left := until - self._clock()) > 0:
                check()
                self._changed.wait(left)

    def wake(self) -> None:
        """Have everybody who waits check again."""
        with self._changed:
            self._changed.notify_all()

    def enter(self, turn: _Turn) -> float:
        line, waited = self._lines[not turn.urgent], False
        with self._changed:
            line.join(turn)
            try:
                while (wait_s := self._wait_s(turn, line)) is None or wait_s > 0:
                    turn.check()
                    left = turn.deadline - self._clock()
                    if wait_s is not None and wait_s > left:
                        raise Unavailable("The embedding provider has no room before the deadline.", retry_after_s=wait_s)
                    self._changed.wait(left if wait_s is None else wait_s)
                    waited = True
                turn.check()
                now = self._clock()
                self._pacer.left(turn.tokens, now, waited=waited)
                line.clock.charge(turn.tenant, turn.tokens)
                self._under_way += 1
            finally:
                line.leave(turn)
                self._changed.notify_all()
        return now

    def leave(self, turn: _Turn, began: float, error: BaseException | None) -> None:
        with self._changed:
            now = self._clock()
            if error is None:
                self._aimd.answered(turn.tokens, began=began, now=now, full=self._under_way >= self._aimd.allowed)
            elif isinstance(error, Pressed) or (isinstance(error, Broken) and error.timed_out):
                self._aimd.pressed(began=began, now=now)
            if isinstance(error, Pressed) and error.retry_after_s is not None:
                self._pacer.hold(now + min(error.retry_after_s, MAX_HOLD_S))
            self._under_way -= 1
            self._changed.notify_all()

    def _wait_s(self, turn: _Turn, line: _Line) -> float | None:
        """Seconds until the turn comes; None: others come first."""
        first = next(line for line in self._lines if len(line))
        if first is not line or self._under_way >= self._aimd.allowed or line.first() is not turn:
            return None
        return self._pacer.wait_s(self._clock())


class _Line:
    """Those who wait, each tenant's in the order of coming."""

    def __init__(self) -> None:
        self.clock, self._turns = FairClock(), dict[str, deque[_Turn]]()

    def __len__(self) -> int:
        return sum(map(len, self._turns.values()))

    def first(self) -> _Turn:
        return self._turns[self.clock.first(self._turns)][0]

    def join(self, turn: _Turn) -> None:
        self._turns.setdefault(turn.tenant, deque()).append(turn)

    def leave(self, turn: _Turn) -> None:
        self._turns[turn.tenant].remove(turn)
        if not self._turns[turn.tenant]:
            del self._turns[turn.tenant]


class _Turn:
    def __init__(self, gate: Gate, tokens: int, tenant: str, urgent: bool, deadline: float, check: Check) -> None:
        self._gate, self._began = gate, 0.0
        self.tokens, self.tenant, self.urgent, self.deadline, self.check = tokens, tenant, urgent, deadline, check

    def __enter__(self) -> None:
        self._began = self._gate.enter(self)

    def __exit__(self, _kind: type[BaseException] | None, error: BaseException | None, _at: TracebackType | None) -> None:
        self._gate.leave(self, self._began, error)
