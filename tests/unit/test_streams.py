"""Streams of progress: what a reader is sent, when a stream ends, and that nothing of it stays behind."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from api import streams
from api.routes.jobs import watch_job
from api.streams import MAX_STREAMS, MAX_STREAMS_OF_ONE, MAX_STREAMS_OF_TENANT, EventStream, JobStreams, Stream
from config.errors import NotFound, RateLimited, Unauthenticated, Unavailable
from ingestion.jobs.tables import Job
from tenants.context import Principal, PrincipalKind, TenantContext
from tests.unit.conftest import NOON, SetClock

TENANT = TenantContext("a", b"salt", Principal(PrincipalKind.KEY, "key_1", frozenset(), "key_1"))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "POLL_S", 0.01)


@dataclass
class Row:
    """A job's row as the poller reads it."""

    values: dict[str, Any] = field(default_factory=dict)
    reads: int = 0
    error: Exception | None = None
    gone: bool = False

    def __call__(self) -> Job | None:
        self.reads += 1
        if self.error is not None:
            raise self.error
        if self.gone:
            return None
        given = {"kind": "ingest", "state": "running", "stage": "embedding", "created_at": NOON, "updated_at": NOON}
        return Job(id="job_1", tenant_id="a", collection_id="c", document_id="d", **(given | self.values))

    def set(self, **values: Any) -> None:
        self.values = {**self.values, **values, "updated_at": self.values.get("updated_at", NOON) + 1}


class Bench:
    def __init__(self) -> None:
        self.draining = threading.Event()
        self.streams = JobStreams(SetClock(), self.draining)
        self.row = Row()

    def open(
        self, *, job: str = "job_1", tenant: str = "a", principal: str = "key", check: Callable[[], float] = lambda: 5.0
    ) -> Stream:
        return self.streams.follow((tenant, job), self.row, principal=principal, check=check)

    @contextmanager
    def following(self, **options: Any) -> Iterator[AsyncIterator[str]]:
        stream = self.open(**options)
        try:
            yield stream.frames()
        finally:
            stream.close()

    def nothing_is_left(self) -> bool:
        return not self.streams._pollers and not self.streams._open and not self.streams._of_tenant


def _run(scenario: Callable[[Bench], Coroutine[Any, Any, None]]) -> None:
    async def whole() -> None:
        bench = Bench()
        async with asyncio.timeout(20):
            await scenario(bench)
            assert bench.nothing_is_left()
            while len(asyncio.all_tasks()) > 1:  # a cancelled poller ends when its read has returned
                await asyncio.sleep(0.01)

    asyncio.run(whole())


def _told(frame: str) -> tuple[str, dict[str, Any]]:
    lines = dict(line.split(": ", 1) for line in frame.strip().splitlines())
    assert frame.endswith("\n\n")
    return lines["event"], {"id": lines["id"], **{"job": json.loads(lines["data"])}}


async def _next(frames: AsyncIterator[str]) -> tuple[str, dict[str, Any]]:
    while True:
        frame = await anext(frames)
        if frame.startswith("id:"):
            return _told(frame)


def test_a_stream_tells_the_present_state_every_change_and_the_end() -> None:
    async def scenario(bench: Bench) -> None:
        with bench.following() as frames:
            assert await anext(frames) == "retry: 1000\n\n"
            kinds, ids, done = [], [], []
            for change in ({}, {"tokens_done": 5}, {"state": "succeeded", "stage": "done"}):
                if change:
                    bench.row.set(**change)
                kind, told = await _next(frames)
                kinds.append(kind)
                ids.append(told["id"])
                done.append(told["job"]["state"])
            assert (await _next(frames))[0] == "done"
            with pytest.raises(StopAsyncIteration):
                await anext(frames)
            assert kinds == ["progress"] * 3
            assert len(set(ids)) == 3
            assert done == ["running", "running", "succeeded"]

    _run(scenario)


def test_a_stream_of_an_ended_job_is_its_end() -> None:
    async def scenario(bench: Bench) -> None:
        bench.row.set(state="failed", stage="done", error_code="unreadable_document")
        with bench.following() as frames:
            told = [frame async for frame in frames][1:]
        (first, job), (last, same) = map(_told, told)
        assert (first, last) == ("progress", "done")
        assert job == same
        assert job["job"]["error_code"] == "unreadable_document"
        assert job["job"]["progress"]["fraction"] == 1.0

    _run(scenario)


def test_silence_is_filled_with_heartbeats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "HEARTBEAT_S", 0.03)

    async def scenario(bench: Bench) -> None:
        with bench.following() as frames:
            await _next(frames)
            for _ in range(3):
                assert await anext(frames) == ": still there\n\n"

    _run(scenario)


def test_streams_of_one_job_share_one_poller() -> None:
    async def scenario(bench: Bench) -> None:
        with bench.following() as one, bench.following(principal="other") as two:
            for frames in (one, two):
                await _next(frames)
            assert len(bench.streams._pollers) == 1
            bench.row.set(chunks_done=1)
            told = [await _next(frames) for frames in (one, two)]
            assert told[0] == told[1]
        with bench.following(job="job_2"), bench.following():
            assert len(bench.streams._pollers) == 2

    _run(scenario)


def test_one_reader_leaving_does_not_end_the_others() -> None:
    async def scenario(bench: Bench) -> None:
        with bench.following() as stays:
            await _next(stays)
            with bench.following() as leaves:
                await _next(leaves)
            bench.row.set(chunks_done=1)
            assert (await _next(stays))[0] == "progress"

    _run(scenario)


