"""Streams of lines that are answered line by line: read in batches, taken in, answered in their order. Knows no documents.

    lines ─► batch (32 lines, 4 MiB or 100 ms) ─► taken in, in a thread ─► outbox ─► answers, while the next batch is read

Memory is that of one batch, one line and the outbox, however long the stream is. An answer is put out when what it tells of
is durable. A client that does not read what it is answered is waited for, and one that sends nothing is sent away.
"""

from __future__ import annotations

import json
import logging
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import anyio
from anyio import to_thread
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api.bulk_source import Line, Lines, Source
from api.problems import problem_of
from config.errors import CarrelError, InvalidInput, RateLimited, Unavailable

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/x-ndjson"
UNREAD_S = 60.0  # for a piece of the answers to be taken
PIECE_BYTES = 64 << 10  # of answers that are sent at a time
OUTBOX_BYTES = 8 << 20  # answers to some 50,000 lines, for clients that read when they have sent everything
MAX_STREAMS, MAX_STREAMS_OF_ONE = 16, 4
RETRY_AFTER_S = 5
MAX_TOLD = 500  # characters of a problem that a line's answer repeats


class Outbox:
    """What is answered and not sent yet."""

    def __init__(self) -> None:
        self._waiting, self._closed, self._changed = bytearray(), False, anyio.Event()
        self.stuck = False  #: nobody reads

    def put(self, answers: bytes) -> None:
        self._waiting += answers
        self._wake()

    def close(self) -> None:
        self._closed = True
        self._wake()

    async def room(self) -> None:
        """Wait until it is not full; raise ClientDisconnect if nobody reads."""
        while len(self._waiting) >= OUTBOX_BYTES and not self.stuck:
            await self._changed.wait()
        if self.stuck:
            raise ClientDisconnect

    async def deliver(self, send: Send) -> None:
        """Send what is put in, until it is closed."""
        while not self.stuck and (self._waiting or not self._closed):
            if not self._waiting:
                await self._changed.wait()
                continue
            piece = bytes(self._waiting[:PIECE_BYTES])
            del self._waiting[:PIECE_BYTES]
            await self._send(send, piece, more=True)
        if not self.stuck:
            await self._send(send, b"", more=False)

    async def _send(self, send: Send, piece: bytes, *, more: bool) -> None:
        with anyio.move_on_after(UNREAD_S) as patience:
            await send({"type": "http.response.body", "body": piece, "more_body": more})
        self.stuck = patience.cancelled_caught
        self._wake()

    def _wake(self) -> None:
        changed, self._changed = self._changed, anyio.Event()
        changed.set()


@dataclass(frozen=True, slots=True)
class Done:
    """What became of a line: a status, and what else its answer says; or the refusal."""

    status: int
    fields: dict[str, Any]
    refusal: CarrelError | None = None


@dataclass(slots=True)
class Tally:
    """`lines` were answered. From `next_line` on none was taken in: there the stream goes on."""

    lines: int = 0
    accepted: int = 0
    unchanged: int = 0
    refused: int = 0
    next_line: int | None = None
    problem: dict[str, Any] | None = None

    def count(self, done: Done) -> None:
        self.lines += 1
        self.refused += done.refusal is not None
        self.accepted += done.status == 202
        self.unchanged += done.status == 200

    def told(self) -> dict[str, Any]:
        stopped = None if self.problem is None else {"next_line": self.next_line, "problem": self.problem}
        counts = {name: getattr(self, name) for name in ("lines", "accepted", "unchanged", "refused")}
        return {"summary": {**counts, "stopped": stopped}}


class Work(Protocol):
    """What is done with the lines; called in threads, one call after the other."""

    def take(self, lines: Sequence[Line], most_refused: int) -> list[Done]:
        """What became of each. Fewer than there are lines: it stopped behind the last one told of."""

    def ended(self, tally: Tally) -> None:
        """Nothing more will be asked. Before the summary is sent, and also if nobody is there to read it."""


