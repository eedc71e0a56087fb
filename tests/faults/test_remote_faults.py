"""A provider that refuses, falls silent, answers by halves and wrongly: every text gets its vector, and is paid for once."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from config.database import Database
from config.errors import CarrelError, ModelUnavailable, ProviderRefused, Unavailable
from rag.corpus import Chunk, Document
from rag.embedding.cache import DiskVectorCache
from rag.embedding.hashing import HashRuntime
from rag.embedding.remote.breaker import Breaker
from rag.embedding.remote.client import ProviderClient
from rag.embedding.remote.embedder import RemoteEmbedder, RemoteLimits
from rag.embedding.remote.failures import Broken
from rag.embedding.remote.model import RemoteModel, RemoteSpec
from rag.embedding.remote.tokenizer import TokenizerFile
from rag.embedding.runtime import Matrix, PartlyEmbedded
from rag.splitting.chunking import embedded_text
from rag.store.base import Search
from rag.store.memory import MemoryStore
from tenants.tables import BudgetWindow
from tests.provider import WIDTH, Provider, provider_server, vector_of
from tests.support import wait_for
from tests.world import TENANTS, World

KEY = "test-key-of-ours"
LIMITS = RemoteLimits(concurrency=6, timeout_s=5, deadline_s=60, batch_count=4, batch_tokens=10_000)


class Brisk(random.Random):
    """Jitter whose pauses are 20 ms at most."""

    def uniform(self, a: float, b: float) -> float:
        return super().uniform(a, min(b, 0.02))


@contextmanager
def embedder_of(
    provider: Provider, limits: RemoteLimits = LIMITS, *, dimensions: int = WIDTH, breaker: Breaker | None = None
) -> Iterator[RemoteEmbedder]:
    tokenizer = TokenizerFile("bytes", HashRuntime().tokenizer_json)
    model = RemoteModel(RemoteSpec("test-model", dimensions, 256, "1"), tokenizer)
    client = ProviderClient(
        provider.url, KEY, model="test-model", dimensions=dimensions, ask_dimensions=True, connections=limits.concurrency
    )
    embedder = RemoteEmbedder(
        model, client, limits, jitter=Brisk(1), breaker=breaker or Breaker(time.monotonic, failures=10**6)
    )
    try:
        yield embedder
    finally:
        provider.released.set()
        embedder.close()


def texts_of(count: int, name: str = "text") -> list[str]:
    return [f"{name} {number}" for number in range(count)]


def right(texts: Sequence[str], width: int = WIDTH) -> Any:
    matrix = np.stack([vector_of(text)[:width] for text in texts])
    return matrix / np.linalg.norm(matrix, axis=1, keepdims=True)


def ask(embedder: RemoteEmbedder, texts: Sequence[str], *, urgent: bool = False) -> Any:
    return embedder.embed(texts, embedder.model.count_tokens(texts), urgent=urgent)


def seeded(seed: int, shares: dict[str, float]) -> Callable[[int, Sequence[str]], str]:
    """Misbehaves with these probabilities; the server asks under its lock."""
    rng = random.Random(seed)
    return lambda _number, _texts: rng.choices([*shares, "ok"], [*shares.values(), 1 - sum(shares.values())])[0]


ROUGH = {
    "429": 0.15, "429 ms": 0.1, "429 long ago": 0.05,
    "500": 0.05, "503": 0.03, "408": 0.02, "409": 0.02, "drop": 0.03, "half": 0.05, "garbage": 0.02, "hang": 0.01,
    "wrong count": 0.02, "wrong index": 0.02, "nan": 0.02, "zeros": 0.01, "ragged": 0.02, "out of order": 0.1,
}  # fmt: skip


@pytest.mark.parametrize("encoded", [True, False], ids=["base64", "numbers"])
@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.full)])
def test_every_text_gets_its_vector_and_is_answered_once(seed: int, encoded: bool) -> None:
    with provider_server(act=seeded(seed, ROUGH), base64=encoded) as provider:
        with embedder_of(provider, replace(LIMITS, timeout_s=2)) as embedder, ThreadPoolExecutor(6) as callers:
            calls = [texts_of(30, f"caller {number},") for number in range(6)]
            answers = list(callers.map(lambda texts: ask(embedder, texts), calls))
            for texts, answer in zip(calls, answers, strict=True):
                np.testing.assert_allclose(answer.vectors, right(texts), atol=1e-6)
            assert provider.paid == Counter(text for texts in calls for text in texts)
            assert len({request.act for request in provider.received}) > 8
            counters = embedder.counters
    assert sum(answer.resent for answer in answers) == counters.resent == provider.resent > 10
    assert counters.requests == len(provider.received)
    assert counters.pressed == sum(request.act.startswith("429") for request in provider.received)


@pytest.mark.parametrize("act", ["ok", "obedient"])
@pytest.mark.parametrize("encoded", [True, False], ids=["base64", "numbers"])
def test_vectors_are_cut_to_the_dimensions_and_of_unit_length(act: str, encoded: bool) -> None:
    with provider_server(act=lambda *_: act, base64=encoded) as provider, embedder_of(provider, dimensions=10) as embedder:
        texts = texts_of(9)
        np.testing.assert_allclose(ask(embedder, texts).vectors, right(texts, 10), atol=1e-6)
        sent = provider.received[0]
    assert sent.request.keys() == {"model", "input", "encoding_format", "dimensions"}
    assert (sent.request["model"], sent.request["dimensions"], sent.request["encoding_format"]) == ("test-model", 10, "base64")
    assert sent.headers["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize(
    ("act", "kind", "says"),
    [
        ("400", ProviderRefused, "status 400, invalid_request_error"),
        ("422", ProviderRefused, "CARREL_EMBEDDING_DIMENSIONS"),
        ("401", ModelUnavailable, "set CARREL_EMBEDDING_API_KEY"),
        ("403", ModelUnavailable, "CARREL_EMBEDDING_MODEL"),
        ("404", ModelUnavailable, "CARREL_EMBEDDING_URL"),
        ("quota", ModelUnavailable, "quota"),
        ("moved", ModelUnavailable, "CARREL_EMBEDDING_URL"),
        ("short", ModelUnavailable, "CARREL_EMBEDDING_DIMENSIONS to 4"),
    ],
)
def test_what_no_repetition_mends_is_not_repeated_and_says_what_to_set(act: str, kind: type[CarrelError], says: str) -> None:
    with provider_server(act=lambda *_: act) as provider, embedder_of(provider) as embedder:
        with pytest.raises(kind, match=says) as raised:
            ask(embedder, ["one"], urgent=True)
        assert len(provider.received) == 1
        assert KEY not in repr(raised.value.__dict__) + str(raised.value) + repr(raised.value.__cause__)
        assert "SECRET" not in str(raised.value)


@pytest.mark.parametrize("act", ["413", "too many tokens", "batch too large"])
def test_a_batch_that_is_too_large_is_halved_once(act: str) -> None:
    with provider_server(act=lambda _, texts: act if len(texts) > 2 else "ok") as provider, embedder_of(provider) as embedder:
        texts = texts_of(8)
        answer = ask(embedder, texts)
        np.testing.assert_allclose(answer.vectors, right(texts), atol=1e-6)
        assert answer.resent == 0
        assert sorted(len(request.texts) for request in provider.received) == [2, 2, 2, 2, 4, 4]
    with provider_server(act=lambda *_: act) as provider, embedder_of(provider) as embedder:
        with pytest.raises(ProviderRefused, match="CARREL_EMBEDDING_BATCH_COUNT"):
            ask(embedder, texts_of(4))
        assert [len(request.texts) for request in provider.received] == [4, 2]
        with pytest.raises(ProviderRefused, match="CARREL_EMBEDDING_MAX_TOKENS"):
            ask(embedder, ["one"])


def test_what_was_done_before_the_deadline_is_handed_back() -> None:
    bad = texts_of(12)[4:8]
    with provider_server(act=lambda _, texts: "500" if texts == tuple(bad) else "ok") as provider:
        with embedder_of(provider, replace(LIMITS, deadline_s=0.6)) as embedder:
            with pytest.raises(PartlyEmbedded, match="in time") as raised:
                ask(embedder, texts_of(12))
            assert raised.value.done.keys() == {0, 1, 2, 3, 8, 9, 10, 11}
            for place, vector in raised.value.done.items():
                np.testing.assert_allclose(vector, vector_of(f"text {place}"), atol=1e-6)
            assert raised.value.resent == provider.resent > 0
            assert provider.paid == Counter(set(texts_of(12)) - set(bad))
            with pytest.raises(Unavailable, match="in time") as nothing:
                ask(embedder, bad)
    assert not isinstance(nothing.value, PartlyEmbedded)
    assert nothing.value.retry_after_s


def test_what_is_under_way_at_the_deadline_is_awaited_for_a_job_and_not_for_a_question() -> None:
    with provider_server(pause_s=1.0) as provider, embedder_of(provider, replace(LIMITS, deadline_s=0.3)) as embedder:
        np.testing.assert_allclose(ask(embedder, ["job"]).vectors, right(["job"]), atol=1e-6)
        with pytest.raises(Unavailable, match="no answer in time"):
            ask(embedder, ["question"], urgent=True)


def test_a_refused_batch_stops_those_that_wait_and_keeps_those_under_way() -> None:
    """With one request at a time, the second batch's refusal comes before the third is sent."""
    with provider_server(act=lambda number, _: "ok" if number == 1 else "401") as provider:
        with embedder_of(provider, replace(LIMITS, concurrency=1)) as embedder:
            with pytest.raises(PartlyEmbedded, match="CARREL_EMBEDDING_API_KEY") as raised:
                ask(embedder, texts_of(40))
            assert isinstance(raised.value.__cause__, ModelUnavailable)
            assert raised.value.retry_after_s
            assert len(provider.received) == 2
            assert raised.value.done.keys() == set(range(4))


