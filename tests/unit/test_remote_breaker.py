"""The breaker against a model of it, in any order of events; and one probe only, however many threads wait for it."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from config.errors import ModelUnavailable, Unavailable
from rag.embedding.remote.breaker import Breaker
from rag.embedding.remote.failures import Broken, Pressed, TooMuch
from tests.support import examples

FAILURES, COOL_DOWN_S = 3, 10.0
OUTCOMES = {
    "good": None,
    "broken": Broken("x"),
    "pressed": Pressed("x"),
    "too much": TooMuch("x"),
    "refused": ModelUnavailable("x"),
    "interrupted": KeyboardInterrupt(),
}


class BreakerMachine(RuleBasedStateMachine):
    """The model: requests under way with the state they were sent in, and the row of failures since the last sign of life."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.breaker = Breaker(lambda: self.now, failures=FAILURES, cool_down_s=COOL_DOWN_S)
        self.under_way: list[tuple[int, int]] = []  # the breaker's ticket, and the model's period it was sent in
        self.state, self.until, self.row, self.period, self.openings = "closed", 0.0, 0, 0, 0
        self.probe: int | None = None

    @rule(seconds=st.sampled_from([0.5, COOL_DOWN_S / 2, COOL_DOWN_S]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def send(self) -> None:
        refused = self.state == "open" and (self.now < self.until or self.probe is not None)
        if refused:
            with pytest.raises(Unavailable) as raised:
                self.breaker.enter()
            assert raised.value.retry_after_s
            assert raised.value.retry_after_s >= self.until - self.now
            return
        ticket = self.breaker.enter()
        self.under_way.append((ticket, self.period))
        if self.state == "open":
            self.probe = len(self.under_way) - 1

    @precondition(lambda self: self.under_way)
    @rule(which=st.integers(0, 10**6), outcome=st.sampled_from(sorted(OUTCOMES)))
    def end(self, which: int, outcome: str) -> None:
        which %= len(self.under_way)
        ticket, period = self.under_way.pop(which)
        probed = self.probe == which
        if self.probe is not None:
            self.probe = None if probed else self.probe - (which < self.probe)
        self.breaker.leave(ticket, OUTCOMES[outcome])
        if period != self.period or (self.state == "open" and not probed):
            return
        if outcome == "broken":
            self.row += 1
            if probed or self.row == FAILURES:
                self._change("open")
        elif outcome != "interrupted":
            if probed:
                self._change("closed")
            elif outcome != "pressed":
                self.row = 0

    def _change(self, state: str) -> None:
        self.state, self.row, self.period, self.probe = state, 0, self.period + 1, None
        if state == "open":
            self.until, self.openings = self.now + COOL_DOWN_S, self.openings + 1

    @invariant()
    def agrees(self) -> None:
        assert self.breaker.openings == self.openings
        if self.state == "closed":
            self.breaker.check()


TestBreaker = BreakerMachine.TestCase
TestBreaker.settings = settings(max_examples=examples(200), stateful_step_count=40, deadline=None)


def test_one_probe_however_many_threads_wait() -> None:
    """Fifty threads at once, twenty times: after each cool-down exactly one request leaves."""
    now = [0.0]
    breaker = Breaker(lambda: now[0], failures=1, cool_down_s=COOL_DOWN_S)
    barrier = threading.Barrier(50)
    ended = threading.Event()

    def attempt(_: int) -> bool:
        barrier.wait(30)
        try:
            with breaker.request():
                ended.wait(30)  # the probe is under way until all others were refused
                raise Broken("still down")
        except Broken:
            return True
        except Unavailable:
            with lock:
                refused.append(1)
                if len(refused) == 49:
                    ended.set()
            return False

    with pytest.raises(Broken), breaker.request():
        raise Broken("down")
    lock = threading.Lock()
    with ThreadPoolExecutor(50) as threads:
        for turn in range(20):
            now[0] += COOL_DOWN_S
            refused: list[int] = []
            ended.clear()
            assert sum(threads.map(attempt, range(50))) == 1
            assert breaker.openings == turn + 2


def test_what_was_sent_before_it_opened_does_not_close_it() -> None:
    breaker = Breaker(lambda: 0.0, failures=1)
    early = breaker.enter()
    breaker.leave(breaker.enter(), Broken("x"))
    breaker.leave(early, None)
    with pytest.raises(Unavailable):
        breaker.check()
    assert breaker.openings == 1


def test_an_interrupted_probe_makes_room_for_another() -> None:
    now = 0.0
    breaker = Breaker(lambda: now, failures=1, cool_down_s=1)
    breaker.leave(breaker.enter(), Broken("x"))
    now = 1.0
    with pytest.raises(KeyboardInterrupt), breaker.request():
        raise KeyboardInterrupt
    with breaker.request():
        pass
    breaker.check()
