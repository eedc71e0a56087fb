"""Reads documents in children that may die. The worker's side of `ingestion.readers.zygote`."""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from config.errors import CarrelError, UnreadableDocument
from ingestion.media import language_of
from ingestion.readers.base import PAGE_READ, Order, Parsed
from ingestion.readers.confinement import CONFINEMENT, Confinement
from rag.splitting.syntax import LANGUAGES

TOLD_S = 0.5  # at most so often, how many pages are read
GRACE_S = 5.0  # after which a child that should be dead by its own limits is given up
SLACK_BYTES = 8 * 1024 * 1024  # page offsets and names around the text
MAX_REASON_CHARS = 1_000
Note = Callable[[int], None]
COMMAND = (sys.executable, "-I", "-m", "ingestion.readers.zygote")


class ParserDied(CarrelError):
    """The child ended without an answer. Counted per document; the second time parks it."""

    code, title = "parser_died", "Reading the document ended its process"


class ParserTimedOut(ParserDied):
    """It was ended by its limit of time, and would be again: the first time parks the document."""


class Sandbox:
    def __init__(self, *, seconds: int, memory_bytes: int, max_chars: int, command: Sequence[str] = COMMAND) -> None:
        self._command = command
        self._seconds, self._memory_bytes, self._max_chars = seconds, memory_bytes, max_chars
        self._lock = threading.Lock()
        self._zygote: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None

    def read(self, path: Path, media_type: str, note: Note = lambda _pages: None) -> Parsed:
        """`note` is told now and then how many pages are read. Raise UnreadableDocument with a reason for the owner, or
        ParserDied.
        """
        outlined = language_of(media_type) in LANGUAGES
        order = Order(media_type, self._max_chars, self._seconds, self._memory_bytes, outlined)
        began = time.monotonic()
        raw, channel = self._ask(order, path, note)
        if not raw and _is_cut(channel):  # the zygote was lost, for which no document is to blame: once more
            began = time.monotonic()
            raw, channel = self._ask(order, path, note)
        if not raw and outlined:  # a megabyte of opening brackets takes gigabytes as a tree, and is text all the same
            began, order = time.monotonic(), replace(order, outlined=False)
            raw, _ = self._ask(order, path, note)
        return _parsed(raw, order, time.monotonic() - began >= self._seconds)

    def confinement(self) -> Confinement:
        """What the kernel refuses to a child of this machine; raise ParserDied if no child answers."""
        order = Order(CONFINEMENT, 0, self._seconds, self._memory_bytes)
        raw, _ = self._ask(order, Path(os.devnull), lambda _pages: None)
        if not raw:
            raise ParserDied("No child of the parsers could be started.")
        return Confinement(**json.loads(raw)["confinement"])

    def _ask(self, order: Order, path: Path, note: Note) -> tuple[bytes, socket.socket]:
        """The child's answer, empty if it gave none, and the zygote's channel that the order went through."""
        with path.open("rb") as source:  # first: of what is not there nothing is left open
            reader, writer = os.pipe()
            try:
                channel = self._send(json.dumps(asdict(order)).encode(), [source.fileno(), writer])
            except BaseException:
                os.close(reader)
                raise
            finally:
                os.close(writer)
        try:
            limit = 6 * self._max_chars + SLACK_BYTES
            return _drain(reader, time.monotonic() + self._seconds + GRACE_S, limit, note), channel
        finally:
            os.close(reader)

    def warm_up(self) -> None:
        """Start the zygote, whose imports take about a second."""
        with self._lock:
            self._channel_now()

    def close(self) -> None:
        with self._lock:
            self._drop_zygote()

    def _drop_zygote(self) -> None:
        """Close its channel, at which it ends with its children."""
        if self._channel is not None:
            self._channel.close()
        zygote, self._zygote, self._channel = self._zygote, None, None
        if zygote is not None:
            try:
                zygote.wait(timeout=GRACE_S)
            except subprocess.TimeoutExpired:
                zygote.kill()
                zygote.wait()

    def _send(self, message: bytes, descriptors: list[int]) -> socket.socket:
        with self._lock:
            channel = self._channel_now()
            try:
                socket.send_fds(channel, [message], descriptors)
            except OSError:  # the zygote was killed: once more, with a new one
                self._drop_zygote()
                channel = self._channel_now()
                socket.send_fds(channel, [message], descriptors)
            return channel

    def _channel_now(self) -> socket.socket:
        if self._channel is not None and _is_cut(self._channel):
            self._drop_zygote()
        if self._channel is None:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                self._zygote = subprocess.Popen(  # noqa: S603  our own module, no user input in the arguments
                    [*self._command, str(theirs.fileno())],
                    pass_fds=[theirs.fileno()],
                    env={},
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    cwd="/",
                )
            self._channel = ours
        return self._channel


def _is_cut(channel: socket.socket) -> bool:
    """Whether the zygote at its other end is gone: it never sends, so all there is to read is the end."""
    return channel.fileno() < 0 or _readable(channel.fileno(), 0)


def _readable(descriptor: int, seconds: float) -> bool:
    """Also at its end. Unlike select, of any descriptor: an API process may have thousands."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def _drain(reader: int, deadline: float, limit: int, note: Note) -> bytes:
    """Read until every holder of the pipe's other end is gone, which is when the child is.

    Before it answers, the child writes a blank line for each page that it has read: of JSON these are no part.
    """
    parts, pages, told_at = bytearray(), 0, time.monotonic()
    while (left := deadline - time.monotonic()) > 0 and len(parts) < limit:
        if _readable(reader, left):
            part = os.read(reader, 1 << 20)
            if not part:
                return bytes(parts)
            if pages == len(parts):
                pages += len(part) - len(part.lstrip(PAGE_READ))
            parts += part
            if pages == len(parts) and time.monotonic() - told_at >= TOLD_S:
                note(pages)
                told_at = time.monotonic()
    return b""


def _parsed(raw: bytes, order: Order, late: bool) -> Parsed:
    """A child may have been taken over: what it answers is looked at like a request."""
    try:
        outcome = json.loads(raw)
        if "refused" in outcome:
            raise UnreadableDocument(str(outcome["refused"])[:MAX_REASON_CHARS])
        parsed = Parsed.of(outcome["parsed"])
    except (ValueError, TypeError, KeyError, RecursionError):
        if late:
            raise ParserTimedOut(f"Reading the document took longer than {order.seconds} s; split it.") from None
        raise ParserDied("Reading the document crashed or ran out of memory.") from None
    if len(parsed.text) > order.max_chars:
        raise ParserDied("Reading the document gave more text than was asked for.")
    return parsed
