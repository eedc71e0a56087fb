"""N identical misses embed once, the one who leads pays, and a failure reaches everybody who waited exactly once."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.clock import system_clock
from config.database import Database
from config.errors import BudgetExhausted, LeaseLost, Unavailable
from rag.embedding.batcher import Batcher
from rag.embedding.cache import DiskVectorCache, NullVectorCache
from rag.embedding.flights import Flights
from rag.embedding.hashing import HashRuntime
from rag.embedding.runtime import Embedding, Matrix, PartlyEmbedded
from rag.embedding.service import EmbeddingService
from tenants.ledger.budget import Ledger, TenantMeter
from tenants.ledger.usage import UsageReader
from tenants.registry import TenantRegistry
from tests.support import FakeScope, FreeMeter

A, B = FakeScope("a", b"salt of a"), FakeScope("b", b"salt of b")
COUNT = HashRuntime().count_tokens


@dataclass
class GatedEmbedder:
    """Waits at a gate; fails on the text "bad", and after the first text of those with "part"."""

    model: HashRuntime = field(default_factory=HashRuntime)
    gate: threading.Event = field(default_factory=threading.Event)
    entered: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    calls: list[list[str]] = field(default_factory=list)
    partly: bool = False
    state = ""

    def embed(self, texts: Sequence[str], tokens: Sequence[int], **_asked: object) -> Embedding:
        self.calls.append(list(texts))
        self.entered.release()
        assert self.gate.wait(30)
        if "bad" in texts:
            raise OSError("the model failed")
        vectors = self.model.embed(texts)
        if self.partly:
            raise PartlyEmbedded("the provider stopped answering", {0: vectors[0]}, resent=3)
        return Embedding(vectors, 0.5, 2)

    def close(self) -> None:
        pass


@pytest.fixture
def embedder() -> GatedEmbedder:
    return GatedEmbedder()


@pytest.fixture
def service(embedder: GatedEmbedder, tmp_path: Path) -> Iterator[EmbeddingService]:
    service = EmbeddingService(embedder, DiskVectorCache(tmp_path / "cache", max_bytes=1 << 20))
    yield service
    service.close()


def boarded(service: EmbeddingService, followers: int, embedder: GatedEmbedder, calls: int) -> None:
    """Until so many calls are in the model, and so many wait for them."""
    for _ in range(calls):
        assert embedder.entered.acquire(timeout=30)
    while sum(flight._condition._waiters.__len__() for flight in service._flights._open.values()) < followers:  # type: ignore[attr-defined]
        threading.Event().wait(0.001)


def test_many_questions_with_one_text_embed_once_and_one_of_them_pays(
    service: EmbeddingService, embedder: GatedEmbedder
) -> None:
    meters = [FreeMeter() for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(service.embed_query, A, meter, "same text", charge_id="q") for meter in meters]
        boarded(service, 7, embedder, 1)
        embedder.gate.set()
        answers = [each.result(30) for each in asked]
    assert embedder.calls == [["same text"]]
    [cost] = COUNT(["same text"])
    assert sorted(answer.charged for answer in answers) == [0] * 7 + [cost]
    assert sorted(answer.deduplicated for answer in answers) == [0] + [cost] * 7
    assert sum(sum(meter.paid.values()) for meter in meters) == cost
    assert all(np.array_equal(answer.vectors, answers[0].vectors) for answer in answers)


def test_a_job_and_a_question_share_a_flight(service: EmbeddingService, embedder: GatedEmbedder) -> None:
    meter = FreeMeter()
    with ThreadPoolExecutor(3) as pool:
        job = pool.submit(service.embed_batch, A, meter, ["one", "two"], hold_id="h")
        boarded(service, 0, embedder, 1)
        other = pool.submit(service.embed_batch, A, meter, ["two", "three"], hold_id="i")
        boarded(service, 0, embedder, 1)  # what it must do itself it does at once
        question = pool.submit(service.embed_query, A, meter, "one", charge_id="q")
        boarded(service, 1, embedder, 0)
        embedder.gate.set()
        assert job.result(30).charged == sum(COUNT(["one", "two"]))
        assert (other.result(30).charged, other.result(30).deduplicated) == (COUNT(["three"])[0], COUNT(["two"])[0])
        assert question.result(30).charged == 0
    assert sorted(text for call in embedder.calls for text in call) == ["one", "three", "two"]


def test_tenants_do_not_share_a_flight(service: EmbeddingService, embedder: GatedEmbedder) -> None:
    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(service.embed_query, scope, FreeMeter(), "same text", charge_id="q") for scope in (A, B)]
        boarded(service, 0, embedder, 2)
        embedder.gate.set()
        assert [each.result(30).charged for each in asked] == COUNT(["same text"]) * 2
    assert embedder.calls == [["same text"]] * 2


def test_a_failed_flight_fails_its_waiters_once_and_the_next_try_flies(
    service: EmbeddingService, embedder: GatedEmbedder
) -> None:
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(service.embed_query, A, FreeMeter(), "bad", charge_id="q") for _ in range(4)]
        boarded(service, 3, embedder, 1)
        embedder.gate.set()
        errors = [each.exception(30) for each in asked]
    assert embedder.calls == [["bad"]]
    assert sorted(type(error).__name__ for error in errors) == ["OSError", *["Unavailable"] * 3]
    assert len({id(error) for error in errors}) == 4
    with pytest.raises(OSError, match="the model failed"):
        service.embed_query(A, FreeMeter(), "bad", charge_id="q")
    assert embedder.calls == [["bad"]] * 2


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        (BudgetExhausted("too little is left", field="budget", limit=3), BudgetExhausted),
        (Unavailable("later", retry_after_s=7), Unavailable),
        (LeaseLost("somebody else's job now"), Unavailable),
        (KeyError("a bug"), Unavailable),
    ],
)
def test_followers_hear_what_concerns_them(raised: BaseException, told: type[Exception]) -> None:
    flights = Flights()
    leader, follower = flights.board([b"key"]), flights.board([b"key"])
    assert follower.lead == set()
    leader.__exit__(type(raised), raised, None)
    with pytest.raises(told) as caught:
        follower.wait(b"key")
    assert caught.value is not raised
    if isinstance(raised, Unavailable):
        assert isinstance(caught.value, Unavailable)
        assert caught.value.retry_after_s == 7
    assert flights.board([b"key"]).lead == {b"key"}


@given(batches=st.lists(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=6), min_size=1, max_size=8))
@settings(max_examples=25, deadline=None)
def test_whatever_overlaps_ends_and_every_text_is_embedded_once(
    batches: list[list[str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    embedder = GatedEmbedder()
    embedder.gate.set()
    service = EmbeddingService(embedder, DiskVectorCache(tmp_path_factory.mktemp("cache"), max_bytes=1 << 20))
    with ThreadPoolExecutor(8) as pool:
        done = [pool.submit(service.embed_batch, A, FreeMeter(), batch, hold_id="h") for batch in batches]
        results = [each.result(30) for each in done]
    embedded = [text for call in embedder.calls for text in call]
    assert sorted(embedded) == sorted({text for batch in batches for text in batch})
    assert sum(result.charged for result in results) == sum(COUNT(embedded))
    for batch, result in zip(batches, results, strict=True):
        assert np.allclose(result.vectors, HashRuntime().embed(batch), atol=1e-3)
        assert result.charged + result.cached + result.deduplicated == sum(COUNT(batch))
    service.close()


def _meter(database: Database, scope: FakeScope) -> TenantMeter:
    return Ledger(database, system_clock, lease_s=60).for_tenant(scope, "ingest")


def test_what_a_provider_did_before_it_failed_is_charged_once_and_not_done_again(
    database: Database, service: EmbeddingService, embedder: GatedEmbedder
) -> None:
    embedder.gate.set()
    texts = ["one", "two words", "three more words"]
    costs = dict(zip(texts, COUNT(texts), strict=True))
    embedder.partly = True
    for number in (1, 2):  # each try gets one text further
        with pytest.raises(PartlyEmbedded):
            service.embed_batch(A, _meter(database, A), texts, hold_id="h")
        usage = UsageReader(database, system_clock).of(A)
        assert (usage.used, usage.held) == (sum(costs[text] for text in texts[:number]), 0)
    embedder.partly = False
    result = service.embed_batch(A, _meter(database, A), texts, hold_id="h")
    assert embedder.calls == [texts, texts[1:], texts[2:]]
    assert result.charged == sum(costs.values())  # the parts too: it is what the batch cost
    assert result.resent == 2
    usage = UsageReader(database, system_clock).of(A)
    assert (usage.used, usage.held) == (sum(costs.values()), 0)
    assert UsageReader(database, system_clock).of(B).used == 0
    assert np.allclose(result.vectors, HashRuntime().embed(texts), atol=1e-3)


def test_what_another_call_failed_to_embed_is_paid_for_when_the_batch_is_tried_again(
    database: Database, service: EmbeddingService, embedder: GatedEmbedder
) -> None:
    texts, used = ["a text of many words", "bad"], UsageReader(database, system_clock)
    with ThreadPoolExecutor(2) as pool:
        other = pool.submit(service.embed_batch, A, _meter(database, A), ["bad"], hold_id="other")
        boarded(service, 0, embedder, 1)
        job = pool.submit(service.embed_batch, A, _meter(database, A), texts, hold_id="h")
        boarded(service, 0, embedder, 1)
        embedder.gate.set()
        assert [type(each.exception(30)) for each in (other, job)] == [OSError, Unavailable]
    assert (used.of(A).used, used.of(A).held) == (COUNT(texts)[0], 0)
    service.embedder = Batcher(HashRuntime(), batch_tokens=64)
    for _ in range(2):  # and once, however often it is run
        result = service.embed_batch(A, _meter(database, A), texts, hold_id="h")
        assert (result.charged, used.of(A).used, used.of(A).held) == (sum(COUNT(texts)), sum(COUNT(texts)), 0)
    assert used.of(B).used == 0


def test_a_budget_that_ends_meanwhile_stops_the_rest_and_not_what_was_done(
    database: Database, service: EmbeddingService, embedder: GatedEmbedder
) -> None:
    embedder.gate.set()
    embedder.partly = True
    texts = ["one", "two words"]
    TenantRegistry(database, system_clock).update("a", {"monthly_tokens": sum(COUNT(texts))})
    with pytest.raises(PartlyEmbedded):
        service.embed_batch(A, _meter(database, A), texts, hold_id="h")
    TenantRegistry(database, system_clock).update("a", {"monthly_tokens": COUNT(texts)[0]})
    with pytest.raises(BudgetExhausted):
        service.embed_batch(A, _meter(database, A), texts, hold_id="h")
    assert UsageReader(database, system_clock).of(A).used == COUNT(texts)[0]
    assert embedder.calls == [texts]


class PromptedRuntime(HashRuntime):
    fingerprint = replace(HashRuntime.fingerprint, query_prompt="query: ", document_prompt="passage: ")

    def __init__(self) -> None:
        super().__init__()
        self.read: list[str] = []

    def embed(self, texts: Sequence[str]) -> Matrix:
        self.read += texts
        return super().embed(texts)


def test_prompts_are_read_by_the_model_and_paid_for() -> None:
    runtime, meter = PromptedRuntime(), FreeMeter()
    service = EmbeddingService(Batcher(runtime, batch_tokens=64), NullVectorCache())
    assert service.space != HashRuntime.fingerprint.space
    service.embed_query(A, meter, "text", charge_id="q")
    counts = service.count_tokens(["text"])
    service.embed_batch(A, meter, ["text"], hold_id="h", tokens=counts)
    service.close()
    assert runtime.read == ["query: text", "passage: text"]
    assert meter.paid == {"q": COUNT(["query: text"])[0], "h": COUNT(["passage: text"])[0]} == {**meter.paid, "h": counts[0]}


def test_a_follower_waits_for_its_leader_and_not_for_the_cache() -> None:
    flights = Flights()
    with flights.board([b"x", b"y", b"x"]) as flight:
        assert flight.lead == {b"x", b"y"}
        follower = flights.board([b"y", b"z"])
        assert (follower.lead, set(follower.follow)) == ({b"z"}, {b"y"})
        assert not follower.follow[b"y"].done()
        flight.land({b"y": np.ones(2, np.float32)})
        assert follower.wait(b"y").tolist() == [1, 1]
        flight.land({b"x": np.zeros(2, np.float32)})
    assert flights.board([b"x", b"y"]).lead == {b"x", b"y"}


def test_a_sessions_own_budget_fails_nobody_elses_question() -> None:
    flights = Flights()
    leader, follower = flights.board([b"a text"]), flights.board([b"a text"])
    with pytest.raises(BudgetExhausted), leader:
        raise BudgetExhausted("of one session", field="budget_tokens")
    with pytest.raises(Unavailable):
        follower.wait(b"a text")
