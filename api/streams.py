"""Streams of a job's progress as server-sent events. All streams of one job share one poller of its row.

A stream starts with the job's present state, so whoever connects again has missed nothing.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable

from anyio import to_thread
from sqlalchemy.exc import SQLAlchemyError
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from api.schemas.jobs import JobOut
from config.clock import Clock
from config.errors import CarrelError, RateLimited, Unavailable
from ingestion.jobs.progress import ENDED
from ingestion.jobs.tables import Job

log = logging.getLogger(__name__)

POLL_S = 0.25
LEAST_S = 0.05  # between two checks of a reader
HEARTBEAT_S = 15.0  # below the minute after which proxies cut off what is silent
LONGEST_S = 30 * 60.0
MAX_STREAMS, MAX_STREAMS_OF_TENANT, MAX_STREAMS_OF_ONE = 64, 32, 8
RETRY_AFTER_S = 5
RECONNECT_MS = 1000  # what browsers are told to wait before they connect again

Key = tuple[str, str]  # tenant and job
Read = Callable[[], Job | None]
#: Raises CarrelError once the reader may no longer; else says for how many seconds it may, before it is asked again.
Check = Callable[[], float]


class JobStreams:
    """The streams of this process. `draining` is set when it stops: every stream then ends within POLL_S."""

    def __init__(self, clock: Clock, draining: threading.Event) -> None:
        self.clock, self.draining = clock, draining
        self._pollers: dict[Key, _Poller] = {}
        self._open: Counter[str] = Counter()
        self._of_tenant: Counter[str] = Counter()

    def follow(self, key: Key, read: Read, *, principal: str, check: Check) -> Stream:
        """Raise RateLimited or Unavailable; else `close` it."""
        if self.draining.is_set():
            raise Unavailable("The service is stopping.", retry_after_s=RETRY_AFTER_S)
        for count, most, whose in (
            (self._open[principal], MAX_STREAMS_OF_ONE, "of one key"),
            (self._of_tenant[key[0]], MAX_STREAMS_OF_TENANT, "of one tenant"),
            (self._open.total(), MAX_STREAMS, "of all"),
        ):
            if count >= most:
                detail = f"At most {most} streams {whose} at a time; ask for the job itself instead."
                raise RateLimited(detail, limit=most, retry_after_s=RETRY_AFTER_S)
        if key not in self._pollers:
            self._pollers[key] = _Poller(read, self.draining)
        self._open[principal] += 1
        self._of_tenant[key[0]] += 1
        self._pollers[key].readers += 1
        return Stream(self._pollers[key], self.clock, check, lambda: self._leave(key, principal))

    def _leave(self, key: Key, principal: str) -> None:
        for counter, whose in ((self._open, principal), (self._of_tenant, key[0])):
            counter[whose] -= 1
            if not counter[whose]:  # forget whoever has none
                del counter[whose]
        poller = self._pollers[key]
        poller.readers -= 1
        if poller.readers == 0:
            del self._pollers[key]
            poller.task.cancel()


class _Poller:
    """Reads one job's row again and again, and wakes its readers when it has changed."""

    def __init__(self, read: Read, draining: threading.Event) -> None:
        self._read, self._draining = read, draining
        self.readers = 0
        self.job: Job | None = None
        self.ended = False  #: nothing more will come
        self.changed = asyncio.Event()  #: set once; the next change has another
        self.task = asyncio.create_task(self._poll())

    async def _poll(self) -> None:
        try:
            while not self._draining.is_set():
                job = await to_thread.run_sync(self._read)
                if job is None:
                    return
                if self.job is None or job.model_dump() != self.job.model_dump():
                    self.job = job
                    self._wake()
                await asyncio.sleep(POLL_S)
        except SQLAlchemyError as error:  # the readers connect again, and are told then
            log.warning("a job cannot be followed", extra={"reason": repr(error)})
        finally:
            self.ended = True
            self._wake()

    def _wake(self) -> None:
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()


class Stream:
    """What one reader is sent. `close` it in any case, once."""

    def __init__(self, poller: _Poller, clock: Clock, check: Check, close: Callable[[], None]) -> None:
        self._poller, self._clock, self._check, self.close = poller, clock, check, close

    async def frames(self) -> AsyncIterator[str]:
        yield f"retry: {RECONNECT_MS}\n\n"
        begun = spoke = permitted_until = time.monotonic()
        sent: Job | None = None
        while not self._poller.ended and (now := time.monotonic()) - begun < LONGEST_S:
            job, changed = self._poller.job, self._poller.changed
            if now >= permitted_until:
                if (permitted_s := await to_thread.run_sync(self._permitted_s)) is None:
                    return
                permitted_until = now + permitted_s
            if job is not None and job is not sent:
                sent, spoke = job, now
                yield self._frame("progress", job)
                if job.state in ENDED:
                    yield self._frame("done", job)
                    return
            elif now - spoke >= HEARTBEAT_S:
                spoke = now
                yield ": still there\n\n"
            await _wait(changed, min(permitted_until, spoke + HEARTBEAT_S, begun + LONGEST_S) - time.monotonic())

    def _permitted_s(self) -> float | None:
        try:
            return max(self._check(), LEAST_S)
        except (CarrelError, SQLAlchemyError):  # whoever connects again is told why
            return None

    def _frame(self, event: str, job: Job) -> str:
        data = JobOut.of(job, self._clock()).model_dump_json()
        return f"id: {job.updated_at}\nevent: {event}\ndata: {data}\n\n"


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(max(seconds, 0.0)):
            await event.wait()
    except TimeoutError:
        return


class EventStream(StreamingResponse):
    media_type = "text/event-stream"

    def __init__(self, stream: Stream) -> None:
        # X-Accel-Buffering: nginx would otherwise keep events back until its buffer is full
        super().__init__(stream.frames(), headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        self._stream = stream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._stream.close()