@pytest.mark.parametrize(
    ("most", "holders"),
    [
        (MAX_STREAMS_OF_ONE, [("a", "key")] * MAX_STREAMS_OF_ONE),
        (MAX_STREAMS_OF_TENANT, [("a", str(number)) for number in range(MAX_STREAMS_OF_TENANT)]),
        (MAX_STREAMS, [(f"tenant {number % 8}", str(number)) for number in range(MAX_STREAMS)]),
    ],
    ids=["of a key", "of a tenant", "of all"],
)
def test_streams_beyond_the_limit_are_refused_until_one_ends(most: int, holders: list[tuple[str, str]]) -> None:
    async def scenario(bench: Bench) -> None:
        held = [bench.open(tenant=tenant, principal=principal) for tenant, principal in holders]
        if most != MAX_STREAMS:
            bench.open(tenant="b", principal="other").close()
        with pytest.raises(RateLimited) as refused:
            bench.open()
        assert refused.value.limit == most == len(held)
        assert refused.value.retry_after_s == 5
        held.pop().close()
        held.append(bench.open())
        for stream in held:
            stream.close()

    _run(scenario)


def test_tokens_of_one_key_share_its_streams() -> None:
    """Else one key could take those of everybody: it makes as many tokens as it likes."""

    async def scenario(bench: Bench) -> None:
        handle = SimpleNamespace(get=lambda _job: None, row=lambda _job: bench.row())
        services: Any = SimpleNamespace(streams=bench.streams, jobs=SimpleNamespace(for_tenant=lambda _tenant: handle))
        request: Any = SimpleNamespace(headers={"authorization": "Bearer x"}, state=SimpleNamespace(address="::1"))
        tenants = [Principal(PrincipalKind.TOKEN, f"tok_{n} of key_1", frozenset(), "key_1") for n in range(9)]
        followed = [await watch_job("job_1", request, services, TENANT, caller) for caller in tenants[:MAX_STREAMS_OF_ONE]]
        with pytest.raises(RateLimited):
            await watch_job("job_1", request, services, TENANT, tenants[-1])
        other = Principal(PrincipalKind.TOKEN, "tok_1 of key_2", frozenset(), "key_2")
        for one in [*followed, await watch_job("job_1", request, services, TENANT, other)]:
            one._stream.close()

    _run(scenario)


def test_a_service_that_stops_ends_streams_at_once_and_begins_none() -> None:
    async def scenario(bench: Bench) -> None:
        with bench.following() as frames:
            await _next(frames)
            bench.draining.set()
            with pytest.raises(StopAsyncIteration):
                await anext(frames)
        with pytest.raises(Unavailable):
            bench.open()

    _run(scenario)


@pytest.mark.parametrize("error", [Unauthenticated("revoked"), NotFound("bounds"), OperationalError("x", None, Exception())])
def test_a_reader_who_may_no_longer_is_cut_off(error: Exception) -> None:
    refused = False

    def check() -> float:
        if refused:
            raise error
        return 0.05

    async def scenario(bench: Bench) -> None:
        nonlocal refused
        with bench.following(check=check) as frames, bench.following() as other:
            await _next(frames)
            await asyncio.sleep(0.1)
            bench.row.set(chunks_done=1)
            await _next(frames)
            refused = True
            await asyncio.sleep(0.06)
            bench.row.set(chunks_done=2)
            with pytest.raises(StopAsyncIteration):
                await _next(frames)
            while (await _next(other))[1]["job"]["chunks_done"] < 2:
                continue

    _run(scenario)


def test_no_stream_lasts_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "LONGEST_S", 0.05)

    async def scenario(bench: Bench) -> None:
        with bench.following() as frames:
            assert len([frame async for frame in frames]) == 2

    _run(scenario)


def test_a_row_that_vanishes_or_cannot_be_read_ends_the_stream() -> None:
    async def scenario(bench: Bench) -> None:
        for change in ({"gone": True}, {"error": OperationalError("x", None, Exception())}):
            bench.row = Row()
            with bench.following() as frames:
                await _next(frames)
                for name, value in change.items():
                    setattr(bench.row, name, value)
                with pytest.raises(StopAsyncIteration):
                    await anext(frames)

    _run(scenario)


@asynccontextmanager
async def _served(bench: Bench) -> AsyncIterator[tuple[list[dict[str, Any]], asyncio.Event, asyncio.Task[None]]]:
    """The response behind a fake ASGI server; setting the event is the client going away."""
    sent: list[dict[str, Any]] = []
    away = asyncio.Event()

    async def receive() -> dict[str, Any]:
        await away.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "asgi": {"spec_version": "2.3"}}
    task = asyncio.create_task(EventStream(bench.open())(scope, receive, send))
    yield sent, away, task
    await task


def test_a_client_that_goes_away_leaves_nothing() -> None:
    async def scenario(bench: Bench) -> None:
        async with _served(bench) as (sent, away, _):
            while len(sent) < 3:
                await asyncio.sleep(0.01)
            headers = dict(sent[0]["headers"])
            assert headers[b"content-type"].startswith(b"text/event-stream")
            assert headers[b"cache-control"] == b"no-store"
            assert not bench.nothing_is_left()
            away.set()

    _run(scenario)


def test_an_answer_that_cannot_begin_leaves_nothing() -> None:
    async def scenario(bench: Bench) -> None:
        async def receive() -> dict[str, Any]:
            await asyncio.sleep(10)
            raise AssertionError

        async def send(_message: Any) -> None:
            raise OSError("the connection is gone")

        with pytest.raises((OSError, ExceptionGroup)):
            await EventStream(bench.open())({"type": "http"}, receive, send)

    _run(scenario)
