"""Estimates: exact, for their own tenant, few at a time, and without a child or a row before they are asked for."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

import pytest

from api.wiring.api import build_api
from config.database import Database
from config.errors import RateLimited, UnreadableDocument
from config.profiles import BUILT_IN, Profile, Splitter
from config.settings import Settings
from ingestion.intake.submission import Submission
from ingestion.pipeline.estimates import DocumentEstimate, Estimates
from ingestion.pipeline.reading import Reading
from ingestion.readers.base import Parsed
from ingestion.sandbox import ParserDied
from rag.embedding.batcher import Batcher
from rag.embedding.cache import DiskVectorCache
from rag.embedding.hashing import HashRuntime
from rag.embedding.service import EmbeddingService, Estimate
from rag.profiles import Profiles
from rag.splitting.chunkers import Chunkers
from rag.store.memory import MemoryStore
from tenants.ledger.usage import UsageReader
from tests.support import FakeScope, FreeMeter, children
from tests.world import InProcessReader, World, text_of


@dataclass
class WatchedReader(InProcessReader):
    """Counts, can die, and can be made to wait."""

    reads: int = 0
    deaths: int = 0
    closed: bool = False
    began: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    go_on: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.go_on.set()

    def read(self, path: Path, media_type: str, *_note: object) -> Parsed:
        self.reads += 1
        self.began.release()
        assert self.go_on.wait(30)
        if self.deaths:
            self.deaths -= 1
            raise ParserDied("Reading the document crashed.")
        return super().read(path, media_type)

    def close(self) -> None:
        self.closed = True


@dataclass
class Stand:
    world: World
    reader: WatchedReader
    estimates: Estimates
    opened: int = 0

    def of(self, name: str, text: str, external_id: str = "one") -> DocumentEstimate:
        submission = Submission(text.encode(), external_id=external_id, media_type="text/plain")
        return self.estimates.for_tenant(self.world.contexts[name]).estimate(submission)


@pytest.fixture
def stand(database: Database, tmp_path: Path) -> Iterator[Stand]:
    world, reader = World(database, MemoryStore(), tmp_path), WatchedReader()
    model = world.embedding.model

    def open_reading() -> Reading:
        stand.opened += 1
        parts = (world.blobs, reader, Chunkers(model.tokenizer_json), world.embedding.count_tokens)
        return Reading(world.database, world.ledger.clock, *parts, max_chunks=1000)  # type: ignore[arg-type]

    stand = Stand(world, reader, Estimates(world.documents, world.embedding, world.ledger, open_reading))
    yield stand
    stand.estimates.close()
    world.close()


@pytest.mark.parametrize("splitter", get_args(Splitter))
def test_a_document_costs_what_was_estimated_and_its_next_version_what_changed(stand: Stand, splitter: Splitter) -> None:
    world, text = stand.world, text_of("ash", 1, 3)
    profile = Profile(chunk_tokens=64, overlap_tokens=8, parent_tokens=200, splitter=splitter)
    world.documents.collections.profiles = Profiles({**BUILT_IN, "standard": profile}, HashRuntime())
    for content in (text, text.replace("board 1", "plank 1")):
        estimate = stand.of("ash", content)
        before = _used(world, "ash")
        world.bring("ash", "one", content)
        world.run_jobs()
        assert _used(world, "ash") - before == estimate.tokens.to_embed > 0
        assert estimate.cost == estimate.tokens.to_embed * 20_000
    assert stand.of("ash", content).tokens == Estimate(0, estimate.tokens.total, 0)
    foreign = stand.of("elm", content).tokens
    assert (foreign.cached, foreign.total) == (0, estimate.tokens.total)
    assert _used(world, "elm") == 0


def _used(world: World, name: str) -> int:
    return UsageReader(world.database, world.ledger.clock).of(world.contexts[name]).used


def test_an_estimate_leaves_nothing_and_the_reader_is_opened_once(stand: Stand) -> None:
    world = stand.world
    before = [world.snapshot(name) for name in world.contexts]
    assert stand.opened == 0
    for name in world.contexts:
        stand.of(name, text_of(name, 1, 2))
    assert [world.snapshot(name) for name in world.contexts] == before
    assert not world.queue.waiting
    assert stand.opened == 1
    stand.estimates.close()
    assert stand.reader.closed


def test_a_tenant_estimates_one_document_at_a_time_and_all_together_two(stand: Stand) -> None:
    stand.reader.go_on.clear()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(stand.of, "ash", "oak")
        assert stand.reader.began.acquire(timeout=30)
        with pytest.raises(RateLimited) as refused:
            stand.of("ash", "pine")
        assert refused.value.retry_after_s == 1
        second = pool.submit(stand.of, "elm", "oak")
        assert stand.reader.began.acquire(timeout=30)
        with pytest.raises(RateLimited), stand.estimates.turn("a third"):
            pytest.fail("there is no turn left")
        stand.reader.go_on.set()
        assert first.result(30).tokens.to_embed == second.result(30).tokens.to_embed
    assert stand.of("ash", "pine").chunks == 1


def test_a_parser_that_dies_twice_makes_the_document_unreadable_and_gives_the_turn_back(stand: Stand) -> None:
    stand.reader.deaths = 1
    assert stand.of("ash", "oak").chunks == 1
    stand.reader.deaths = 2
    with pytest.raises(UnreadableDocument, match="crashed"):
        stand.of("ash", "oak")
    assert stand.of("ash", "oak").chunks == 1


def test_the_cache_is_asked_in_pages_for_one_tenant_and_the_model_never(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rag.embedding.service.ESTIMATE_PAGE", 2)
    service = EmbeddingService(Batcher(HashRuntime(), batch_tokens=64), DiskVectorCache(tmp_path, max_bytes=1 << 20))
    mine, other = FakeScope("a", b"salt of a"), FakeScope("b", b"salt of b")
    texts = [f"text {number}" for number in range(5)] + ["text 0", "text 4"]
    try:
        service.embed_batch(mine, FreeMeter(), texts[1:4], hold_id="h")
        monkeypatch.setattr(service, "embedder", None)
        tokens = [1, 2, 4, 8, 16, 1, 16]
        assert service.estimate(mine, texts, tokens) == Estimate(to_embed=17, cached=14, deduplicated=17)
        assert service.estimate(other, texts, tokens) == Estimate(to_embed=31, cached=0, deduplicated=17)
        assert service.estimate(mine, [], []) == Estimate(0, 0, 0)
    finally:
        monkeypatch.undo()
        service.close()


def test_an_idle_api_has_no_child_and_charges_what_the_operator_set(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, embedding_runtime="hash", embedding_prices={"hash": 5}, embedding_price=1)
    before, services = children_of_this(), build_api(settings)
    try:
        assert services.core.ledger.price == services.estimates.ledger.price == 5
        assert children_of_this() == before
        context = services.core.registry.context_of_job(services.core.registry.create("a", monthly_tokens=1).id, "test")
        estimate = services.estimates.for_tenant(context).estimate(Submission(b"Few words."))
        assert (estimate.price, estimate.cost, estimate.within_budget) == (5, 5 * estimate.tokens.to_embed, False)
        assert len(children_of_this()) == len(before) + 1
    finally:
        services.close()
    assert children_of_this() == before


def children_of_this() -> set[int]:
    return set(children(os.getpid()))
