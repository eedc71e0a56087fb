"""Several workers on one database: one that is gone, or silent for long, is taken over by another, and nothing doubles."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

from tests.faults.converged import Inside, Truth, inside
from tests.support import Service, hold_still, running_service, wait_for

pytestmark = pytest.mark.xdist_group("processes")
SETTINGS = {"embedding_runtime": "hash", "hold_lease_seconds": 5, "sweep_seconds": 0.5, "worker_concurrency": 2}
DOCUMENTS, PARAGRAPHS = 3, 300  # enough that a worker is met in the middle of it


@contextmanager
def _second_worker(service: Service) -> Iterator[int]:
    """A worker beside the service's own, that nobody restarts; its process id."""
    command = [sys.executable, "-P", "-m", "api.cli.main", "worker", "--supervised"]
    with subprocess.Popen(command, env=service.env, stdin=subprocess.PIPE) as process:
        try:
            yield process.pid
        finally:
            process.kill()


def _running(service: Service) -> str:
    """What readiness says of the workers."""
    detail: str = httpx2.get(f"{service.url}/readyz").json()["parts"]["worker"]["detail"]
    return detail


def _text(tenant: str, number: int) -> str:
    paragraphs = (f"Shelf {number} board {board} of {tenant}: " + "oak pine " * 40 for board in range(PARAGRAPHS))
    return "\n\n".join(paragraphs).strip()


def _bring(service: Service, tenants: list[str]) -> list[Truth]:
    truths = []
    for tenant in tenants:
        client = service.client(service.key(tenant))
        live = {f"doc-{number}": _text(tenant, number) for number in range(DOCUMENTS)}
        for name, text in live.items():
            client.documents.create(text=text, external_id=name)
        truths.append(Truth(tenant, live, dict.fromkeys(live, 1)))
    return truths


def _of(found: Inside, slot: str) -> int:
    """How many jobs the worker in this slot has under way."""
    return sum(count for executor, count in found.owners().items() if executor.endswith(f"-{slot}"))


def _both_at_work(service: Service) -> list[Truth]:
    """Bring documents so that both workers have jobs under way, whichever was quicker."""
    first = service.child("worker")
    assert first is not None
    with inside(service.data_dir) as found:
        wait_for(lambda: _running(service) == "2 running", what="the second worker")
        hold_still(first, service.data_dir)
        truths = _bring(service, [service.tenant()[0] for _ in range(2)])
        wait_for(lambda: _of(found, "worker-2"), what="a job of the second worker")
        os.kill(first, signal.SIGCONT)
        wait_for(lambda: _of(found, "worker-1"), what="a job of the first worker")
    return truths


def _charges(found: Inside, truths: list[Truth]) -> list[int]:
    return [found.charged(truth.tenant) for truth in truths]


@pytest.mark.full
def test_the_jobs_of_a_worker_that_is_killed_for_good_are_finished_by_another(tmp_path: Path) -> None:
    with running_service(tmp_path, **SETTINGS) as service, _second_worker(service) as second:
        truths = _both_at_work(service)
        os.kill(second, signal.SIGKILL)
        with inside(tmp_path) as found:
            assert _of(found, "worker-2")
            wait_for(lambda: found.unfinished() == 0, what="the other worker to finish", timeout_s=60)
            found.check(truths)


@pytest.mark.full
def test_a_worker_that_was_silent_and_goes_on_doubles_nothing(tmp_path: Path) -> None:
    with running_service(tmp_path, **SETTINGS) as service, _second_worker(service) as second:
        truths = _both_at_work(service)
        hold_still(second, tmp_path)
        with inside(tmp_path) as found:
            assert _of(found, "worker-2")
            wait_for(lambda: found.unfinished() == 0, what="the other worker to finish", timeout_s=60)
            points, charges = [found.points(truth.tenant) for truth in truths], _charges(found, truths)
            os.kill(second, signal.SIGCONT)
            wait_for(lambda: _running(service) == "2 running", what="the silent worker")
            more = _bring(service, [service.tenant()[0]])  # it works on with the other: whatever it had left came before
            wait_for(lambda: found.unfinished() == 0, what="the new jobs", timeout_s=60)
            assert [found.points(truth.tenant) for truth in truths] == points
            assert _charges(found, truths) == charges
            found.check([*truths, *more])


@pytest.mark.full
def test_jobs_of_a_worker_that_was_stopped_and_not_started_again_go_on(tmp_path: Path) -> None:
    with running_service(tmp_path, **SETTINGS) as service, _second_worker(service) as second:
        truths = _both_at_work(service)
        os.kill(second, signal.SIGTERM)
        with inside(tmp_path) as found:
            wait_for(lambda: found.unfinished() == 0, what="the other worker to finish", timeout_s=60)
            found.check(truths)
