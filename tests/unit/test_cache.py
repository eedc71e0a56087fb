"""The vector cache on disk: exact or a miss, and nothing of one tenant can be learned by another."""

from __future__ import annotations

import pickle
import random
import re
import sqlite3
import statistics
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import diskcache
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis.extra import numpy as hnp

from config.errors import Unavailable
from rag.embedding import cache_file
from rag.embedding.cache import CacheStats, DiskVectorCache, account, as_stored, cache_key
from rag.store.base import Space, Vector
from tests.support import FakeScope

SPACE = Space("sp_one", 4)
A, B = FakeScope("a", b"salt of a"), FakeScope("b", b"salt of b")
VECTOR = np.array([0.1, -0.2, 0.3, 1 / 3], np.float32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def cache(folder: Path) -> Iterator[DiskVectorCache]:
    cache = DiskVectorCache(folder, max_bytes=1 << 20)
    yield cache
    cache.close()


def _get(cache: DiskVectorCache, scope: FakeScope = A, space: Space = SPACE, text: str = "text") -> Vector | None:
    return cache.get(scope, space, [text])[0]


def _plant(folder: Path, **columns: Any) -> None:
    """Rewrite columns of every row, as somebody with access to the file could."""
    with closing(sqlite3.connect(folder / "cache.db")) as connection, connection:
        assignments = ", ".join(f"{name} = ?" for name in columns)
        assert connection.execute(f"UPDATE Cache SET {assignments}", tuple(columns.values())).rowcount > 0


@given(hnp.arrays(np.float32, 4, elements={"min_value": -1, "max_value": 1}))
@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_cached_vector_is_the_same_as_a_fresh_one(cache: DiskVectorCache, vector: Vector) -> None:
    cache.put(A, SPACE, {"text": vector})
    found = _get(cache)
    assert found is not None
    assert found.dtype == np.float32
    assert np.array_equal(found, as_stored(vector))
    assert np.array_equal(as_stored(found), found)


def test_vectors_survive_a_restart(folder: Path, cache: DiskVectorCache) -> None:
    cache.put(A, SPACE, {"text": VECTOR})
    cache.close()
    with closing(DiskVectorCache(folder, max_bytes=1 << 20)) as again:
        assert _get(again) is not None


def test_another_tenant_or_space_or_text_misses(cache: DiskVectorCache) -> None:
    cache.put(A, SPACE, {"text": VECTOR})
    assert _get(cache, B) is None
    assert _get(cache, A, Space("sp_two", 4)) is None
    assert _get(cache, A, Space("sp_one", 3)) is None
    assert _get(cache, text="text ") is None
    assert _get(cache, A) is not None


def test_keys_depend_on_the_salt_and_not_on_the_tenants_name() -> None:
    assert cache_key(A, SPACE, "x") != cache_key(B, SPACE, "x")
    assert cache_key(A, SPACE, "x") == cache_key(FakeScope("renamed", A.cache_salt), SPACE, "x")


@pytest.mark.parametrize("position", [0, 7, 8, -1])
def test_a_flipped_byte_is_a_miss_and_is_healed(folder: Path, cache: DiskVectorCache, position: int) -> None:
    cache.put(A, SPACE, {"text": VECTOR})
    with closing(sqlite3.connect(folder / "cache.db")) as connection:
        value = bytearray(connection.execute("SELECT value FROM Cache").fetchone()[0])
    value[position] ^= 1
    _plant(folder, value=bytes(value))
    assert _get(cache) is None
    cache.put(A, SPACE, {"text": VECTOR})
    assert _get(cache) is not None


class _Bomb:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self.path), "w"))


def _modes() -> list[int]:
    return [value for name, value in vars(diskcache.core).items() if name.startswith("MODE_")]


