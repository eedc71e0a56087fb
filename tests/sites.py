"""Web sites on 127.0.0.1 that answer byte by byte what a test says, and count who comes."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

#: Answers one request on the connection: its first line, then the connection.
Answer = Callable[[str, socket.socket], None]


@dataclass
class Site:
    port: int
    answer: Answer
    connections: int = 0
    requests: list[str] = field(default_factory=list)  #: the first lines
    headers: list[dict[str, str]] = field(default_factory=list)

    def url(self, path: str = "/", host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"


def page(body: bytes, kind: str = "text/plain", *headers: str, status: str = "200 OK") -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {kind}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def redirect(location: str, status: str = "302 Found") -> bytes:
    return page(b"", "text/plain", f"Location: {location}", status=status)


def says(*answers: bytes) -> Answer:
    """One answer after another, the last again and again."""
    left = list(answers)

    def answer(_line: str, connection: socket.socket) -> None:
        connection.sendall(left.pop(0) if len(left) > 1 else left[0])

    return answer


@contextmanager
def site(answer: Answer, *, tls: ssl.SSLContext | None = None) -> Iterator[Site]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        running, stop = Site(listener.getsockname()[1], answer), threading.Event()
        listener.settimeout(0.02)
        thread = threading.Thread(target=_serve, args=(running, listener, stop, tls))
        thread.start()
        try:
            yield running
        finally:
            stop.set()
            thread.join(20)


def _serve(running: Site, listener: socket.socket, stop: threading.Event, tls: ssl.SSLContext | None) -> None:
    while not stop.is_set():
        with suppress(TimeoutError):
            connection, _ = listener.accept()
            running.connections += 1
            connection.settimeout(5)
            with connection, suppress(OSError):  # whoever came may go at any moment
                with tls.wrap_socket(connection, server_side=True) if tls else connection as secured:
                    _answer(running, secured)


def _answer(running: Site, connection: socket.socket) -> None:
    request = b""
    while b"\r\n\r\n" not in request:
        part = connection.recv(65536)
        if not part:
            return
        request += part
    line, *headers = request.decode().partition("\r\n\r\n")[0].split("\r\n")
    running.requests.append(line)
    running.headers.append({name.lower(): value for name, _, value in (header.partition(": ") for header in headers)})
    running.answer(line, connection)
