"""Long work is seen to go on: something advances at least every second; and memory does not grow with the size of a bulk."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from carrel_client import Job
from tests.bulk import line, raw_stream
from tests.documents import pdf
from tests.support import Service, hold_still, running_service

LONGEST_S = 1.0  # of the full proofs, which have the machine to themselves
SHARED_S = 10.0  # of the everyday ones: beside others a machine may pause for longer than any of this takes
MIB = 1024 * 1024


@pytest.fixture
def real(tmp_path: Path) -> Iterator[Service]:
    with running_service(tmp_path / "data") as running:
        yield running


def resident(service: Service, child: str) -> int:
    """Bytes of the process."""
    pid = service.child(child)
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024


def test_a_pdf_of_thirty_pages_goes_on(quick: Service) -> None:
    _follow(quick, 30, SHARED_S)


@pytest.mark.full
def test_a_pdf_of_three_hundred_pages_goes_on(real: Service) -> None:
    real.tenant()[1].documents.create(text="The model is warm.").wait()
    _follow(real, 300, LONGEST_S)


def _follow(service: Service, pages: int, longest_s: float) -> None:
    """By polling, as clients do."""
    _, carrel = service.tenant()
    _, other = service.tenant()
    submitted = carrel.documents.create(content=pdf(pages), file_name="shelves.pdf")
    seen: list[tuple[float, Any]] = []

    def note(job: Job) -> None:
        state = (job.state, job.stage, job.progress.fraction, job.progress.pages, job.progress.chunks_done)
        if not seen or seen[-1][1] != state:
            seen.append((time.monotonic(), state))

    job = submitted.job
    while job is not None and not job.finished:
        job = carrel.jobs.get(job.id)
        note(job)
        time.sleep(0.02)
    assert job is not None
    assert job.state == "succeeded"
    assert (job.progress.pages, job.progress.fraction) == (pages, 1.0)
    assert len(seen) > job.chunks_total // 64
    gaps = [(later[0] - earlier[0], earlier[1], later[1]) for earlier, later in pairwise(seen)]
    assert max(gaps)[0] <= longest_s, max(gaps)
    assert list(other.documents.list()) == []


def test_a_folder_of_a_hundred_files_goes_on(quick: Service, tmp_path: Path) -> None:
    _bring_folder(quick, tmp_path / "pile", 0, 100, SHARED_S)


@pytest.mark.full
@pytest.mark.timeout(600)
def test_a_folder_of_a_thousand_files_goes_on_in_constant_memory(real: Service, tmp_path: Path) -> None:
    _bring_folder(real, tmp_path / "first", 0, 100, LONGEST_S)
    before = {child: resident(real, child) for child in ("api", "worker")}
    _bring_folder(real, tmp_path / "second", 100, 1000, LONGEST_S)
    after = {child: resident(real, child) for child in ("api", "worker")}
    growth = {child: (after[child] - before[child]) // MIB for child in before}
    assert max(growth.values()) < 48, (growth, before)


def _bring_folder(service: Service, folder: Path, first: int, count: int, longest_s: float) -> None:
    folder.mkdir()
    for number in range(first, first + count):
        (folder / f"{number}.txt").write_text(
            "\n\n".join(f"Shelf {number} board {board} is of oak. " * 20 for board in range(3))
        )
    name, carrel = service.tenant()
    command = [sys.executable, "-P", "-m", "api.cli.main", "ingest", str(folder), "-t", name, "--json"]
    times = []
    with subprocess.Popen(command, env=service.env, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for told in process.stdout:
            times.append(time.monotonic())
            last = told
    assert process.returncode == 0
    assert json.loads(last)["documents"] == count
    assert len(times) == count + 1
    assert max(later - earlier for earlier, later in pairwise(times)) <= longest_s
    assert sum(1 for _ in carrel.documents.list()) == count


@pytest.mark.full
@pytest.mark.timeout(900)
def test_a_long_stream_needs_no_more_memory_than_a_short_one(tmp_path: Path) -> None:
    with running_service(tmp_path / "data", embedding_runtime="hash", queue_tenant_jobs=30_000) as service:
        worker = service.child("worker")
        assert worker is not None
        hold_still(worker, service.data_dir)  # what is taken in waits, so that nothing but the taking in is measured
        try:
            key = service.key(service.tenant()[0])
            _stream(service, key, 0, 1_000)
            before = resident(service, "api")
            _stream(service, key, 1_000, 20_000)
            grown = resident(service, "api") - before
        finally:
            os.kill(worker, signal.SIGCONT)
    assert grown < 8 * MIB, grown  # 20,000 documents of 2 kB are 40


def _stream(service: Service, key: str, first: int, count: int) -> None:
    """Read as it is answered, a few hundred lines behind."""
    with raw_stream(service.url, key) as stream:
        answered = None
        for start in range(first, first + count, 200):
            for number in range(start, start + 200):
                stream.send(line(number, text=f"{number} " + "board " * 330))
            if answered is None:
                assert stream.status() == 200
                answered = stream.answers()
            for _ in range(200):
                assert next(answered)["status"] == 202
        stream.end()
        assert answered is not None
        assert next(answered)["summary"]["accepted"] == count
