"""Tenants share the model and the places for jobs; one that is alone has all of them. Without threads where none is needed."""

from __future__ import annotations

import threading
from collections import Counter, deque
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestion.jobs.fair_gate import STRETCH, FairGate, Places, take_fairly
from rag.embedding.batcher import Lane, _Request
from rag.fairness import FORGET_ABOVE, FairClock
from tests.support import wait_for


@given(costs=st.lists(st.floats(0.1, 10), min_size=20, max_size=200), late=st.integers(0, 50))
def test_whoever_has_work_is_given_as_much_as_the_others_and_nothing_for_having_been_idle(
    costs: list[float], late: int
) -> None:
    """`b` comes late. From then on the two are never further apart than twice the largest cost."""
    clock, given = FairClock(), Counter[str]()
    for number, cost in enumerate(costs):
        tenant = clock.first(["a", "b"] if number >= late else ["a"])
        clock.charge(tenant, cost)
        if number >= late:
            given[tenant] += cost  # type: ignore[assignment]
            assert abs(given["a"] - given["b"]) <= 2 * max(costs)


def test_tenants_that_are_even_are_forgotten() -> None:
    clock = FairClock()
    for number in range(10 * FORGET_ABOVE):
        clock.charge(clock.first([f"tenant-{number}", "always"]), 1)
        clock.charge(clock.first(["always"]), 1)
    assert len(clock._due) <= FORGET_ABOVE + 2


def test_a_tenant_fills_its_own_turn_and_others_go_along_where_room_is_left() -> None:
    lane = Lane()
    flood, small = _Request([""] * 6, [10, 11, 12, 13, 14, 15], 1, "a"), _Request([""] * 2, [12, 13], 1, "b")
    lane.add(flood)
    lane.add(small)
    batches = [[(text.request.tenant, text.tokens) for text in lane.take(45)] for _ in range(4)]
    assert batches[0] == [("a", 13), ("a", 14), ("a", 15)]
    assert batches[1] == [("b", 12), ("b", 13), ("a", 12)]
    assert batches[2:] == [[("a", 10), ("a", 11)], []]


class Simulation:
    """A worker without threads: jobs are taken, embedded in a lane whose model reads a padded token a tick, and end."""

    def __init__(self, places: Places, jobs: dict[str, list[list[int]]]) -> None:
        self._places, self._clock, self._lane = places, FairClock(), Lane()
        self._waiting = {tenant: deque(lengths) for tenant, lengths in jobs.items()}
        self._running: list[_Request] = []
        self.now, self.most = 0, 0

    def bring(self, tenant: str, jobs: list[list[int]]) -> None:
        self._waiting[tenant] = deque(jobs)

    def step(self) -> None:
        waiting = [tenant for tenant, jobs in self._waiting.items() if jobs]
        held = Counter(request.tenant for request in self._running)
        take_fairly(self._places, self._clock, waiting, held, self._take)
        self.most = max(self.most, len(self._running))
        batch = self._lane.take(2048)
        self.now += max(text.tokens for text in batch) * len(batch)
        self._running = [request for request in self._running if request.waiting]

    def until_done(self, *tenants: str) -> dict[str, int]:
        """How long each tenant's last job takes from now."""
        began, done = self.now, dict[str, int]()
        while len(done) < len(tenants):
            self.step()
            busy = {request.tenant for request in self._running} | {name for name, jobs in self._waiting.items() if jobs}
            done = {name: self.now - began for name in tenants if name not in busy} | done
        return done

    def _take(self, tenant: str, number: int) -> list[str]:
        jobs = self._waiting[tenant]
        taken = [_Request([""] * len(job), job, 1, tenant) for job in [jobs.popleft() for _ in range(min(number, len(jobs)))]]
        for request in taken:
            self._lane.add(request)
        self._running += taken
        return [""] * len(taken)


def _jobs(count: int, chunks: int) -> list[list[int]]:
    return [[120 + (7 * job + 13 * chunk) % 100 for chunk in range(chunks)] for job in range(count)]


