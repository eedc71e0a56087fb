"""Batches hold every text once within their budget; the model's thread answers everybody and outlives its failures."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.errors import ModelUnavailable
from rag.embedding.batcher import Batcher, Lane, _Request
from rag.embedding.hashing import HashRuntime
from rag.embedding.runtime import Matrix


@given(
    requests=st.lists(st.lists(st.integers(0, 300), min_size=1, max_size=20), max_size=8),
    budget=st.integers(1, 500),
    taken=st.integers(0, 8),
)
@settings(deadline=None)
def test_batches_hold_every_text_once_and_keep_to_the_budget(requests: list[list[int]], budget: int, taken: int) -> None:
    lane, batches, found = Lane(), [], Counter[tuple[int, int]]()
    asked = [_Request([""] * len(lengths), lengths, 1) for lengths in requests]
    for number, request in enumerate(asked):
        lane.add(request)
        if number < taken:  # some come while others are served
            batches.append(lane.take(budget))
    while batch := lane.take(budget):
        batches.append(batch)
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(text.tokens for text in batch) <= budget
        found.update((asked.index(text.request), text.place) for text in batch)
    assert found == Counter((number, place) for number, lengths in enumerate(requests) for place in range(len(lengths)))
    assert len(lane) == 0


def test_the_oldest_request_is_served_first_and_texts_of_its_lengths_go_along() -> None:
    lane = Lane()
    old, new = _Request([""] * 3, [100, 20, 21], 1), _Request([""] * 4, [22, 99, 500, 1], 1)
    lane.add(old)
    lane.add(new)
    assert [sorted(text.tokens for text in lane.take(200)) for _ in range(5)] == [[99, 100], [1, 20, 21, 22], [500], [], []]


@dataclass
class GatedRuntime(HashRuntime):
    """The hash runtime, which waits at a gate and fails on the text "bad"."""

    gate: threading.Event = field(default_factory=threading.Event)
    entered: threading.Event = field(default_factory=threading.Event)
    calls: list[list[str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def embed(self, texts: Sequence[str]) -> Matrix:
        self.calls.append(list(texts))
        self.entered.set()
        assert self.gate.wait(30)
        if "bad" in texts:
            raise ValueError("the model failed")
        return super().embed(texts)


@pytest.fixture
def runtime() -> GatedRuntime:
    return GatedRuntime()


def until_waiting(batcher: Batcher, requests: int) -> None:
    while len({text.request for lane in (batcher._bulk, batcher._urgent) for text in lane._by_length}) < requests:
        threading.Event().wait(0.001)


def test_concurrent_callers_each_get_their_own_vectors_in_order() -> None:
    runtime = HashRuntime()
    batcher = Batcher(runtime, batch_tokens=64)

    def ask(caller: int) -> bool:
        texts = [f"caller {caller} {'word ' * ((caller * 7 + i) % 11)}{i}" for i in range(caller % 5 + 1)]
        return np.array_equal(batcher.embed(texts, runtime.count_tokens(texts)).vectors, runtime.embed(texts))

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(ask, range(200)))
    batcher.close()


def test_whoever_waits_meanwhile_shares_the_next_batch(runtime: GatedRuntime) -> None:
    batcher = Batcher(runtime, batch_tokens=1000)
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(batcher.embed, ["first"], [1])
        assert runtime.entered.wait(30)
        others = [pool.submit(batcher.embed, [name], [1]) for name in ("x", "y", "z")]
        until_waiting(batcher, len(others))
        runtime.gate.set()
        assert [len(answer.result(30).vectors) for answer in (first, *others)] == [1, 1, 1, 1]
    assert [sorted(call) for call in runtime.calls] == [["first"], ["x", "y", "z"]]
    batcher.close()


def test_a_failure_reaches_exactly_those_who_shared_it(runtime: GatedRuntime) -> None:
    batcher = Batcher(runtime, batch_tokens=1)  # nobody shares
    with ThreadPoolExecutor(3) as pool:
        good = pool.submit(batcher.embed, ["good"], [1])
        assert runtime.entered.wait(30)
        bad = pool.submit(batcher.embed, ["bad"], [1])
        until_waiting(batcher, 1)
        after = pool.submit(batcher.embed, ["after"], [1])
        runtime.gate.set()
        assert isinstance(bad.exception(30), ValueError)
        assert good.exception(30) is None
        assert after.exception(30) is None
    batcher.close()


def test_the_thread_survives_a_failure(runtime: GatedRuntime) -> None:
    runtime.gate.set()
    batcher = Batcher(runtime, batch_tokens=100)
    for _ in range(3):
        with pytest.raises(ValueError, match="the model failed"):
            batcher.embed(["bad"], [1])
    assert np.array_equal(batcher.embed(["good"], [1]).vectors, HashRuntime().embed(["good"]))
    batcher.close()


def test_closing_serves_what_waits_and_refuses_what_comes_after(runtime: GatedRuntime) -> None:
    batcher = Batcher(runtime, batch_tokens=100)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(batcher.embed, ["first"], [1])
        assert runtime.entered.wait(30)
        waiting = pool.submit(batcher.embed, ["waiting"], [1])
        until_waiting(batcher, 1)
        closing = threading.Thread(target=batcher.close)
        closing.start()
        runtime.gate.set()
        closing.join(30)
        assert len(first.result(30).vectors) == len(waiting.result(30).vectors) == 1
    assert not batcher._thread.is_alive()
    with pytest.raises(ModelUnavailable):
        batcher.embed(["late"], [1])


def test_a_question_goes_before_the_batches_of_jobs_that_wait(runtime: GatedRuntime) -> None:
    batcher = Batcher(runtime, batch_tokens=2)
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(batcher.embed, ["first"], [1])
        assert runtime.entered.wait(30)
        job = pool.submit(batcher.embed, ["a", "b", "c", "d"], [1, 1, 1, 1])
        until_waiting(batcher, 1)
        question = pool.submit(batcher.embed, ["question"], [1], urgent=True)
        until_waiting(batcher, 2)
        runtime.gate.set()
        assert [len(answer.result(30).vectors) for answer in (first, job, question)] == [1, 4, 1]
    assert runtime.calls == [["first"], ["question"], ["a", "b"], ["c", "d"]]
    batcher.close()


def test_a_question_also_goes_between_the_batches_of_one_job(runtime: GatedRuntime) -> None:
    batcher = Batcher(runtime, batch_tokens=1)
    with ThreadPoolExecutor(2) as pool:
        job = pool.submit(batcher.embed, ["a", "b", "c"], [1, 1, 1])
        assert runtime.entered.wait(30)
        question = pool.submit(batcher.embed, ["question"], [1], urgent=True)
        until_waiting(batcher, 1)
        runtime.gate.set()
        assert len(question.result(30).vectors) == 1
        assert len(job.result(30).vectors) == 3
    assert runtime.calls == [["a"], ["question"], ["b"], ["c"]]
    batcher.close()


def test_what_is_left_of_a_failed_request_is_not_embedded(runtime: GatedRuntime) -> None:
    runtime.gate.set()
    batcher = Batcher(runtime, batch_tokens=1)
    with pytest.raises(ValueError, match="the model failed"):
        batcher.embed(["bad", "wasted"], [1, 1])
    batcher.embed(["good"], [1])
    assert runtime.calls == [["bad"], ["good"]]
    batcher.close()


def test_nothing_asked_is_nothing_embedded(runtime: GatedRuntime) -> None:
    batcher = Batcher(runtime, batch_tokens=1)
    assert batcher.embed([], []).vectors.shape == (0, runtime.fingerprint.dimensions)
    batcher.close()
