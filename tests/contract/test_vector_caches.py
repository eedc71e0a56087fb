"""What every vector cache promises, whether it remembers or not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from rag.embedding.cache import CacheStats, DiskVectorCache, NullVectorCache, VectorCache, as_stored
from rag.store.base import Space
from tests.support import FakeScope

SPACE = Space("sp_one", 4)
A, B = FakeScope("a", b"salt of a"), FakeScope("b", b"salt of b")
TEXTS = [f"text {i}" for i in range(150)]
VECTORS = {text: np.full(4, i / 150, np.float32) for i, text in enumerate(TEXTS)}

Build = Callable[[Path], VectorCache]


@pytest.fixture(params=[lambda _folder: NullVectorCache(), lambda folder: DiskVectorCache(folder, max_bytes=1 << 20)])
def cache(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[VectorCache]:
    build: Build = request.param
    cache = build(tmp_path / "cache")
    yield cache
    cache.close()


def test_there_is_an_answer_for_each_text_in_order_and_it_is_exact_or_none(cache: VectorCache) -> None:
    cache.put(A, SPACE, VECTORS)
    asked = [*reversed(TEXTS), "unknown", TEXTS[3], TEXTS[3]]
    found = cache.get(A, SPACE, asked)
    assert len(found) == len(asked)
    for text, vector in zip(asked, found, strict=True):
        assert vector is None or np.array_equal(vector, as_stored(VECTORS[text]))
    assert cache.get(A, SPACE, []) == []


def test_nothing_of_one_tenant_is_shown_to_counted_for_or_forgotten_with_another(cache: VectorCache) -> None:
    cache.put(A, SPACE, VECTORS)
    kept = cache.stats(A)
    assert cache.get(B, SPACE, TEXTS) == [None] * len(TEXTS)
    assert cache.stats(B) == CacheStats(0, 0)
    assert cache.forget(B) == 0
    assert cache.stats(A) == kept
    assert kept.vectors == sum(vector is not None for vector in cache.get(A, SPACE, TEXTS))


def test_what_is_forgotten_is_gone(cache: VectorCache) -> None:
    cache.put(A, SPACE, VECTORS)
    cache.put(B, SPACE, VECTORS)
    before, others = cache.stats(A), cache.stats(B)
    assert cache.forget(A) == before.vectors
    assert cache.get(A, SPACE, TEXTS) == [None] * len(TEXTS)
    assert (cache.stats(A), cache.stats(B)) == (CacheStats(0, 0), others)
    assert cache.forget(A) == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e6])
def test_no_vector_that_is_not_finite_is_kept(cache: VectorCache, bad: float) -> None:
    cache.put(A, SPACE, {"bad": np.array([0, bad, 0, 0], np.float32), "short": np.ones(3, np.float32)})
    assert cache.get(A, SPACE, ["bad", "short"]) == [None, None]
    assert cache.stats(A) == CacheStats(0, 0)
