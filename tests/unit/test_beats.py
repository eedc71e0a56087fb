"""Within a step a job's row moves too: so many pages are read, so much of a batch is embedded. Never backwards, never twice."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from config.clock import system_clock
from config.database import Database
from ingestion import sandbox as sandboxes
from ingestion.jobs.beats import Beats
from ingestion.jobs.leases import Lease
from ingestion.jobs.progress import progress_of
from ingestion.jobs.tables import Job
from ingestion.media import PDF, TEXT
from ingestion.readers.base import Order
from ingestion.sandbox import Sandbox, _drain
from rag.embedding import runtime as runtimes
from rag.embedding.batcher import Batcher
from rag.embedding.hashing import HashRuntime
from rag.embedding.runtime import Matrix
from rag.store.memory import MemoryStore
from tests.documents import pdf
from tests.world import TENANTS, World, text_of

ASH, ELM = TENANTS


@dataclass
class SlowRuntime(HashRuntime):
    """Each call but the first waits until `told` says so, so that a test sees what is known meanwhile."""

    go_on: threading.Event = field(default_factory=threading.Event)
    calls: int = 0

    def __post_init__(self) -> None:
        super().__init__()

    def embed(self, texts: Sequence[str]) -> Matrix:
        self.calls += 1
        assert self.calls == 1 or self.go_on.wait(30)
        return super().embed(texts)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if half a second passed in a hundredth."""
    monkeypatch.setattr(runtimes, "BEAT_S", 0.01)
    monkeypatch.setattr(sandboxes, "TOLD_S", 0.0)


@pytest.fixture
def world(database: Database, tmp_path: Path) -> Iterator[World]:
    world = World(database, MemoryStore(), tmp_path)
    yield world
    world.close()


@pytest.mark.usefixtures("at_once")
def test_who_waits_for_the_model_is_told_what_it_has_done() -> None:
    runtime, told = SlowRuntime(), list[int]()
    batcher = Batcher(runtime, batch_tokens=10)

    def note(done: int) -> None:
        told.append(done)
        if done >= 5:
            runtime.go_on.set()

    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(batcher.embed, ["one", "two", "three"], [5, 5, 5], note=note)
        assert answer.result(30).vectors.shape[0] == 3
    assert told == sorted(told)
    assert 5 <= max(told) < 15 + 1
    batcher.close()


def _begun(world: World, name: str) -> Lease:
    """A job whose content is read and of which nothing is embedded."""
    world.bring(name, "long", text_of(name, 1, 20))
    lease = world.pipeline.take_up(world.contexts[name], world.queue.waiting.pop()[1])
    assert lease is not None
    world.pipeline.read(lease)
    return lease


def _job(world: World, lease: Lease) -> Job:
    with world.database.read(lease.context) as session:
        return session.get_one(Job, lease.job_id)


def test_a_beat_moves_its_own_job_forward_only(world: World) -> None:
    lease, other = _begun(world, ASH), _begun(world, ELM)
    beats, before = Beats(world.database, system_clock), world.rows(ELM)
    seen = []
    for tokens in (3, 7, 5, 7):
        beats.tokens(lease, tokens)
        seen.append(progress_of(_job(world, lease), 0).tokens_done)
    assert seen == [3, 7, 7, 7]
    beats.pages(lease, 9)  # told late: the text is read by now
    assert _job(world, lease).pages == 0
    assert world.rows(ELM) == before
    beats.tokens(Lease(**{**_fields(lease), "job_id": other.job_id}), 50)  # one tenant's hand cannot reach another's job
    assert world.rows(ELM) == before


def _fields(lease: Lease) -> dict[str, Any]:
    return {name: getattr(lease, name) for name in lease.__slots__}


