"""The client, of both worlds, against a server that breaks in every way that wires break, and counts what it carried out."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import socket
import socketserver
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest

import carrel_client._async.world
import carrel_client._sync.world
from carrel_client import AsyncCarrel, Carrel, CarrelClientError, TransportError
from tests.looped import WORLDS, client_of
from tests.support import wait_for

COLLECTION = {"id": "col_1", "name": "x", "documents": 0, "space": "s", "placement": "shared", "created_at": ""}
WHOLE = json.dumps(COLLECTION).encode()
BUSY = {"status": 503, "code": "unavailable", "detail": "Stopping.", "retryable": True}


def _answer(status: int, body: bytes, *headers: str, length: int | None = None) -> bytes:
    lines = [f"HTTP/1.1 {status} x", f"Content-Length: {len(body) if length is None else length}", *headers]
    return ("\r\n".join([*lines, "Content-Type: application/json"]) + "\r\n\r\n").encode() + body


class Break(Exception):
    """The connection ends here."""


@dataclass
class Faults:
    """Plays a fault for each request in turn, and carries out what has one idempotency key once."""

    script: list[str] = field(default_factory=list)
    effects: Counter[str] = field(default_factory=Counter)  #: what was carried out, by name
    asked: Counter[str] = field(default_factory=Counter)  #: requests that arrived, by name
    keys: set[str] = field(default_factory=set)
    open: int = 0  #: connections
    lock: threading.Lock = field(default_factory=threading.Lock)
    hung: threading.Event = field(default_factory=threading.Event)  #: a request that is never answered has arrived
    url: str = ""

    def carry_out(self, key: str | None, name: str) -> None:
        with self.lock:
            self.asked[name] += 1
            if key is None or key not in self.keys:
                self.effects[name] += 1
                self.keys.add(key or "")

    def play(self, connection: socket.socket, key: str | None, name: str) -> None:
        with self.lock:
            fault = self.script.pop(0) if self.script else "ok"
        if fault in ("ok", "reset after", "truncated", "garbage", "no object", "slow", "proxy after"):
            self.carry_out(key, name)
        if fault in ("reset before", "reset after"):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            raise Break
        if fault == "hang":
            self.hung.set()
            connection.recv(1)  # until the client ends it
            raise Break
        if fault == "slow":
            for byte in _answer(201, WHOLE):
                connection.sendall(bytes([byte]))
            return
        connection.sendall(ANSWERS[fault])
        if fault == "truncated":
            raise Break


ANSWERS = {
    "ok": _answer(201, WHOLE),
    "429": _answer(429, json.dumps({**BUSY, "status": 429}).encode(), "Retry-After: 3"),
    "503": _answer(503, json.dumps(BUSY).encode()),
    "proxy": _answer(502, b"<html>Bad Gateway</html>"),
    "proxy after": _answer(504, b"<html>Gateway Timeout</html>"),
    "truncated": _answer(201, WHOLE[:20], length=len(WHOLE)),
    "garbage": _answer(201, b'{"id": "col_1", "na'),
    "no object": _answer(201, b"[1, 2]"),
}
FAULTS = [*ANSWERS, "reset before", "reset after", "slow"]


class Handler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        faults: Faults = self.server.faults  # type: ignore[attr-defined]
        with faults.lock:
            faults.open += 1
        try:
            while self._one(faults):
                pass
        except (Break, OSError):
            pass
        finally:
            with faults.lock:
                faults.open -= 1

    def _one(self, faults: Faults) -> bool:
        if not self.rfile.readline():
            return False
        headers = {}
        while (line := self.rfile.readline().decode().strip()) != "":
            name, _, value = line.partition(": ")
            headers[name.lower()] = value
        body = json.loads(self.rfile.read(int(headers.get("content-length", 0))) or b"{}")
        faults.play(self.connection, headers.get("idempotency-key"), body.get("name", ""))
        return True

    def finish(self) -> None:
        with contextlib.suppress(OSError):  # it was reset
            super().finish()


class Server(socketserver.ThreadingTCPServer):
    daemon_threads, allow_reuse_address = True, True
    request_queue_size = 64


@pytest.fixture
def faults() -> Iterator[Faults]:
    with Server(("127.0.0.1", 0), Handler) as server:
        faults = server.faults = Faults(url=f"http://127.0.0.1:{server.server_address[1]}")  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield faults
        server.shutdown()
        thread.join()
    wait_for(lambda: faults.open == 0, what="the client to have closed all of its connections", timeout_s=10)


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr(carrel_client._sync.world, "sleep", waited.append)
    monkeypatch.setattr(carrel_client._async.world, "sleep", sleep)
    return waited


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault != "ok"])
def test_a_creation_survives_each_fault_and_happens_once(faults: Faults, world: str, fault: str, pauses: list[float]) -> None:
    faults.script = [fault, fault, fault]
    with client_of(world, faults.url) as carrel:
        assert carrel.collections.create(name="a").name == "x"
    assert faults.effects == {"a": 1}
    assert len(pauses) == (0 if fault == "slow" else 3)
    if fault == "429":
        assert pauses == [3, 3, 3]


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("fault", ["reset after", "truncated", "garbage", "proxy after"])
def test_what_must_not_be_repeated_is_not(faults: Faults, world: str, fault: str) -> None:
    faults.script = [fault]
    with client_of(world, faults.url) as carrel, pytest.raises(CarrelClientError):
        carrel.admin.tenants.update("acme", plan="a")
    assert sum(faults.asked.values()) == 1


@pytest.mark.parametrize("world", WORLDS)
def test_a_server_that_never_recovers_is_given_up(faults: Faults, world: str) -> None:
    faults.script = ["garbage"] * 9
    with client_of(world, faults.url) as carrel, pytest.raises(TransportError, match=r"POST .*/v1/collections"):
        carrel.collections.create(name="a")
    assert faults.asked == {"a": 4}
    assert faults.effects == {"a": 1}


def _storm(seed: int, length: int) -> list[str]:
    """Never four faults for one call: that is when it is given up."""
    return random.Random(seed).choices(FAULTS, weights=[8 if fault == "ok" else 1 for fault in FAULTS], k=length)


def _threads(faults: Faults, names: list[str]) -> None:
    with Carrel(api_key="k", base_url=faults.url, max_retries=40) as carrel, ThreadPoolExecutor(8) as pool:
        for made in pool.map(lambda name: carrel.collections.create(name=name), names):
            assert made.id == "col_1"


def _loop(faults: Faults, names: list[str]) -> None:
    async def run() -> None:
        async with AsyncCarrel(api_key="k", base_url=faults.url, max_retries=40) as carrel:
            await asyncio.gather(*(carrel.collections.create(name=name) for name in names))

    asyncio.run(run())


@pytest.mark.parametrize("run", [_threads, _loop], ids=WORLDS)
def test_in_a_storm_of_faults_everything_happens_once(faults: Faults, run: Callable[[Faults, list[str]], None]) -> None:
    names = [f"c{number}" for number in range(60)]
    faults.script = _storm(7, 150)
    run(faults, names)
    assert faults.effects == dict.fromkeys(names, 1)
    assert sum(faults.asked.values()) > len(names)


def test_a_cancelled_call_closes_its_connection(faults: Faults) -> None:
    async def run() -> None:
        async with AsyncCarrel(api_key="k", base_url=faults.url) as carrel:
            faults.script = ["hang"]
            call = asyncio.create_task(carrel.usage())
            assert await asyncio.to_thread(faults.hung.wait, 10)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            await asyncio.to_thread(wait_for, lambda: faults.open == 0, what="the connection's end", timeout_s=10)
            assert (await carrel.collections.create(name="after")).id == "col_1"

    asyncio.run(run())


@pytest.mark.parametrize("world", WORLDS)
def test_silence_ends_with_the_patience_it_was_given(faults: Faults, world: str) -> None:
    faults.script = ["hang", "hang"]
    with client_of(world, faults.url, timeout_s=30) as carrel, pytest.raises(TransportError):
        carrel.with_options(timeout_s=0.05, max_retries=1).collections.create(name="a")
    assert faults.script == []
