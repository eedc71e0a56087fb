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
from dataclasses import asdict
from pathlib import Path

from config.errors import CarrelError, UnreadableDocument
from ingestion.readers.base import Parsed
from ingestion.readers.zygote import Order

GRACE_S = 5.0  # after which a child that should be dead by its own limits is given up
MAX_ANSWER_BYTES = 512 * 1024 * 1024


class ParserDied(CarrelError):
    """The child ended without an answer. Counted per document; the second time parks it."""

    code, title = "parser_died", "Reading the document ended its process"


class Sandbox:
    def __init__(self, *, seconds: int, memory_bytes: int, max_chars: int) -> None:
        self._seconds, self._memory_bytes, self._max_chars = seconds, memory_bytes, max_chars
        self._lock = threading.Lock()
        self._zygote: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None

    def read(self, path: Path, media_type: str) -> Parsed:
        """Raise UnreadableDocument with a reason for the owner, or ParserDied."""
        order = Order(media_type, self._max_chars, self._seconds, self._memory_bytes)
        reader, writer = os.pipe()
        began = time.monotonic()
        try:
            with path.open("rb") as source:
                try:
                    self._send(json.dumps(asdict(order)).encode(), [source.fileno(), writer])
                finally:
                    os.close(writer)
            raw = _drain(reader, began + self._seconds + GRACE_S)
        finally:
            os.close(reader)
        return _parsed(raw, time.monotonic() - began >= self._seconds, self._seconds)

    def warm_up(self) -> None:
        """Start the zygote, whose imports take about a second."""
        with self._lock:
            self._channel_now()

    def close(self) -> None:
        with self._lock:
            if self._channel is not None:
                self._channel.close()
            if self._zygote is not None:
                self._zygote.wait(timeout=GRACE_S)
            self._channel = self._zygote = None

    def _send(self, message: bytes, descriptors: list[int]) -> None:
        with self._lock:
            try:
                socket.send_fds(self._channel_now(), [message], descriptors)
            except OSError:  # the zygote was killed: once more, with a new one
                self._channel = None
                socket.send_fds(self._channel_now(), [message], descriptors)

    def _channel_now(self) -> socket.socket:
        if self._zygote is not None and self._zygote.poll() is not None:
            self._channel = None
        if self._channel is None:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                self._zygote = subprocess.Popen(  # noqa: S603  our own module, no user input in the arguments
                    [sys.executable, "-I", "-m", "ingestion.readers.zygote", str(theirs.fileno())],
                    pass_fds=[theirs.fileno()],
                    env={},
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    cwd="/",
                )
            self._channel = ours
        return self._channel


def _drain(reader: int, deadline: float) -> bytes:
    """Read until every holder of the pipe's other end is gone, which is when the child is."""
    parts = bytearray()
    while (left := deadline - time.monotonic()) > 0 and len(parts) < MAX_ANSWER_BYTES:
        if select.select([reader], [], [], left)[0]:
            part = os.read(reader, 1 << 20)
            if not part:
                return bytes(parts)
            parts += part
    return b""


def _parsed(raw: bytes, late: bool, seconds: int) -> Parsed:
    try:
        outcome = json.loads(raw)
    except ValueError:
        reason = f"took longer than {seconds} s" if late else "crashed or ran out of memory"
        raise ParserDied(f"Reading the document {reason}.") from None
    if "refused" in outcome:
        raise UnreadableDocument(outcome["refused"])
    fields = outcome["parsed"]
    return Parsed(fields["text"], fields["markdown"], fields["title"], tuple(fields["pages"]))
