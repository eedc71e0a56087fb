"""Answers that come piece by piece: bytes become lines, and lines become server-sent events. Does no I/O.

Lines end with LF or CR LF only: a text inside one may hold what else Unicode calls a line's end.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

STREAM_SILENCE_S = 45.0  # three heartbeats of the service
HEARTBEAT = ("", None)  #: what a comment of a stream becomes
MAX_LINE_BYTES = 64 << 20


class Lines:
    """Give it each piece, and `ended` at the end. Empty lines are told too."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._held = 0

    def fed(self, piece: bytes) -> Iterator[str]:
        *ended, rest = piece.split(b"\n")
        for line in ended:
            yield self._line(line)
        if rest:
            self._pieces.append(rest)
            self._held += len(rest)
        if self._held > MAX_LINE_BYTES:
            raise ValueError(f"a line of more than {MAX_LINE_BYTES:,} bytes")

    def ended(self) -> Iterator[str]:
        if self._pieces:
            yield self._line(b"")

    def _line(self, end: bytes) -> str:
        line = b"".join([*self._pieces, end])
        self._pieces, self._held = [], 0
        return line.removesuffix(b"\r").decode("utf-8", "replace")


class EventDecoder:
    """The events of a stream, as HTML's specification has them: name and data, which is JSON."""

    def __init__(self) -> None:
        self._name, self._data = "", list[str]()

    def line(self, line: str) -> tuple[str, Any] | None:
        """The event that a line completes; HEARTBEAT of a comment. Raise ValueError for data that is no JSON."""
        if line.startswith(":"):
            return HEARTBEAT
        if line:
            field, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if field == "event":
                self._name = value
            elif field == "data":
                self._data.append(value)
            return None
        name, data, self._name, self._data = self._name, self._data, "", []
        return (name or "message", json.loads("\n".join(data))) if data else None
