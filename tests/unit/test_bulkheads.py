"""One class's flood takes no place of another's, one tenant's not all of a class's, and what is too much is let go in order."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from api.middleware.bulkheads import Bulkheads
from config.errors import Busy, CarrelError, Shedding
from tenants.limits.rates import OperationClass

QUERY, INGEST, READ, ADMIN = OperationClass.QUERY, OperationClass.INGEST, OperationClass.READ, OperationClass.ADMIN


def bulkheads(places: int = 4, room: int = 8, wait_s: float = 5.0) -> Bulkheads:
    return Bulkheads(dict.fromkeys(OperationClass, places), room=room, wait_s=wait_s)


def run(scenario: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(20):
            await scenario

    asyncio.run(bounded())


async def begun(gate: Bulkheads, *callers: tuple[OperationClass, str], most: int | None = None) -> list[asyncio.Task[None]]:
    tasks = []
    for kind, tenant in callers:
        tasks.append(asyncio.create_task(gate.enter(kind, tenant, most)))
        await asyncio.sleep(0)  # in this order
    await asyncio.sleep(0)
    return tasks


def outcome(task: asyncio.Task[None]) -> str:
    if not task.done():
        return "waits"
    error = task.exception()
    return "in" if error is None else type(error).__name__


def test_a_class_that_is_full_takes_nothing_from_another() -> None:
    async def scenario() -> None:
        gate = bulkheads()
        ingests = await begun(gate, *[(INGEST, tenant) for tenant in "abcdef"])
        assert [outcome(task) for task in ingests] == ["in"] * 4 + ["waits"] * 2
        for kind in (QUERY, READ, ADMIN):
            assert [outcome(task) for task in await begun(gate, (kind, "a"))] == ["in"]
        gate.leave(INGEST, "a")
        await asyncio.sleep(0)
        assert [outcome(task) for task in ingests] == ["in"] * 5 + ["waits"]
        gate.leave(INGEST, "b")
        await ingests[5]

    run(scenario())


def test_one_tenant_leaves_places_for_others_and_gets_its_next_later() -> None:
    async def scenario() -> None:
        gate = bulkheads()
        flood = await begun(gate, *[(QUERY, "a")] * 5)
        assert [outcome(task) for task in flood] == ["in"] * 3 + ["waits"] * 2
        [other] = await begun(gate, (QUERY, "b"))
        assert outcome(other) == "in"
        [late] = await begun(gate, (QUERY, "c"))
        gate.leave(QUERY, "a")
        await asyncio.sleep(0)
        assert outcome(late) == "in", "it has none, and they have two"
        assert [outcome(task) for task in flood[3:]] == ["waits"] * 2
        gate.leave(QUERY, "b")
        await asyncio.sleep(0)
        assert [outcome(task) for task in flood[3:]] == ["in", "waits"]
        gate.leave(QUERY, "c")
        gate.leave(QUERY, "a")
        await flood[4]

    run(scenario())


def test_a_plans_bound_counts_all_classes_together() -> None:
    async def scenario() -> None:
        gate = bulkheads()
        first = await begun(gate, (QUERY, "a"), (INGEST, "a"), (READ, "a"), most=2)
        assert [outcome(task) for task in first] == ["in", "in", "waits"]
        assert [outcome(task) for task in await begun(gate, (READ, "b"), most=2)] == ["in"]
        gate.leave(INGEST, "a")
        await first[2]

    run(scenario())


def test_when_all_room_is_taken_the_lowest_class_is_let_go_first() -> None:
    async def scenario() -> None:
        gate = bulkheads(places=1, room=4)
        await begun(gate, *[(kind, "z") for kind in OperationClass])
        waiting = await begun(gate, (INGEST, "a"), (INGEST, "b"), (READ, "c"), (QUERY, "d"))
        assert [outcome(task) for task in waiting] == ["waits"] * 4
        [admin] = await begun(gate, (ADMIN, "e"))
        assert [outcome(task) for task in (admin, *waiting)].count("Shedding") == 1
        assert outcome(waiting[2]) == outcome(waiting[3]) == "waits"
        [ingest] = await begun(gate, (INGEST, "f"))
        assert outcome(ingest) == "Shedding", "it is of the lowest class itself"
        queries = await begun(gate, (QUERY, "g"), (QUERY, "h"), (QUERY, "i"))
        assert [outcome(task) for task in queries] == ["waits", "waits", "Shedding"]
        assert [outcome(task) for task in waiting] == ["Shedding", "Shedding", "Shedding", "waits"]
        shed = ingest.exception()
        assert isinstance(shed, Shedding)
        assert (shed.status, shed.retryable, shed.retry_after_s) == (503, True, 1.0)
        for task in (admin, waiting[3], *queries[:2]):
            task.cancel()

    run(scenario())


def test_who_went_away_a_moment_ago_makes_room_like_who_waits() -> None:
    async def scenario() -> None:
        gate = bulkheads(places=1, room=1)
        await begun(gate, (QUERY, "z"), (INGEST, "z"))
        [gone] = await begun(gate, (INGEST, "a"))
        gone.cancel()  # as when its time runs out: it does not know before the loop's next round
        asyncio.get_running_loop().call_later(0.01, gate.leave, QUERY, "z")
        await gate.enter(QUERY, "b")
        with pytest.raises(asyncio.CancelledError):
            await gone

    run(scenario())


def test_one_tenant_cannot_fill_the_room() -> None:
    async def scenario() -> None:
        gate = bulkheads(places=1, room=8)
        await begun(gate, (QUERY, "z"))
        waiting = await begun(gate, *[(QUERY, "a")] * 3)
        assert [outcome(task) for task in waiting] == ["waits", "waits", "Busy"]
        busy = waiting[2].exception()
        assert isinstance(busy, Busy)
        assert (busy.status, busy.retry_after_s) == (429, 1.0)
        assert [outcome(task) for task in await begun(gate, (QUERY, "b"))] == ["waits"]

    run(scenario())


def test_nobody_waits_for_longer_than_the_bound_and_leaves_nothing() -> None:
    async def scenario() -> None:
        gate = bulkheads(places=1, wait_s=0.05)
        await gate.enter(QUERY, "a")
        with pytest.raises(Shedding):
            await gate.enter(QUERY, "b")
        gate.leave(QUERY, "a")
        await gate.enter(QUERY, "b")
        gate.leave(QUERY, "b")
        assert not gate._waiting_of
        assert not gate._all_of

    run(scenario())


@pytest.mark.parametrize("turns", [0, 1])
def test_who_goes_away_gives_the_place_on(turns: int) -> None:
    """Also if the turn had come a moment before."""

    async def scenario() -> None:
        gate = bulkheads(places=1)
        await gate.enter(QUERY, "a")
        [gone, next_one] = await begun(gate, (QUERY, "b"), (QUERY, "c"))
        if turns:
            gate.leave(QUERY, "a")
        gone.cancel()
        if not turns:
            gate.leave(QUERY, "a")
        await next_one
        with pytest.raises(asyncio.CancelledError):
            await gone
        gate.leave(QUERY, "c")
        await gate.enter(QUERY, "a")

    run(scenario())


def test_a_storm_leaves_no_place_lost_and_never_takes_too_many() -> None:
    async def scenario() -> None:
        gate, running, most = bulkheads(places=3, room=50, wait_s=0.02), 0, 0

        async def request(number: int) -> None:
            nonlocal running, most
            kind, tenant = (QUERY, INGEST)[number % 2], "abc"[number % 3]
            try:
                await gate.enter(kind, tenant)
            except CarrelError:
                return
            running += 1
            most = max(most, running)
            await asyncio.sleep(0.001 * (number % 7))
            running -= 1
            gate.leave(kind, tenant)

        tasks = [asyncio.create_task(request(number)) for number in range(600)]
        for task in tasks[::13]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert most <= 6
        assert not gate._all_of
        assert not gate._waiting_of
        assert all(count == 0 for count in gate._running.values())

    run(scenario())
