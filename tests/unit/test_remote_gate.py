"""Whose turn it is: pace, concurrency, questions first, and nobody waits for what cannot come."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.errors import Unavailable
from rag.embedding.remote.concurrency import FIRST, Aimd
from rag.embedding.remote.failures import Broken, Pressed
from rag.embedding.remote.gate import Gate
from rag.embedding.remote.pacing import SLACK_S, Pacer
from tests.support import wait_for


@given(
    gaps=st.lists(st.floats(0, 5), min_size=1, max_size=80),
    sizes=st.lists(st.integers(1, 500), min_size=80, max_size=80),
    requests=st.integers(1, 600),
    tokens=st.integers(100, 100_000),
)
def test_no_stretch_of_time_holds_more_than_the_limits_allow(
    gaps: list[float], sizes: list[int], requests: int, tokens: int
) -> None:
    """Whoever wakes late by any time: from one request to a later one there is room for those between, less the slack."""
    pacer, now, left = Pacer(requests_per_minute=requests, tokens_per_minute=tokens), 0.0, []
    for gap, size in zip(gaps, sizes, strict=False):
        wait_s = max(0.0, pacer.wait_s(now))
        now += wait_s + gap
        pacer.left(size, now, waited=wait_s > 0)
        left.append((now, size))
    for first, (begin, _) in enumerate(left):
        spent = 0
        for count, (at, size) in enumerate(left[first:]):
            assert count * 60 / requests <= at - begin + SLACK_S + 1e-6
            assert spent * 60 / tokens <= at - begin + SLACK_S + 1e-6
            spent += size


def test_lateness_is_caught_up_and_idle_time_is_not() -> None:
    pacer = Pacer(requests_per_minute=600)
    now = 0.0
    pacer.left(1, now, waited=False)
    for _ in range(100):  # each wakes 30 ms late
        now = max(now, now + pacer.wait_s(now)) + 0.03
        pacer.left(1, now, waited=True)
    assert now == pytest.approx(100 * 0.1 + 0.03)
    now += 1000
    pacer.left(1, now, waited=False)
    assert pacer.wait_s(now) == pytest.approx(0.1)


def test_a_hold_is_never_shortened() -> None:
    pacer = Pacer()
    pacer.hold(10)
    pacer.hold(5)
    assert pacer.wait_s(0) == 10
    assert pacer.wait_s(10) <= 0


def aimd_with(allowed: int, *, maximum: int = 64) -> Aimd:
    aimd = Aimd(maximum)
    while aimd.allowed < allowed:
        aimd.answered(10, began=0, now=1, full=True)
    return aimd


def test_one_more_for_each_round_trip_that_went_well() -> None:
    aimd = Aimd(64)
    assert aimd.allowed == FIRST
    for round_trip in range(10):
        for _ in range(aimd.allowed + 1):
            aimd.answered(10, began=round_trip, now=round_trip + 1, full=True)
        assert FIRST + round_trip + 1 <= aimd.allowed <= FIRST + round_trip + 2
    idle = aimd.allowed
    for _ in range(100):
        aimd.answered(10, began=20, now=21, full=False)
    assert aimd.allowed == idle, "what was not needed proves nothing"


def test_it_stays_within_its_bounds() -> None:
    aimd = aimd_with(8, maximum=8)
    for _ in range(100):
        aimd.answered(10, began=0, now=1, full=True)
    assert aimd.allowed == 8
    for moment in range(20):
        aimd.pressed(began=moment, now=moment + 0.5)
    assert aimd.allowed == 1
    assert Aimd(1).allowed == 1


def test_it_is_halved_once_a_round_trip() -> None:
    aimd = aimd_with(32)
    for _ in range(32):  # all were under way when the first refusal came
        aimd.pressed(began=10, now=11)
    assert aimd.allowed == 16
    aimd.pressed(began=11.5, now=12)
    assert aimd.allowed == 8


def test_answers_that_have_become_slow_lower_it_and_single_ones_do_not() -> None:
    aimd = aimd_with(32)
    now = 100.0
    for _ in range(50):
        aimd.answered(10, began=now, now=now + 1, full=False)
        now += 1
    aimd.answered(10, began=now, now=now + 3, full=False)
    aimd.answered(5000, began=now, now=now + 30, full=False)  # a large request is slower and that is no sign
    assert aimd.allowed == 32
    for _ in range(20):
        aimd.answered(10, began=now, now=now + 5, full=False)
        now += 5
    assert aimd.allowed < 16
    for _ in range(200):  # slower for good is the usual
        aimd.answered(10, began=now, now=now + 5, full=True)
        now += 5
    assert aimd.allowed > 16


FAR = 10.0**9


def nothing_wrong() -> None:
    pass


def gate_of(*, pacer: Pacer | None = None, concurrency: int = 1) -> Gate:
    return Gate(pacer or Pacer(), Aimd(concurrency), time.monotonic)


def test_questions_go_first_and_others_in_the_order_they_came() -> None:
    gate, order = gate_of(), []

    def pass_through(name: str, urgent: bool) -> None:
        with gate.turn(1, urgent=urgent, deadline=FAR, check=nothing_wrong):
            order.append(name)

    with ThreadPoolExecutor(6) as threads:
        passed: list[Future[None]] = []
        with gate.turn(1, urgent=False, deadline=FAR, check=nothing_wrong):
            for count, (name, urgent) in enumerate([("a", False), ("b", False), ("x", True), ("c", False), ("y", True)]):
                passed.append(threads.submit(pass_through, name, urgent))
                wait_for(lambda: sum(map(len, gate._lines)) == count + 1, what="the next in line")  # noqa: B023
        for one in passed:
            one.result(30)
    assert order == ["x", "y", "a", "b", "c"]


def test_tenants_take_turns_by_tokens() -> None:
    gate, order = gate_of(), []

    def pass_through(name: str, tokens: int) -> None:
        with gate.turn(tokens, tenant=name[0], urgent=False, deadline=FAR, check=nothing_wrong):
            order.append(name)

    with ThreadPoolExecutor(8) as threads:
        passed: list[Future[None]] = []
        with gate.turn(1, urgent=False, deadline=FAR, check=nothing_wrong):
            for count, (name, tokens) in enumerate([("a1", 20), ("a2", 20), ("a3", 20), ("b1", 10), ("b2", 10), ("b3", 10)]):
                passed.append(threads.submit(pass_through, name, tokens))
                wait_for(lambda: sum(map(len, gate._lines)) == count + 1, what="the next in line")  # noqa: B023
        for one in passed:
            one.result(30)
    assert order == ["a1", "b1", "b2", "a2", "b3", "a3"]


def test_a_question_overtakes_whoever_waits_for_the_pace() -> None:
    gate, order = gate_of(pacer=Pacer(requests_per_minute=300), concurrency=4), []

    def pass_through(name: str, urgent: bool) -> None:
        with gate.turn(1, urgent=urgent, deadline=FAR, check=nothing_wrong):
            order.append(name)

    pass_through("first", False)
    with ThreadPoolExecutor(2) as threads:
        job = threads.submit(pass_through, "job", False)
        wait_for(lambda: len(gate._lines[1]), what="the job in line")
        threads.submit(pass_through, "question", True).result(30)
        job.result(30)
    assert order == ["first", "question", "job"]


def test_no_more_than_allowed_are_under_way() -> None:
    gate, lock = gate_of(concurrency=3), threading.Lock()
    under_way, most = [0], [0]

    def pass_through(number: int) -> None:
        with gate.turn(1, urgent=number % 3 == 0, deadline=FAR, check=nothing_wrong):
            with lock:
                under_way[0] += 1
                most[0] = max(most[0], under_way[0])
            threading.Event().wait(0.001)
            with lock:
                under_way[0] -= 1

    with ThreadPoolExecutor(20) as threads:
        list(threads.map(pass_through, range(200)))
    assert most[0] == 3


def test_whoever_waits_learns_that_it_is_in_vain() -> None:
    gate, stopped = gate_of(), threading.Event()

    def check() -> None:
        if stopped.is_set():
            raise InterruptedError

    def wait_in_line() -> None:
        with gate.turn(1, urgent=False, deadline=FAR, check=check):
            raise AssertionError("it was not its turn")

    with ThreadPoolExecutor(2) as threads:
        with gate.turn(1, urgent=False, deadline=FAR, check=nothing_wrong):
            waiting = threads.submit(wait_in_line)
            pausing = threads.submit(gate.pause, FAR, check)
            wait_for(lambda: len(gate._lines[1]), what="the line")
            stopped.set()
            gate.wake()
            for one in (waiting, pausing):
                with pytest.raises(InterruptedError):
                    one.result(30)
    with gate.turn(1, urgent=False, deadline=FAR, check=nothing_wrong):
        pass


def test_a_turn_after_the_deadline_is_not_waited_for() -> None:
    gate = gate_of(pacer=Pacer(requests_per_minute=1))
    with gate.turn(1, urgent=False, deadline=FAR, check=nothing_wrong):
        pass
    with pytest.raises(Unavailable, match="no room") as raised:
        with gate.turn(1, urgent=True, deadline=time.monotonic() + 30, check=nothing_wrong):
            raise AssertionError("it was not its turn")
    assert raised.value.retry_after_s == pytest.approx(60, abs=20)


def test_a_refusal_holds_everybody_and_halves_silence_halves_other_failures_do_not() -> None:
    for failure, held, allowed in (
        (Pressed("x", retry_after_s=100), True, 2),
        (Broken("x", timed_out=True, retry_after_s=100), False, 2),
        (Broken("x"), False, 4),
    ):
        pacer, aimd = Pacer(), Aimd(8)
        gate = Gate(pacer, aimd, time.monotonic)
        with pytest.raises(type(failure)), gate.turn(1, urgent=False, deadline=FAR, check=nothing_wrong):
            raise failure
        wait_s = pacer.wait_s(time.monotonic())
        assert (wait_s > 0, aimd.allowed) == (held, allowed)
        assert not held or wait_s <= 60, "one request asks again after a minute, whatever the provider said"