@pytest.mark.parametrize(("flood", "small"), [(20, 20), (1_000, 20), (1_000, 1), (1, 20), (1, 1)])
def test_small_tenants_get_their_share_of_a_flooded_worker(flood: int, small: int) -> None:
    """Within 1.5 times of what a third of the machine would take: chunks of a document of the one, and of the others."""
    alone = Simulation(Places(8), {"b": _jobs(5, small)}).until_done("b")["b"]
    flooded = Simulation(Places(8), {"a": _jobs(500, flood)})
    for _ in range(20):
        flooded.step()
    flooded.bring("b", _jobs(5, small))
    flooded.bring("c", _jobs(5, small))
    busy = flooded.until_done("b", "c")
    calls = 2 * 2048 * 3  # of two jobs at a time: each waits for a call of the model, and shares its own
    assert max(busy.values()) <= 1.5 * 3 * alone + calls, (alone, busy)
    assert flooded.most <= STRETCH * 8


def test_who_is_alone_loses_nothing() -> None:
    with_others, alone = Simulation(Places(8), {"a": _jobs(50, 20), "b": []}), Simulation(Places(8), {"a": _jobs(50, 20)})
    assert with_others.until_done("a") == alone.until_done("a")
    assert with_others.most == alone.most == 8


def _in_turns(places: Places, waiting: dict[str, int], running: dict[str, int] | None = None) -> Counter[str]:
    """How many places each tenant gets that has so many jobs waiting."""
    left = Counter(waiting)

    def take(tenant: str, number: int) -> list[str]:
        found = min(number, left[tenant])
        left[tenant] -= found
        return [tenant] * found

    return Counter(take_fairly(places, FairClock(), waiting, running or {}, take))


def test_places_are_shared_equally_and_lent_where_others_do_not_need_them() -> None:
    places = Places(8)
    assert _in_turns(places, {"a": 100}) == {"a": 8}
    assert _in_turns(places, {"a": 100, "b": 100}) == {"a": 4, "b": 4}
    assert _in_turns(places, {"a": 100, "b": 1, "c": 1}) == {"a": 6, "b": 1, "c": 1}
    assert _in_turns(places, {"a": 100}, {"a": 8}) == {}


def test_who_comes_while_all_places_are_lent_gets_its_share_beside_them() -> None:
    places = Places(8)
    assert _in_turns(places, {"a": 100, "b": 100}, {"a": 8}) == {"b": 4}
    assert _in_turns(places, {"a": 100, "b": 100}, {"a": 7, "b": 4}) == {}
    assert _in_turns(places, {"a": 9, "b": 9, "c": 9}, {"a": 8, "b": 4}) == {"c": 2}
    many = {f"tenant-{number}": 5 for number in range(30)}
    assert _in_turns(places, many, {"a": 8}).total() == 8
    assert set(_in_turns(places, many).values()) == {1}


def test_a_tenant_keeps_to_its_bound_while_others_have_work_and_only_then() -> None:
    places = Places(8, tenant_most=2)
    assert _in_turns(places, {"a": 100}) == {"a": 8}
    assert _in_turns(places, {"a": 100, "b": 100}) == {"a": 2, "b": 2}


def test_threads_get_places_in_turns_and_never_more_than_there_are() -> None:
    gate, lock, inside, most, order = FairGate(Places(2)), threading.Lock(), 0, 0, list[str]()
    hold = threading.Event()

    def work(tenant: str) -> None:
        nonlocal inside, most
        with gate.place(tenant):
            with lock:
                inside, most = inside + 1, max(most, inside + 1)
                order.append(tenant)
            assert hold.wait(30)
            with lock:
                inside -= 1

    with ThreadPoolExecutor(12) as pool:
        flood = [pool.submit(work, "a") for _ in range(8)]
        wait_for(lambda: inside == 2 and len(gate._waiting["a"]) == 6, what="the flood")
        late = [pool.submit(work, "b") for _ in range(2)]
        wait_for(lambda: order.count("b") == 1, what="a place beside what is lent")
        hold.set()
        for each in (*flood, *late):
            each.result(30)
    assert most <= STRETCH * 2
    assert not gate._waiting
    assert not gate._running


def test_a_place_is_free_again_after_a_failure() -> None:
    gate = FairGate(Places(1))
    for _ in range(3):
        with pytest.raises(OSError, match="disk"), gate.place("a"):
            raise OSError("disk")