def test_retry_after_is_honoured_by_everybody() -> None:
    with provider_server(act=lambda number, _: "429 seconds" if number == 1 else "ok") as provider:
        with embedder_of(provider) as embedder, ThreadPoolExecutor(2) as callers:
            first = callers.submit(ask, embedder, ["refused"])
            wait_for(lambda: embedder.counters.pressed, what="the refusal")
            second = callers.submit(ask, embedder, ["comes later"])
            assert (first.result(30).resent, second.result(30).resent) == (1, 0)
    began = [request.began for request in provider.received]
    assert min(began[1:]) - began[0] >= 1.0


def test_a_pause_that_ends_after_the_deadline_is_not_waited_for() -> None:
    with provider_server(act=lambda *_: "429 long") as provider:
        with embedder_of(provider, replace(LIMITS, deadline_s=20)) as embedder:
            began = time.monotonic()
            with pytest.raises(Unavailable, match="status 429") as raised:
                ask(embedder, ["one"])
            assert raised.value.retry_after_s == 30
            with pytest.raises(Unavailable, match="no room"):
                ask(embedder, ["two"])
            assert time.monotonic() - began < 15
            assert len(provider.received) == 1


@pytest.mark.parametrize(
    ("act", "says", "timeout_s"),
    [("drip", "took too long", 0.3), ("flood", "more than", 5), ("hang", "no answer in time", 0.3)],
)
def test_answers_without_an_end_are_not_awaited(act: str, says: str, timeout_s: float) -> None:
    with provider_server(act=lambda *_: act) as provider:
        with embedder_of(provider, replace(LIMITS, timeout_s=timeout_s, deadline_s=1.0)) as embedder:
            began = time.monotonic()
            with pytest.raises(Unavailable, match="in time") as raised:
                ask(embedder, ["one"])
            assert time.monotonic() - began < 10
            assert says in str(raised.value)
            assert embedder.counters.requests == len(provider.received)


