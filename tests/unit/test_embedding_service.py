"""Every text is paid for once, by the tenant that sent it, and nobody pays for a model that failed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from sqlmodel import select

from config.database import Database
from config.errors import BudgetExhausted
from rag.embedding.batcher import Batcher
from rag.embedding.cache import DiskVectorCache
from rag.embedding.hashing import HashRuntime
from rag.embedding.runtime import Matrix
from rag.embedding.service import EmbeddingService
from tenants.ledger.budget import Ledger, TenantMeter
from tenants.ledger.usage import Usage, UsageReader
from tenants.registry import TenantRegistry
from tenants.tables import LedgerEntry
from tests.support import FakeScope
from tests.unit.conftest import SetClock

A, B = FakeScope("a", b"salt of a"), FakeScope("b", b"salt of b")
TEXTS = ["one two", "three", "one two"]
COST = dict(zip(TEXTS, HashRuntime().count_tokens(TEXTS), strict=True))
ALL = sum(COST.values())


@dataclass
class WatchedRuntime(HashRuntime):
    """The hash runtime, which remembers what it was asked and can be told to fail."""

    calls: list[list[str]] = field(default_factory=list)
    failing: bool = False
    meanwhile: Callable[[], object] = field(default=lambda: None)

    def __post_init__(self) -> None:
        super().__init__()

    def embed(self, texts: Sequence[str]) -> Matrix:
        self.meanwhile()
        if self.failing:
            raise OSError("the model failed")
        self.calls.append(list(texts))
        return super().embed(texts)


@pytest.fixture
def runtime() -> WatchedRuntime:
    return WatchedRuntime()


@pytest.fixture
def embedding(tmp_path: Path, runtime: WatchedRuntime) -> Iterator[EmbeddingService]:
    service = EmbeddingService(Batcher(runtime, batch_tokens=64), DiskVectorCache(tmp_path / "cache", max_bytes=1 << 20))
    yield service
    service.close()


@dataclass
class Money:
    """The real ledger, and what it says of a tenant."""

    database: Database
    clock: SetClock

    def meter(self, scope: FakeScope) -> TenantMeter:
        return Ledger(self.database, self.clock, lease_s=60).for_tenant(scope, "ingest")

    def of(self, scope: FakeScope) -> Usage:
        return UsageReader(self.database, self.clock).of(scope)

    def paid(self, scope: FakeScope) -> tuple[int, int]:
        """(used, held)"""
        return self.of(scope).used, self.of(scope).held


@pytest.fixture
def money(database: Database, clock: SetClock) -> Money:
    return Money(database, clock)


def test_equal_texts_are_embedded_and_paid_for_once(embedding: EmbeddingService, runtime: WatchedRuntime, money: Money) -> None:
    result = embedding.embed_batch(A, money.meter(A), TEXTS, hold_id="h")
    assert [text for call in runtime.calls for text in call] == ["three", "one two"]
    assert (result.charged, result.cached, result.deduplicated) == (ALL, 0, COST["one two"])
    assert money.paid(A) == (ALL, 0)


def test_vectors_come_in_the_order_of_the_texts(embedding: EmbeddingService, money: Money) -> None:
    texts = ["three", "a rather longer text", "x", "three"]
    vectors = embedding.embed_batch(A, money.meter(A), texts, hold_id="h").vectors
    assert np.allclose(vectors, HashRuntime().embed(texts), atol=1e-3)


def test_a_cached_text_is_free_and_has_the_same_vector(
    embedding: EmbeddingService, runtime: WatchedRuntime, money: Money
) -> None:
    first = embedding.embed_batch(A, money.meter(A), TEXTS, hold_id="h")
    again = embedding.embed_batch(A, money.meter(A), TEXTS, hold_id="another")
    asked = embedding.embed_query(A, money.meter(A), "three", charge_id="q")
    assert (again.charged, again.cached, asked.charged, asked.cached) == (0, ALL, 0, COST["three"])
    assert (first.hits, again.hits, money.of(A).total.hits) == (0, 2, 1)  # a batch is counted by whoever keeps its vectors
    assert np.array_equal(first.vectors, again.vectors)
    assert np.array_equal(first.vectors[1], asked.vectors[0])
    assert len(runtime.calls) == 1
    assert money.paid(A) == (ALL, 0)


def test_another_tenant_pays_for_the_same_text(embedding: EmbeddingService, runtime: WatchedRuntime, money: Money) -> None:
    embedding.embed_query(A, money.meter(A), "three", charge_id="q")
    other = embedding.embed_query(B, money.meter(B), "three", charge_id="q")
    assert (other.charged, other.cached) == (COST["three"], 0)
    assert runtime.calls == [["three"], ["three"]]
    assert money.paid(A) == money.paid(B) == (COST["three"], 0)


def test_a_query_is_refunded_when_the_model_fails(embedding: EmbeddingService, runtime: WatchedRuntime, money: Money) -> None:
    runtime.failing = True
    with pytest.raises(OSError, match="the model failed"):
        embedding.embed_query(A, money.meter(A), "three", charge_id="q")
    assert money.paid(A) == (0, 0)
    assert [day.charged for day in money.of(A).days] == [0]
    runtime.failing = False
    assert embedding.embed_query(A, money.meter(A), "three", charge_id="q").charged == COST["three"]


def _fails(embedding: EmbeddingService, runtime: WatchedRuntime, money: Money) -> None:
    runtime.failing = True
    with pytest.raises(OSError, match="the model failed"):
        embedding.embed_query(A, money.meter(A), "three", charge_id="q")


def test_what_was_answered_once_is_not_refunded_by_a_repetition_that_fails(
    embedding: EmbeddingService, runtime: WatchedRuntime, money: Money
) -> None:
    embedding.embed_query(A, money.meter(A), "three", charge_id="q")
    embedding.embed_query(B, money.meter(B), "three", charge_id="q")
    embedding.forget_all(A)
    _fails(embedding, runtime, money)
    assert money.paid(A) == money.paid(B) == (COST["three"], 0)


def test_of_two_processes_with_one_charge_whoever_has_its_vectors_pays(
    embedding: EmbeddingService, runtime: WatchedRuntime, money: Money, tmp_path: Path
) -> None:
    runtimes = [WatchedRuntime(), WatchedRuntime()]
    others = [
        EmbeddingService(Batcher(each, batch_tokens=64), DiskVectorCache(tmp_path / f"{number}", max_bytes=1 << 20))
        for number, each in enumerate(runtimes)
    ]
    # The one that pays fails after the free one has its vectors: the charge stays.
    runtime.meanwhile = lambda: others[0].embed_query(A, money.meter(A), "three", charge_id="q")
    _fails(embedding, runtime, money)
    assert (money.paid(A), money.of(A).days[0].charged) == ((COST["three"], 0), COST["three"])
    # It fails before that, and is refunded: the free one pays.
    assert money.meter(A).debit("r", COST["three"])
    runtimes[1].meanwhile = lambda: money.meter(A).refund("r")
    others[1].embed_query(A, money.meter(A), "three", charge_id="r")
    assert (money.paid(A), money.of(A).days[0].charged) == ((2 * COST["three"], 0), 2 * COST["three"])
    assert money.paid(B) == (0, 0)
    for each in others:
        each.close()


def test_a_hold_is_released_when_the_model_fails(embedding: EmbeddingService, runtime: WatchedRuntime, money: Money) -> None:
    runtime.failing = True
    with pytest.raises(OSError, match="the model failed"):
        embedding.embed_batch(A, money.meter(A), TEXTS, hold_id="h")
    assert money.paid(A) == (0, 0)
    runtime.failing = False
    assert embedding.embed_batch(A, money.meter(A), TEXTS, hold_id="h").charged == ALL
    assert money.paid(A) == (ALL, 0)


def test_a_step_that_was_charged_before_it_died_is_not_charged_again(
    embedding: EmbeddingService, runtime: WatchedRuntime, money: Money
) -> None:
    embedding.embed_query(A, money.meter(A), "three", charge_id="q")
    runtime.calls.clear()
    earlier = money.meter(A)
    earlier.hold("h", ALL)
    earlier.start("h")
    earlier.settle("h", ALL)  # and then the process died, before the vectors were kept
    result = embedding.embed_batch(A, money.meter(A), TEXTS, hold_id="h")
    assert len(runtime.calls) == 1
    assert result.vectors.shape == (3, 256)
    assert result.hits == 0  # "three" is known now: whether it was then, nobody can say
    assert money.paid(A) == (ALL + COST["three"], 0)


def test_a_step_that_died_in_the_model_takes_up_its_own_hold(embedding: EmbeddingService, money: Money) -> None:
    earlier = money.meter(A)
    earlier.hold("h", ALL)
    earlier.start("h")
    embedding.embed_batch(A, money.meter(A), TEXTS, hold_id="h")
    assert money.paid(A) == (ALL, 0)


@pytest.mark.parametrize("limit", [0, COST["three"] - 1])
def test_without_budget_the_model_is_not_called(
    embedding: EmbeddingService, runtime: WatchedRuntime, money: Money, limit: int
) -> None:
    TenantRegistry(money.database, money.clock).update("a", {"monthly_tokens": limit})
    with pytest.raises(BudgetExhausted):
        embedding.embed_query(A, money.meter(A), "three", charge_id="q")
    with pytest.raises(BudgetExhausted):
        embedding.embed_batch(A, money.meter(A), ["three"], hold_id="h")
    assert runtime.calls == []
    assert money.paid(A) == (0, 0)
    with money.database.system_read() as session:
        assert session.scalars(select(LedgerEntry)).all() == []
    assert embedding.embed_query(B, money.meter(B), "three", charge_id="q").charged == COST["three"]
