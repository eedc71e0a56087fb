"""Bulk streams as programs of users make them: over a bare socket, at a pace of the test's own."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

HEAD = (
    "POST /v1/bulk{query} HTTP/1.1\r\nHost: carrel\r\nAuthorization: Bearer {key}\r\n"
    "Content-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
)


def line(number: int, **fields: Any) -> bytes:
    return json.dumps({"text": f"Board {number} is made of oak.", "external_id": f"b{number}", **fields}).encode() + b"\n"


class RawStream:
    """One request, written and read independently of each other."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._answer = connection.makefile("rb")

    def send(self, piece: bytes) -> None:
        self._connection.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))

    def end(self) -> None:
        self._connection.sendall(b"0\r\n\r\n")

    def close(self) -> None:
        self._answer.close()  # the connection is not closed before

    def status(self) -> int:
        status = int(self._answer.readline().split()[1])
        while self._answer.readline().strip():
            pass
        return status

    def answers(self) -> Iterator[dict[str, Any]]:
        """Until the end, or until the connection breaks."""
        rest = b""
        while size := int(self._answer.readline().strip() or b"0", 16):
            *lines, rest = (rest + self._answer.read(size)).split(b"\n")
            self._answer.readline()
            yield from map(json.loads, lines)


@contextmanager
def raw_stream(url: str, key: str, query: str = "") -> Iterator[RawStream]:
    at = urlsplit(url)
    with socket.create_connection((at.hostname or "", at.port or 0), timeout=60) as connection:
        connection.sendall(HEAD.format(key=key, query=query).encode())
        stream = RawStream(connection)
        try:
            yield stream
        finally:
            stream.close()


def posted(http: Any, lines: Iterable[bytes], **params: Any) -> list[dict[str, Any]]:
    """All answers to a stream that is sent whole before anything is read."""
    headers = {"Content-Type": "application/x-ndjson"}
    answer = http.post("/v1/bulk", content=b"".join(lines), params=params, headers=headers)
    assert answer.status_code == 200, answer.text
    return [json.loads(item) for item in answer.text.splitlines()]