def test_texts_are_sent_as_far_as_the_model_reads() -> None:
    with provider_server() as provider, embedder_of(provider) as embedder:
        answer = ask(embedder, ["x" * 300, "short"])
        assert provider.received[0].texts == ("x" * 256, "short")
        np.testing.assert_allclose(answer.vectors, right(["x" * 256, "short"]), atol=1e-6)


class ScriptedClient(ProviderClient):
    """Fails as told, then answers."""

    def __init__(self, *failures: Broken) -> None:
        self._failures = [*failures]

    def embed(self, texts: Sequence[str], *, timeout_s: float) -> Matrix:
        if self._failures:
            raise self._failures.pop(0)
        return np.stack([vector_of(text) for text in texts])

    def close(self) -> None:
        pass


@pytest.mark.parametrize(("reached", "resent"), [("-", 0), ("--", 0), ("+", 1), ("++", 2), ("+-", 1), ("-+-", 1), ("+-+", 2)])
def test_resent_is_what_the_provider_saw_again(reached: str, resent: int) -> None:
    client = ScriptedClient(*(Broken("x", reached=mark == "+") for mark in reached))
    model = RemoteModel(RemoteSpec("m", WIDTH, 256, "1"), TokenizerFile("bytes", HashRuntime().tokenizer_json))
    embedder = RemoteEmbedder(model, client, LIMITS, jitter=Brisk(1))
    assert ask(embedder, ["one"]).resent == embedder.counters.resent == resent
    assert embedder.counters.requests == reached.count("+") + 1
    embedder.close()