@pytest.mark.parametrize("mode", [*_modes(), 99, None, "1"])
def test_a_planted_pickle_is_a_miss_and_never_run(tmp_path: Path, folder: Path, cache: DiskVectorCache, mode: Any) -> None:
    cache.put(A, SPACE, {"text": VECTOR})
    _plant(folder, mode=mode, value=pickle.dumps(_Bomb(tmp_path / "ran")), tag=pickle.dumps(_Bomb(tmp_path / "ran")))
    assert _get(cache) is None
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("columns", [{"mode": 2}, {"mode": 4}, {"mode": None}, {"filename": "../outside"}, {"filename": ""}])
def test_a_row_that_this_cache_did_not_write_is_a_miss_even_with_genuine_bytes(
    folder: Path, cache: DiskVectorCache, columns: dict[str, Any]
) -> None:
    cache.put(A, SPACE, {"text": VECTOR})
    _plant(folder, **columns)
    assert _get(cache) is None


@pytest.mark.parametrize("value", [None, 7, 0.5, "text", b""])
def test_a_planted_value_of_another_type_is_a_miss(folder: Path, cache: DiskVectorCache, value: Any) -> None:
    cache.put(A, SPACE, {"text": VECTOR})
    _plant(folder, value=value)
    assert _get(cache) is None


@pytest.mark.parametrize("mode", _modes())
def test_a_planted_file_is_neither_read_nor_deleted(tmp_path: Path, folder: Path, cache: DiskVectorCache, mode: int) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(pickle.dumps(_Bomb(tmp_path / "ran")))
    for name in ("../outside", str(outside)):
        cache.put(A, SPACE, {"text": VECTOR})
        _plant(folder, mode=mode, filename=name, value=None, size=outside.stat().st_size)
        assert _get(cache) is None
        cache.put(A, SPACE, {"text": VECTOR})  # overwrites the row
        assert _get(cache) is not None
    assert outside.exists()
    assert not (tmp_path / "ran").exists()


def test_eviction_deletes_rows_and_never_a_planted_file(tmp_path: Path, folder: Path, cache: DiskVectorCache) -> None:
    outside = tmp_path / "outside"
    outside.write_text("kept")
    cache.put(A, SPACE, {f"old {i}": VECTOR for i in range(20)})
    _plant(folder, filename="../outside", size=1 << 20, expire_time=1.0)
    cache.put(A, SPACE, {f"new {i}": VECTOR for i in range(20)})
    assert outside.read_text() == "kept"
    assert cache.get(A, SPACE, ["old 0"]) == [None]
    assert all(vector is not None for vector in cache.get(A, SPACE, [f"new {i}" for i in range(20)]))


def test_the_cache_keeps_to_its_size(folder: Path) -> None:
    space = Space("sp_wide", 512)
    with closing(DiskVectorCache(folder, max_bytes=1 << 20)) as cache:
        for batch in range(40):
            cache.put(A, space, {f"{batch} {i}": np.ones(512, np.float32) for i in range(64)})
        assert _get(cache, A, space, "39 63") is not None
        assert _get(cache, A, space, "0 0") is None
    assert sum(path.stat().st_size for path in folder.iterdir()) < 3 << 20


def test_a_file_that_is_no_database_costs_the_vectors_and_nothing_else(folder: Path) -> None:
    folder.mkdir()
    (folder / "cache.db").write_bytes(b"not a database" * 1000)
    with closing(DiskVectorCache(folder, max_bytes=1 << 20)) as cache:
        assert _get(cache) is None
        cache.put(A, SPACE, {"text": VECTOR})
        assert _get(cache) is not None


def test_a_table_that_vanished_is_a_miss(folder: Path, cache: DiskVectorCache) -> None:
    cache.put(A, SPACE, {"text": VECTOR})
    with closing(sqlite3.connect(folder / "cache.db")) as connection, connection:
        connection.execute("DROP TABLE Cache")
    assert _get(cache) is None
    cache.put(A, SPACE, {"text": VECTOR})


def test_a_value_is_bound_to_its_text_and_tenant(folder: Path, cache: DiskVectorCache) -> None:
    for scope in (A, B):
        cache.put(scope, SPACE, {"text": VECTOR, "other": -VECTOR})
    with closing(sqlite3.connect(folder / "cache.db")) as connection, connection:
        values = dict(connection.execute("SELECT key, value FROM Cache"))
        moved = values[cache_key(A, SPACE, "other")]
        for key in (cache_key(A, SPACE, "text"), cache_key(B, SPACE, "other")):
            connection.execute("UPDATE Cache SET value = ? WHERE key = ?", (moved, key))
    assert _get(cache) is None
    assert _get(cache, B, text="other") is None
    assert _get(cache, text="other") is not None
    assert _get(cache, B) is not None