class BulkStream(Response):
    """An answer that reads its request while it is sent."""

    media_type = MEDIA_TYPE

    def __init__(
        self, work: Work, *, max_line: int, max_errors: int, draining: threading.Event, close: Callable[[], None]
    ) -> None:
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._work, self._lines, self._max_errors = work, Lines(max_line), max_errors
        self._draining, self._close = draining, close
        self._tally, self._outbox = Tally(), Outbox()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            async with anyio.create_task_group() as group:
                group.start_soon(self._outbox.deliver, send)
                try:
                    await self._take_in(Source(receive, self._lines, self._draining))
                except ClientDisconnect:
                    self._outbox.stuck = True
                    group.cancel_scope.cancel()
                await self._end()
            if self._outbox.stuck:
                raise ClientDisconnect
        finally:
            self._close()

    async def _end(self) -> None:
        with anyio.CancelScope(shield=True):
            await to_thread.run_sync(self._work.ended, self._tally)
        self._outbox.put(_line(self._tally.told()))
        self._outbox.close()

    async def _take_in(self, source: Source) -> None:
        """Until the body ends or something stops it."""
        begun: list[Line] = []
        try:
            while begun := await source.batch():
                done = await to_thread.run_sync(self._work.take, begun, self._max_errors - self._tally.refused)
                self._answer(begun, done)
                if self._tally.problem is not None:
                    return
                begun = []
                await self._outbox.room()
        except ClientDisconnect:
            self._tally.problem = {"code": "client_disconnected"}
            raise
        except (CarrelError, OperationalError, PoolTimeout) as error:
            self._stop(_told(error), begun[0].number if begun else source.next_line)
        except Exception as error:  # the status is sent already: the summary must say what happened
            log.error("a bulk stream failed", exc_info=error)
            why = CarrelError("The stream failed inside the service; quote the request id when asking.")
            self._stop(why, begun[0].number if begun else source.next_line)

    def _answer(self, lines: Sequence[Line], done: Sequence[Done]) -> None:
        for line, one in zip(lines, done, strict=False):
            self._tally.count(one)
            if one.refusal is None:
                self._outbox.put(_line({"line": line.number, "status": one.status, **one.fields}))
            else:
                self._outbox.put(_line({"line": line.number, "status": one.status, "problem": _problem(one.refusal)}))
        last = done[-1].refusal
        if last is not None and last.retryable:
            self._stop(last, lines[len(done) - 1].number)
        elif self._tally.refused >= self._max_errors:
            why = InvalidInput(f"Stopped after {self._max_errors} refused lines.", field="max_errors", limit=self._max_errors)
            self._stop(why, lines[len(done) - 1].number + 1)

    def _stop(self, error: CarrelError, next_line: int | None) -> None:
        self._tally.problem, self._tally.next_line = _problem(error), next_line


def _told(error: Exception) -> CarrelError:
    if isinstance(error, CarrelError):
        return error
    log.error("the database does not answer", exc_info=error)
    return Unavailable("The database does not answer.", retry_after_s=2)


def _problem(error: CarrelError) -> dict[str, Any]:
    told = problem_of(error).model_dump(exclude_none=True, exclude={"type", "title", "request_id"})
    cut = {name: value[:MAX_TOLD] if isinstance(value, str) else value for name, value in told.items()}
    return cut if error.retry_after_s is None else {**cut, "retry_after_seconds": error.retry_after_s}


def _line(answer: dict[str, Any]) -> bytes:
    return json.dumps(answer, separators=(",", ":")).encode() + b"\n"


class BulkTurns:
    """How many streams there are, of each tenant and of all."""

    def __init__(self) -> None:
        self._open: Counter[str] = Counter()

    def begin(self, tenant_id: str) -> Callable[[], None]:
        """Raise RateLimited; else call what is returned at the end, once."""
        for count, most, whose in (
            (self._open[tenant_id], MAX_STREAMS_OF_ONE, "of one tenant"),
            (self._open.total(), MAX_STREAMS, "of all"),
        ):
            if count >= most:
                raise RateLimited(f"At most {most} bulk streams {whose} at a time.", limit=most, retry_after_s=RETRY_AFTER_S)
        self._open[tenant_id] += 1
        return lambda: self._end(tenant_id)

    def _end(self, tenant_id: str) -> None:
        self._open[tenant_id] -= 1
        self._open += Counter()  # forgets whoever has none