def test_nobody_listening_is_unavailable_and_no_request() -> None:
    with provider_server() as provider:
        pass
    with embedder_of(provider, replace(LIMITS, deadline_s=1.0)) as embedder:
        with pytest.raises(Unavailable, match="connection failed"):
            ask(embedder, ["one"])
        assert embedder.counters.requests == embedder.counters.resent == 0


def test_the_breaker_opens_probes_once_and_closes() -> None:
    behaviour = {"act": "500"}
    now = [0.0]
    breaker = Breaker(lambda: now[0], failures=5, cool_down_s=10)
    with provider_server(act=lambda *_: behaviour["act"]) as provider:
        with embedder_of(provider, breaker=breaker) as embedder:

            def outcomes() -> Counter[str]:
                """Of twenty calls at once."""
                barrier = threading.Barrier(20)

                def call(number: int) -> str:
                    barrier.wait(30)
                    try:
                        ask(embedder, [f"{number}"], urgent=True)
                    except Unavailable as error:
                        return "unavailable" if error.retry_after_s else "without a time"
                    return "answered"

                with ThreadPoolExecutor(20) as callers:
                    return Counter(callers.map(call, range(20)))

            assert outcomes() == {"unavailable": 20}
            seen = len(provider.received)
            assert 5 <= seen < 5 + LIMITS.concurrency
            assert embedder.counters.breaker_openings == 1
            assert outcomes() == {"unavailable": 20}
            assert len(provider.received) == seen, "open: nothing was sent"

            now[0], behaviour["act"] = 10.0, "hang"
            with ThreadPoolExecutor(1) as other:
                probe = other.submit(ask, embedder, ["probe"], urgent=True)
                wait_for(lambda: provider.under_way, what="the probe")
                assert outcomes() == {"unavailable": 20}
                assert len(provider.received) == seen + 1, "half-open: one probe"
                provider.released.set()  # without an answer
                with pytest.raises(Unavailable):
                    probe.result(30)
            assert embedder.counters.breaker_openings == 2

            now[0], behaviour["act"] = 20.0, "ok"
            np.testing.assert_allclose(ask(embedder, ["back"]).vectors, right(["back"]), atol=1e-6)
            assert outcomes() == {"answered": 20}


def test_refusals_for_pressure_do_not_open_the_breaker() -> None:
    breaker = Breaker(time.monotonic, failures=3, cool_down_s=1000)
    with provider_server(act=lambda number, _: "429" if number <= 12 else "ok") as provider:
        with embedder_of(provider, breaker=breaker) as embedder:
            assert ask(embedder, ["one"]).resent == 12
            assert embedder.counters.breaker_openings == 0


@pytest.mark.parametrize(
    ("limits", "count"),
    [({"requests_per_minute": 1800}, 90), ({"tokens_per_minute": 1800 * 10}, 90)],
    ids=["requests", "tokens"],
)
def test_the_pace_is_within_a_twentieth_of_the_limit(limits: dict[str, int], count: int) -> None:
    """Thirty a second over three seconds, one text of ten tokens each: neither faster nor slower, nor in bursts."""
    paced = replace(LIMITS, batch_count=1, **limits)
    with provider_server() as provider, embedder_of(provider, paced) as embedder:
        embedder.embed(texts_of(count), [10] * count)
    left = sorted(request.began for request in provider.received)
    rate = (len(left) - 1) / (left[-1] - left[0])
    assert 0.95 * 30 <= rate <= 1.05 * 30
    assert max(sum(begin <= at < begin + 0.5 for at in left) for begin in left) <= 20


def test_a_question_overtakes_batches_that_wait() -> None:
    paced = replace(LIMITS, batch_count=1, requests_per_minute=600, concurrency=2)
    with provider_server() as provider, embedder_of(provider, paced) as embedder, ThreadPoolExecutor(1) as worker:
        job = worker.submit(ask, embedder, texts_of(25))
        wait_for(lambda: len(provider.received) >= 4, what="the job's first requests")
        sent = len(provider.received)
        ask(embedder, ["question"], urgent=True)
        job.result(30)
        place = [request.texts for request in provider.received].index(("question",))
    assert place <= sent + 1


