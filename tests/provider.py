"""An OpenAI-compatible embedding server on loopback that misbehaves on command, and remembers every request."""

from __future__ import annotations

import base64
import hashlib
import json
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import numpy as np

from rag.embedding.runtime import Matrix

WIDTH = 24


def vector_of(text: str, width: int = WIDTH) -> Matrix:
    """The unit vector that the server has for a text."""
    seed = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
    vector = np.random.default_rng(seed).standard_normal(width)
    return np.asarray(vector / np.linalg.norm(vector), np.float32)


@dataclass(frozen=True)
class Received:
    """One request as the server saw it. `good`: it was answered with every vector, complete and right."""

    texts: tuple[str, ...]
    headers: dict[str, str]
    request: dict[str, Any]
    began: float
    good: bool
    act: str


@dataclass
class Provider:
    """What is done with a request is decided by `act(number of the request, its texts)`: "ok", or a misbehaviour."""

    act: Callable[[int, Sequence[str]], str] = lambda _number, _texts: "ok"
    base64: bool = True
    width: int = WIDTH
    pause_s: float = 0.0  #: of every answer
    url: str = ""
    received: list[Received] = field(default_factory=list)
    under_way: int = 0
    most_under_way: int = 0
    released: threading.Event = field(default_factory=threading.Event)  #: ends what hangs
    lock: threading.Lock = field(default_factory=threading.Lock)
    numbers: int = 0
    connections: set[socket.socket] = field(default_factory=set)

    @property
    def paid(self) -> Counter[str]:
        """How often each text was answered well."""
        return Counter(text for request in self.received if request.good for text in request.texts)

    @property
    def resent(self) -> int:
        """Requests that repeat another one."""
        return len(self.received) - len({request.texts for request in self.received})


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body are two packets, and the second would wait 40 ms for an acknowledgement
    provider: ClassVar[Provider]

    def setup(self) -> None:
        super().setup()
        self.provider.connections.add(self.connection)

    def finish(self) -> None:
        self.provider.connections.discard(self.connection)
        super().finish()

    def log_message(self, *_: Any) -> None:
        pass

    def do_POST(self) -> None:
        provider, began = self.provider, time.monotonic()
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        texts = tuple(request["input"])
        with provider.lock:
            provider.numbers += 1
            act = "no such address" if self.path != "/v1/embeddings" else provider.act(provider.numbers, texts)
            provider.under_way += 1
            provider.most_under_way = max(provider.most_under_way, provider.under_way)
            headers = {name.lower(): value for name, value in self.headers.items()}
            provider.received.append(Received(texts, headers, request, began, act in GOOD, act))
        try:
            if provider.pause_s:
                time.sleep(provider.pause_s)
            self._answer(act, texts, request)
        finally:
            with provider.lock:
                provider.under_way -= 1

    def _answer(self, act: str, texts: Sequence[str], request: dict[str, Any]) -> None:
        if act == "hang":
            self.provider.released.wait(30)
            self.close_connection = True
        elif act == "drop":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True
        elif act == "drip":
            self._drip()
        elif act == "flood":
            self._send(200, b" " * (4 << 20), {})
        elif act in STATUSES:
            status, headers, body = STATUSES[act]
            self._send(status, json.dumps(body).encode(), headers)
        else:
            body = json.dumps({"object": "list", "data": self._data(act, texts, request), "model": request["model"]}).encode()
            if act == "garbage":
                body = b"<html>" + body
            self._send(200, body, {}, cut=act == "half")

    def _drip(self) -> None:
        """A byte at a time, each before anybody takes it for silence, and no end."""
        self.send_response(200)
        self.send_header("Content-Length", "1000000")
        self.end_headers()
        self.close_connection = True
        with suppress(OSError):
            while not self.provider.released.wait(0.02):
                self.wfile.write(b" ")

    def _data(self, act: str, texts: Sequence[str], request: dict[str, Any]) -> list[dict[str, Any]]:
        width = request.get("dimensions", self.provider.width) if act == "obedient" else self.provider.width
        rows = [vector_of(text, self.provider.width)[:width] * 3 for text in texts]  # not of unit length
        if act == "nan":
            rows[-1][0] = np.nan
        elif act == "zeros":
            rows[-1][:] = 0
        elif act == "ragged":
            rows[-1] = rows[-1][:-1]
        elif act == "short":
            rows = [row[:4] for row in rows]
        encoded = request["encoding_format"] == "base64" and self.provider.base64
        data = [
            {
                "object": "embedding",
                "index": place,
                "embedding": base64.b64encode(row.astype("<f4").tobytes()).decode() if encoded else row.tolist(),
            }
            for place, row in enumerate(rows)
        ]
        if act == "wrong count":
            data.pop()
        elif act == "wrong index":
            data[-1]["index"] = len(data)
        elif act == "out of order":
            data.reverse()
        return data

    def _send(self, status: int, body: bytes, headers: dict[str, str], *, cut: bool = False) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.close_connection = cut
        with suppress(OSError):  # a client that has had enough
            self.wfile.write(body[: len(body) // 2] if cut else body)


GOOD = {"ok", "out of order", "obedient"}
_LIMIT = {"error": {"code": "rate_limit_exceeded", "message": "Rate limit reached"}}
STATUSES: dict[str, tuple[int, dict[str, str], object]] = {
    "429": (429, {}, _LIMIT),
    "429 ms": (429, {"retry-after-ms": "30"}, _LIMIT),
    "429 seconds": (429, {"Retry-After": "1"}, _LIMIT),
    "429 long": (429, {"Retry-After": "30"}, _LIMIT),
    "429 long ago": (429, {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, _LIMIT),
    "quota": (429, {}, {"error": {"code": "insufficient_quota", "message": "You exceeded your quota"}}),
    "500": (500, {}, {"error": {"message": "The server had an error"}}),
    "503": (503, {"Retry-After": "0"}, {}),
    "408": (408, {}, {}),
    "409": (409, {}, {}),
    "400": (400, {}, {"error": {"code": "invalid_request_error", "message": "the text was: SECRET TEXT"}}),
    "401": (401, {}, {"error": {"code": "invalid_api_key", "message": "Incorrect API key provided: test-key-of-ours"}}),
    "403": (403, {}, {}),
    "404": (404, {}, {"error": {"code": "model_not_found"}}),
    "no such address": (404, {}, {}),
    "422": (422, {}, {"detail": [{"msg": "wrong"}]}),
    "413": (413, {}, {}),
    "too many tokens": (400, {}, {"error": {"message": "Too many tokens: max 300000 tokens per request"}}),
    "batch too large": (422, {}, {"error": "batch size 64 > maximum allowed batch size 32"}),
    "moved": (308, {"Location": "https://elsewhere.example/"}, {}),
}


@contextmanager
def provider_server(*, port: int = 0, **options: Any) -> Iterator[Provider]:
    provider = Provider(**options)
    handler = type("Handler", (_Handler,), {"provider": provider})
    server = ThreadingHTTPServer(("127.0.0.1", port), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    provider.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    try:
        yield provider
    finally:
        provider.released.set()
        server.shutdown()
        server.server_close()
        for connection in [*provider.connections]:  # kept alive by clients: a server that is down answers on none
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        thread.join(10)
