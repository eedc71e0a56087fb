"""SIGTERM with requests under way: what was accepted gets its answer, nobody else is let in, and it ends in time."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.support import PATIENCE, Service, children, environment, hold_still, running_service, start_service, wait_for

pytestmark = pytest.mark.xdist_group("processes")
FAST = {"embedding_runtime": "hash"}
LONGEST_STOP_S = 20.0 * PATIENCE


@dataclass
class SlowUpload:
    """A document whose body arrives in two halves."""

    service: Service
    key: str
    body: bytes = b'{"text": "brought slowly", "external_id": "slow"}'

    def __post_init__(self) -> None:
        host, _, port = self.service.url.removeprefix("http://").partition(":")
        self.connection = http.client.HTTPConnection(host, int(port), timeout=30)
        self.connection.putrequest("POST", "/v1/documents")
        for name, value in (
            ("Authorization", f"Bearer {self.key}"),
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(self.body))),
            ("Expect", "100-continue"),
        ):
            self.connection.putheader(name, value)
        self.connection.endheaders()
        assert self.connection.sock.recv(100).startswith(b"HTTP/1.1 100")  # the route is reading: it was accepted
        self.connection.send(self.body[:10])

    def finish(self) -> tuple[int, dict[str, Any]]:
        self.connection.send(self.body[10:])
        answer = self.connection.getresponse()
        found = answer.status, json.loads(answer.read())
        self.connection.close()
        return found


@dataclass
class Asker:
    """Asks on kept connections, one question after another, until it is sent away; notes what it was told."""

    url: str
    key: str
    path: str
    told: list[int] = field(default_factory=list)
    last: httpx2.Response = field(init=False)

    def run(self, begun: threading.Barrier) -> None:
        headers = {"Authorization": f"Bearer {self.key}"}
        with httpx2.Client(base_url=self.url, headers=headers, timeout=30) as client:
            while not self.told or self.last.headers.get("connection") != "close":
                ready = self.path == "/readyz"
                self.last = client.get(self.path) if ready else client.post(self.path, json={"query": "anything"})
                self.told.append(self.last.status_code)
                if len(self.told) == 1:
                    begun.wait(30)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with running_service(tmp_path, **FAST) as service:
        yield service


def _stream(service: Service, key: str, job_id: str, begun: threading.Event) -> bytes:
    """All of a stream of events; raises if it is cut off."""
    with httpx2.stream(
        "GET", f"{service.url}/v1/jobs/{job_id}/events", headers={"Authorization": f"Bearer {key}"}, timeout=30
    ) as answer:
        assert answer.status_code == 200
        parts = []
        for part in answer.iter_bytes():
            begun.set()
            parts.append(part)
        return b"".join(parts)


def test_what_was_accepted_is_answered_and_the_rest_is_sent_away(service: Service) -> None:
    pids = [service.process.pid, *children(service.process.pid)]
    keys = [service.key(name) for name in (service.tenant()[0], service.tenant()[0])]
    worker = service.child("worker")
    assert worker is not None
    hold_still(worker, service.data_dir)  # so that the job that is followed goes on
    job = service.client(keys[0]).documents.create(text="followed", external_id="followed").job
    assert job is not None
    uploads = [SlowUpload(service, key) for key in keys]
    askers = [Asker(service.url, key, path) for key in keys for path in ("/v1/query", "/v1/query", "/readyz")]
    begun, streaming = threading.Barrier(len(askers) + 1), threading.Event()
    with ThreadPoolExecutor(len(askers) + 1) as pool:
        stream = pool.submit(_stream, service, keys[0], job.id, streaming)
        asking = [pool.submit(asker.run, begun) for asker in askers]
        assert streaming.wait(30)
        begun.wait(30)
        began = time.monotonic()
        service.process.terminate()
        for each in asking:
            each.result(30)
        assert stream.result(30).endswith(b"\n\n")
        answers = [upload.finish() for upload in uploads]
    os.kill(worker, signal.SIGCONT)
    assert service.process.wait(60) == 0
    assert time.monotonic() - began < LONGEST_STOP_S
    assert [status for status, _ in answers] == [202, 202]
    for asker in askers:
        assert asker.told[-1] == 503
        if asker.path == "/readyz":
            assert not asker.last.json()["ready"]
            assert not asker.last.json()["parts"]["draining"]["ok"]
        else:
            assert set(asker.told[:-1]) == {200}
            assert asker.last.json()["retryable"]
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), what="all processes to end")
    _goes_on(service, keys)


def _goes_on(service: Service, keys: list[str]) -> None:
    """What was accepted while it stopped is there after the next start, each with its owner."""
    again = start_service(service.data_dir, service.env)
    try:
        for key, expected in zip(keys, (["followed", "slow"], ["slow"]), strict=True):
            client = again.client(key)
            wait_for(
                lambda client=client: all(job.finished for job in client.jobs.list()),  # type: ignore[misc]
                what="the jobs to end",
            )
            found = {document.external_id: document.state for document in client.documents.list()}
            assert found == dict.fromkeys(expected, "live")
    finally:
        again.stop()


def test_new_connections_are_refused_while_it_drains(service: Service) -> None:
    key = service.key(service.tenant()[0])
    host, _, port = service.url.removeprefix("http://").partition(":")
    upload = SlowUpload(service, key)
    service.process.terminate()

    def refused() -> bool:
        try:
            socket.create_connection((host, int(port)), timeout=1).close()
        except ConnectionRefusedError:
            return True
        return False

    wait_for(refused, what="the port to close")
    assert service.process.poll() is None
    assert upload.finish()[0] == 202
    assert service.process.wait(60) == 0


def test_a_second_signal_ends_it_at_once(service: Service) -> None:
    pids = [service.process.pid, *children(service.process.pid)]
    upload = SlowUpload(service, service.key(service.tenant()[0]))
    service_file = service.data_dir / "service.json"
    assert service_file.exists()
    service.process.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        service.process.wait(1.5)
    began = time.monotonic()
    service.process.send_signal(signal.SIGTERM)
    assert service.process.wait(30) == 128 + signal.SIGTERM
    wait_for(lambda: not any(_runs(pid) for pid in pids), what="all processes to end")
    assert time.monotonic() - began < 3 * PATIENCE
    assert not service_file.exists()
    upload.connection.close()


@pytest.mark.full
def test_parts_that_hang_do_not_hold_it_up(service: Service) -> None:
    for name in ("worker", "engine"):
        pid = service.child(name)
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
    began = time.monotonic()
    readiness = httpx2.get(f"{service.url}/readyz", timeout=10)
    assert time.monotonic() - began < 2
    assert readiness.status_code == 503
    assert [name for name, part in readiness.json()["parts"].items() if not part["ok"]] == ["engine"]
    began = time.monotonic()
    assert service.stop() == 0
    assert time.monotonic() - began < LONGEST_STOP_S


def test_the_log_tells_the_life_of_each_process(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("w") as log:
        service = start_service(tmp_path / "data", environment(tmp_path / "data", **FAST, log_level="info"), stderr=log)
        try:
            _, one = service.tenant()
            _, two = service.tenant()
            jobs = [client.documents.create(text="one text", external_id="x").job for client in (one, two)]
            for client, job in zip((one, two), jobs, strict=True):
                assert job is not None
                client.jobs.wait(job.id)
        finally:
            assert service.stop() == 0
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for process in ("supervisor", "engine", "worker", "api"):
        stages = [line for line in lines if line["process"] == process and line["logger"] == "api.processes.lifecycle"]
        assert [line["event"] for line in stages] == ["starting", "ready", "draining", "stopped"], process
        assert all(any(name.endswith("_s") or name == "seconds" for name in line) for line in stages[1:])


def _runs(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status")
    return status.exists() and "State:\tZ" not in status.read_text()