def test_concurrency_follows_what_the_provider_bears() -> None:
    provider_bears = 3

    def act(_number: int, _texts: Sequence[str]) -> str:
        return "429" if provider.under_way >= provider_bears else "ok"

    with provider_server(act=act, pause_s=0.01) as provider:
        with embedder_of(provider, replace(LIMITS, concurrency=32, batch_count=1)) as embedder:
            texts = texts_of(300)
            answer = ask(embedder, texts)
            np.testing.assert_allclose(answer.vectors, right(texts), atol=1e-6)
            assert provider.most_under_way < 12
            assert embedder.counters.allowed < 12
            assert answer.resent < 150


def test_closing_ends_what_waits() -> None:
    with provider_server(act=lambda *_: "429 seconds") as provider, embedder_of(provider) as embedder:
        with ThreadPoolExecutor(2) as callers:
            waiting = callers.submit(ask, embedder, ["one"])
            wait_for(lambda: provider.received, what="a refusal")
            embedder.close()
            with pytest.raises(ModelUnavailable):
                waiting.result(5)
        for urgent in (True, False):
            with pytest.raises(ModelUnavailable):
                ask(embedder, ["late"], urgent=urgent)


def paragraphs(name: str, number: int) -> str:
    """Eighty, each a chunk of its own."""
    return "\n\n".join(" ".join([f"paragraph {place} of document {number} of {name}"] * 4) for place in range(80))


@contextmanager
def world_of(folder: Path, embedder: RemoteEmbedder) -> Iterator[World]:
    """Two tenants with two documents each, whose jobs wait; the real pipeline, cache, and ledger on SQLite."""
    database = Database(f"sqlite:///{folder}/carrel.db")
    cache = DiskVectorCache(folder / "cache", max_bytes=10**7)
    world = World(database, MemoryStore(), folder, embedder=embedder, cache=cache)
    for name in TENANTS:
        for number in range(2):
            world.bring(name, f"document {number}", paragraphs(name, number))
    yield world
    world.close()
    database.close()


def run_jobs(world: World, pause: Callable[[float], None] | None = None) -> None:
    """All at once."""
    with ThreadPoolExecutor(4) as workers:
        for job in [workers.submit(world.run_jobs, pause) for _ in range(4)]:
            job.result(120)


def stored_and_charged_once(world: World) -> set[str]:
    """What was embedded, after every chunk was found where the provider's own vector of its text points to."""
    world.check_invariants()
    embedded: set[str] = set()
    for name in TENANTS:
        texts = {chunk.id: embedded_text(chunk.context, chunk.text) for chunk in world.all(name, Chunk)}
        assert len({*texts.values()}) == len(texts) == 160
        collections = tuple({document.collection_id for document in world.all(name, Document)})
        searches = [Search(vector_of(text), 1, collections) for text in texts.values()]
        found = world.vectors(name).search(searches)
        assert [hits[0].id for hits in found if hits[0].score > 0.999] == [*texts]
        tokens = sum(world.embedding.model.count_tokens([*texts.values()]))
        assert {(window.used, window.held) for window in world.all(name, BudgetWindow)} == {(tokens, 0)}
        embedded |= {*texts.values()}
    return embedded


def test_jobs_of_two_tenants_store_and_charge_every_chunk_once(tmp_path: Path) -> None:
    with provider_server(act=seeded(5, ROUGH)) as provider:
        with embedder_of(provider, replace(LIMITS, timeout_s=2)) as embedder, world_of(tmp_path, embedder) as world:
            run_jobs(world)
            assert provider.paid == Counter(stored_and_charged_once(world))
            assert embedder.counters.resent == provider.resent > 10


def test_jobs_whose_calls_ended_half_done_go_on(tmp_path: Path) -> None:
    """After ten requests the provider is down until a step has waited."""
    back = threading.Event()

    def act(number: int, _texts: Sequence[str]) -> str:
        return "ok" if number <= 10 or back.is_set() else "503"

    with provider_server(act=act) as provider:
        with embedder_of(provider, replace(LIMITS, deadline_s=0.5)) as embedder, world_of(tmp_path, embedder) as world:
            run_jobs(world, lambda _seconds: back.set())
            assert back.is_set()
            assert provider.paid == Counter(stored_and_charged_once(world)), "what was done is not paid for again"
