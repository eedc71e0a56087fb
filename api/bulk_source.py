"""The body of a bulk stream: pieces become lines, and lines batches, each bounded by count, bytes and time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass

import anyio
from starlette.requests import ClientDisconnect
from starlette.types import Receive

from config.errors import TooSlow, Unavailable

BATCH_LINES, BATCH_BYTES = 32, 4 << 20
FLUSH_S = 0.1  # how long a line waits for others
POLL_S = 0.5  # how soon a stop of the process is noticed
SILENCE_S = 60.0  # for a line to be completed
RETRY_AFTER_S = 5  # about what a restart takes


@dataclass(frozen=True, slots=True)
class Line:
    number: int  #: from 1, counting empty ones
    content: bytes | None  #: None: it was too long


class Lines:
    """Cuts pieces of a body into lines. Of one that is too long nothing is kept."""

    def __init__(self, max_bytes: int) -> None:
        self.number = 0  #: of the line that ended last
        self._max, self._rest, self._too_long = max_bytes, bytearray(), False

    def feed(self, piece: bytes) -> Iterator[Line]:
        *ended, rest = piece.split(b"\n")
        for part in ended:
            self._add(part)
            yield self._ended()
        self._add(rest)

    def last(self) -> Line | None:
        """What stood behind the last end of a line."""
        return self._ended() if self._rest or self._too_long else None

    def _add(self, part: bytes) -> None:
        self._too_long = self._too_long or len(self._rest) + len(part) > self._max
        if self._too_long:
            self._rest.clear()
        else:
            self._rest += part

    def _ended(self) -> Line:
        self.number += 1
        line = Line(self.number, None if self._too_long else bytes(self._rest).strip())
        self._rest, self._too_long = bytearray(), False
        return line


class Source:
    """The batches of a body, as they arrive."""

    def __init__(self, receive: Receive, lines: Lines, draining: threading.Event) -> None:
        self._receive, self._lines, self._draining = receive, lines, draining
        self._ready: list[Line] = []
        self._more = True

    async def batch(self) -> list[Line]:
        """The next lines, empty ones left out; no lines at the end.

        Raise TooSlow, Unavailable if the process stops, and ClientDisconnect.
        """
        due, patience = None, anyio.current_time() + SILENCE_S
        while self._more and not self._full():
            now = anyio.current_time()
            due = now + FLUSH_S if due is None and self._ready else due
            if due is not None and now >= due:
                break
            if now >= patience:
                raise TooSlow(f"No line was completed for {SILENCE_S:g} s.")
            if await self._read((due or now + POLL_S) - now):
                patience = anyio.current_time() + SILENCE_S
        return self._taken()

    @property
    def next_line(self) -> int:
        """Number of the first line that no batch had."""
        return self._ready[0].number if self._ready else self._lines.number + 1

    async def _read(self, seconds: float) -> bool:
        """Wait for a piece of the body, and say whether a line ended with it."""
        if self._draining.is_set():
            raise Unavailable("The service is stopping.", retry_after_s=RETRY_AFTER_S)
        message = None
        with anyio.move_on_after(seconds):
            message = await self._receive()
        if message is None:
            return False
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        self._more = message.get("more_body", False)
        ended = [*self._lines.feed(message.get("body", b""))]
        if not self._more and (last := self._lines.last()):
            ended.append(last)
        self._ready += [line for line in ended if line.content != b""]
        return bool(ended)

    def _full(self) -> bool:
        return len(self._ready) >= BATCH_LINES or sum(len(line.content or b"") for line in self._ready) >= BATCH_BYTES

    def _taken(self) -> list[Line]:
        size = count = 0
        for count, line in enumerate(self._ready[:BATCH_LINES], 1):  # noqa: B007  where the batch ends
            size += len(line.content or b"")
            if size >= BATCH_BYTES:
                break
        batch, self._ready = self._ready[:count], self._ready[count:]
        return batch