def test_the_file_does_not_say_whose_rows_it_holds(folder: Path) -> None:
    scopes = [FakeScope("ten_alpha", b"secret of alpha".ljust(32)), FakeScope("ten_beta", b"secret of beta".ljust(32))]
    with closing(DiskVectorCache(folder, max_bytes=1 << 20)) as cache:
        for scope in scopes:
            cache.put(scope, SPACE, {"a text in clear": VECTOR})
    content = b"".join(path.read_bytes() for path in folder.iterdir())
    for scope in scopes:
        assert account(scope) in content
        assert scope.tenant_id.encode() not in content
        assert scope.cache_salt not in content
        assert account(scope) == account(FakeScope("renamed", scope.cache_salt))
    assert b"in clear" not in content
    assert account(scopes[0]) != account(scopes[1])


def test_what_is_forgotten_is_overwritten(folder: Path, cache: DiskVectorCache) -> None:
    space = Space("sp_wide", 300)
    theirs = {scope: np.random.default_rng(i).random(300, np.float32) for i, scope in enumerate((A, B))}
    for scope, vector in theirs.items():
        cache.put(scope, space, {str(i): vector for i in range(500)})
    assert cache.forget(A) == 500

    def lies_on_disk(scope: FakeScope) -> bool:
        raw = np.asarray(theirs[scope], "<f2").tobytes()
        return any(raw in path.read_bytes() for path in folder.iterdir())

    assert lies_on_disk(B)
    assert not lies_on_disk(A)
    assert account(A) not in (folder / "cache.db").read_bytes()
    assert cache.stats(B).vectors == 500


def test_a_cache_that_others_write_to_says_what_it_cannot_do(
    cache: DiskVectorCache, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.put(A, SPACE, {"text": VECTOR})
    monkeypatch.setattr(cache_file, "PATIENCE_S", 0.05)
    cache._file.close()
    with closing(sqlite3.connect(folder / "cache.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert _get(cache) is not None
        cache.put(B, SPACE, {"text": VECTOR})
        with pytest.raises(Unavailable):
            cache.forget(A)
        other.execute("ROLLBACK")
    assert cache.stats(B) == CacheStats(0, 0)
    assert cache.forget(A) == 1


def test_another_tenants_text_takes_the_same_path_as_a_fresh_one(cache: DiskVectorCache) -> None:
    cache.put(A, SPACE, {"known to a": VECTOR})
    paths: list[list[str]] = []
    for text in ("known to a", "known to nobody"):
        statements: list[str] = []
        cache._file._con.set_trace_callback(statements.append)
        assert cache.get(B, SPACE, [text]) == [None]
        cache.put(B, SPACE, {text: VECTOR})
        paths.append([re.sub(r"x'[0-9a-fA-F]+'", "?", statement) for statement in statements])
    assert paths[0] == paths[1]
    assert len(paths[0]) > 3


@pytest.mark.full
def test_another_tenants_text_takes_as_long_as_a_fresh_one(cache: DiskVectorCache) -> None:
    """Medians within 5 %, over 4,000 questions of each kind in turn."""
    known = [f"known to a {i}" for i in range(4000)]
    fresh = [f"known to no {i}" for i in range(4000)]
    for start in range(0, 4000, 200):
        cache.put(A, SPACE, dict.fromkeys(known[start : start + 200], VECTOR))
    taken: dict[bool, list[int]] = {True: [], False: []}
    for pair in zip(known, fresh, strict=True):
        for text in random.sample(pair, 2):
            began = time.perf_counter_ns()
            assert cache.get(B, SPACE, [text]) == [None]
            taken[text == pair[0]].append(time.perf_counter_ns() - began)
    medians = [statistics.median(times) for times in taken.values()]
    assert max(medians) <= 1.05 * min(medians)
