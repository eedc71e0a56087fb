"""A service under more work than it can do: who is refused and told when to come again, and who gets on all the same."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

from carrel_client import APIError, Carrel, Job, RateLimitError, ServiceUnavailableError
from tests.sites import Site, page, says, site
from tests.support import Service, hold_still, running_service, wait_for

pytestmark = pytest.mark.xdist_group("processes")
FLOOD, SMALL, ALL = 24, 3, 28
TEXT = "Shelf {} of {}: " + "oak pine " * 30


@contextmanager
def _worker_stopped(service: Service) -> Iterator[None]:
    worker = wait_for(lambda: service.child("worker"), what="a worker")
    hold_still(worker, service.data_dir)
    try:
        yield
    finally:
        os.kill(worker, signal.SIGCONT)


def _bring(client: Carrel, count: int, *, after: int = 0) -> list[Job]:
    made = [client.documents.create(text=TEXT.format(after + n, "one"), external_id=f"doc-{after + n}") for n in range(count)]
    return [each.job for each in made if each.job is not None]


def _found(client: Carrel) -> int:
    return len({passage.document_id for passage in client.query("oak pine", top_k=50).passages})


def _impatient(service: Service, tenant: str) -> Carrel:
    return Carrel(api_key=service.key(tenant), base_url=service.url, max_retries=0)


@pytest.fixture(scope="module")
def silent() -> Iterator[int]:
    """The port of a site that takes connections and never says anything."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        yield listener.getsockname()[1]


@pytest.fixture(scope="module")
def pages() -> Iterator[Site]:
    with site(says(page(b"Books may be kept for four weeks."))) as running:
        yield running


@pytest.fixture(scope="module")
def pressed(silent: int, pages: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    allowed = {"url_fetch_allow": "127.0.0.1", "url_fetch_ports": f"{silent},{pages.port}", "url_fetch_seconds": 60}
    bounds = {"worker_concurrency": 1, "queue_tenant_jobs": FLOOD, "queue_jobs": ALL, "embedding_runtime": "hash"}
    with running_service(tmp_path_factory.mktemp("pressed"), **bounds, **allowed) as running:
        yield running


def test_a_flood_is_bounded_and_keeps_nobody_else_waiting(pressed: Service) -> None:
    (flooding, a), (_, b), (third, c) = pressed.tenant(), pressed.tenant(), pressed.tenant()
    first = a.documents.create(text=TEXT.format("first", "one"), external_id="first")
    first.wait()
    with _worker_stopped(pressed), _impatient(pressed, flooding) as impatient, _impatient(pressed, third) as other:
        flood = _bring(a, FLOOD)
        with pytest.raises(RateLimitError) as full:
            _bring(impatient, 1, after=FLOOD)
        assert (full.value.code, full.value.limit, full.value.retryable) == ("queue_full", FLOOD, True)
        small = _bring(b, SMALL)
        [last] = _bring(other, 1)
        with pytest.raises(ServiceUnavailableError) as overloaded:
            _bring(other, 1, after=1)
        assert (overloaded.value.code, overloaded.value.limit) == ("overloaded", ALL)
        head = {"Authorization": f"Bearer {pressed.key(flooding)}"}
        refused = httpx2.post(f"{pressed.url}/v1/documents", json={"text": "one more"}, headers=head)
        assert (refused.status_code, refused.headers["content-type"]) == (429, "application/problem+json")
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        a.documents.delete(first.document.id)
        assert impatient.query("oak").passages == []
        assert [*impatient.documents.list()]
    for client, jobs in ((a, flood), (b, small), (c, [last])):
        for job in jobs:
            client.jobs.wait(job.id)
    ended = sorted(
        (client.jobs.get(job.id).finished_at or "", name)
        for name, client, jobs in (("a", a, flood), ("b", b, small), ("c", c, [last]))
        for job in jobs
    )
    names = [name for _, name in ended]
    assert max(at for at, name in enumerate(names) if name != "a") < 2 * (SMALL + 1) + 4, names
    assert _bring(a, 1, after=FLOOD)[0].state == "queued"  # there is room again


def test_sites_that_hang_keep_no_other_tenants_urls_waiting(pressed: Service, silent: int, pages: Site) -> None:
    (_, a), (_, b) = pressed.tenant(), pressed.tenant()
    made = [a.documents.create(url=f"http://127.0.0.1:{silent}/{number}") for number in range(6)]
    stuck = [each.job.id for each in made if each.job is not None]
    wait_for(lambda: sum(a.jobs.get(job).stage == "fetching" for job in stuck) == 4, what="every place to be taken")
    for number in range(3):
        assert b.documents.create(url=pages.url(f"/{number}")).wait(timeout_s=30) is not None
    assert not any(a.jobs.get(job).finished for job in stuck)
    for job in stuck:
        a.jobs.cancel(job)


@contextmanager
def _small_disk(folder: Path) -> Iterator[Path]:
    folder.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", "size=512m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mounting, capture_output=True, check=False).returncode:
        pytest.skip("a small file system cannot be mounted here: that takes root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.full
def test_a_disk_that_fills_up_refuses_what_is_new_and_nothing_else(tmp_path: Path) -> None:
    """And while it lasts the accepted work is done; when there is room again everything goes on by itself."""
    marks = {"disk_free_bytes": 64 * 1024 * 1024, "disk_free_percent": 1}
    with _small_disk(tmp_path / "disk") as disk, running_service(disk, embedding_runtime="hash", workers=2, **marks) as service:
        (name, a), (_, b) = service.tenant(), service.tenant()
        wait_for(lambda: "2 running" in httpx2.get(f"{service.url}/readyz").text, what="both workers")
        for client in (a, b):
            for job in _bring(client, 2):
                client.jobs.wait(job.id)
        waiting = _bring(a, 20, after=2)
        filler = disk / "filler"
        with filler.open("wb") as file:
            left = os.statvfs(disk)
            file.write(b"\0" * (left.f_bavail * left.f_frsize - 48 * 1024 * 1024))
        with _impatient(service, name) as impatient, pytest.raises(APIError) as full:
            _bring(impatient, 1, after=100)
        assert (full.value.status, full.value.code, full.value.retryable) == (507, "storage_full", True)
        for job in waiting:
            a.jobs.wait(job.id)
        assert _found(b) == 2
        b.documents.delete(next(b.documents.list()).id)
        assert _found(b) == 1
        ready = httpx2.get(f"{service.url}/readyz")
        assert ready.status_code == 200
        assert "new documents are refused" in ready.json()["parts"]["disk"]["detail"]
        filler.unlink()
        for client in (a, b):
            [job] = _bring(client, 1, after=200)
            assert client.jobs.wait(job.id).state == "succeeded"
        assert service.stop() == 0