def test_whoever_lost_the_job_says_nothing_of_it(world: World) -> None:
    late = _begun(world, ASH)
    owner = world.pipeline.take_up(late.context, late.job_id)
    assert owner is not None
    beats = Beats(world.database, system_clock)
    beats.tokens(late, 9)
    assert _job(world, owner).tokens_ahead == 0
    beats.tokens(owner, 9)
    assert _job(world, owner).tokens_ahead == 9


def test_a_batch_that_was_told_of_is_counted_once(world: World) -> None:
    """Also if its worker dies behind what it told, and another begins the batch again."""
    dead = _begun(world, ASH)
    beats = Beats(world.database, system_clock)
    beats.tokens(dead, 60)
    lease = world.pipeline.take_up(dead.context, dead.job_id)
    assert lease is not None
    assert progress_of(_job(world, lease), 0).tokens_done == 60
    world.pipeline.complete(lease, 0)
    job = _job(world, lease)
    assert job.state == "succeeded"
    assert (job.tokens_done, job.tokens_ahead) == (job.tokens_total, 0)


def test_a_database_that_is_busy_stops_no_step(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    lease = _begun(world, ASH)

    def busy(_context: object) -> None:
        raise OperationalError("UPDATE", None, Exception("database is locked"))

    monkeypatch.setattr(world.database, "write", busy)
    Beats(world.database, system_clock).tokens(lease, 5)
    monkeypatch.undo()
    assert _job(world, lease).tokens_ahead == 0


@pytest.mark.usefixtures("at_once")
def test_a_step_tells_what_the_model_does_meanwhile(database: Database, tmp_path: Path) -> None:
    runtime = SlowRuntime()
    world = World(database, MemoryStore(), tmp_path, embedder=Batcher(runtime, batch_tokens=64))
    lease = _begun(world, ASH)
    with ThreadPoolExecutor(1) as pool:
        step = pool.submit(world.pipeline.complete, lease, 0)
        while (ahead := _job(world, lease).tokens_ahead) == 0:
            assert not step.done()
        runtime.go_on.set()
        step.result(30)
    job = _job(world, lease)
    assert 0 < ahead < job.tokens_total
    assert (job.tokens_done, job.tokens_ahead) == (job.tokens_total, 0)
    world.close()


def test_a_child_writes_a_line_for_each_page_of_a_pdf(tmp_path: Path) -> None:
    paths = {PDF: tmp_path / "long.pdf", TEXT: tmp_path / "blank.txt"}
    paths[PDF].write_bytes(pdf(40))
    paths[TEXT].write_bytes(b"\n" * 40 + b"one line")
    sandbox = Sandbox(seconds=20, memory_bytes=512 * 2**20, max_chars=10**6)
    try:
        answers = {kind: sandbox._ask(Order(kind, 10**6, 20, 512 * 2**20), paths[kind], lambda _: None)[0] for kind in paths}
        assert len(sandbox.read(paths[PDF], PDF).pages) == 40
    finally:
        sandbox.close()
    assert answers[PDF].startswith(b"\n" * 40 + b"{")
    assert answers[TEXT].startswith(b"{")


@pytest.mark.usefixtures("at_once")
def test_lines_before_an_answer_are_pages_and_those_in_it_are_not() -> None:
    reader, writer = os.pipe()
    told: list[int] = []

    def note(pages: int) -> None:
        told.append(pages)
        os.write(writer, {1: b"\n\n", 3: b"\n{}"}[pages])
        if pages == 3:
            os.write(writer, b"\n\n")
            os.close(writer)

    os.write(writer, b"\n")
    try:
        assert _drain(reader, time.monotonic() + 20, 1000, note) == b"\n\n\n\n{}\n\n"
    finally:
        os.close(reader)
    assert told == [1, 3]


def test_lines_without_end_are_cut_off() -> None:
    reader, writer = os.pipe()
    os.write(writer, b"\n" * 2000)
    try:
        assert _drain(reader, time.monotonic() + 20, 1000, lambda _: None) == b""
    finally:
        os.close(reader)
        os.close(writer)
