"""Receivers of webhooks on 127.0.0.1: they keep what comes, and answer what a test says."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import orjson


@dataclass(frozen=True)
class Message:
    headers: Mapping[str, str]
    body: bytes

    @property
    def event(self) -> dict[str, Any]:
        return dict(orjson.loads(self.body))

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]


#: How a message is answered: a status, or that and headers.
Answers = Callable[[Message], int | tuple[int, dict[str, str]]]


@dataclass
class Receiver:
    port: int
    answers: Answers
    messages: list[Message] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    @property
    def types(self) -> list[str]:
        return [message.event["type"] for message in self.messages]


def accepts(_message: Message) -> int:
    return 204


def in_turn(*statuses: int) -> Answers:
    """One after another, the last again and again."""
    left = list(statuses)
    return lambda _message: left.pop(0) if len(left) > 1 else left[0]


@contextmanager
def receiver(answers: Answers = accepts) -> Iterator[Receiver]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            message = Message({name.lower(): value for name, value in self.headers.items()}, body)
            running.messages.append(message)
            answer = running.answers(message)
            status, headers = (answer, {}) if isinstance(answer, int) else answer
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        running = Receiver(server.server_address[1], answers)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield running
        finally:
            server.shutdown()
            thread.join(20)
