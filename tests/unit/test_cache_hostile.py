"""Files that somebody else has written: nothing in them is run, nothing outside is touched, and every vector is a fresh one."""

from __future__ import annotations

import os
import pickle
import random
import shutil
import sqlite3
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any

import diskcache
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from rag.embedding import cache_file
from rag.embedding.batcher import Batcher
from rag.embedding.cache import DiskVectorCache, account, as_stored, cache_key
from rag.embedding.cache_file import SCHEMA, open_file
from rag.embedding.hashing import DIMENSIONS, HashRuntime
from rag.embedding.service import EmbeddingService
from rag.store.base import Vector
from tests.support import FakeScope, FreeMeter

A, B = FakeScope("a", b"salt of a"), FakeScope("b", b"salt of b")
TEXTS = [f"a text that is number {i}" for i in range(40)]
RUNTIME = HashRuntime()
SPACE = RUNTIME.fingerprint.space
FRESH: dict[str, Vector] = {text: as_stored(vector) for text, vector in zip(TEXTS, RUNTIME.embed(TEXTS), strict=True)}


class Bomb:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self.path), "w"))


class Traps:
    """What lies outside of the cache's folder, and must be as it was."""

    def __init__(self, root: Path) -> None:
        self.root, self.folder = root, root / "cache"
        self.ran = root / "ran"
        self.victim, self.bomb = root / "victim", root / "bomb"
        self.victim.write_bytes(b"not yours " * 100)
        self.bomb.write_bytes(pickle.dumps(Bomb(self.ran)))
        (root / "elsewhere").mkdir()
        with closing(sqlite3.connect(root / "elsewhere" / "cache.db")) as database, database:
            database.execute("CREATE TABLE Cache (key, value)")
        self.before = self._outside()

    def _outside(self) -> dict[str, bytes]:
        files = (path for path in self.root.rglob("*") if path.is_file() and self.folder not in path.parents)
        return {path.relative_to(self.root).as_posix(): path.read_bytes() for path in files}

    def sql(self, *statements: str, **values: Any) -> None:
        """As anybody with the file could: with a connection of one's own."""
        with closing(sqlite3.connect(self.folder / "cache.db")) as database, database:
            for statement in statements:
                database.execute(statement, values if ":" in statement else {})

    def check(self) -> None:
        assert self._outside() == self.before
        assert not self.ran.exists()


@pytest.fixture
def traps(tmp_path: Path) -> Iterator[Traps]:
    traps = Traps(tmp_path)
    with closing(_opened(traps)) as cache:
        cache.put(A, SPACE, FRESH)
        cache.put(B, SPACE, FRESH)
    yield traps
    traps.check()


def _opened(traps: Traps) -> DiskVectorCache:
    return DiskVectorCache(traps.folder, max_bytes=1 << 20)


def held(cache: DiskVectorCache, scope: FakeScope) -> int:
    """How many of the tenant's texts are found. What is found is exact."""
    found = cache.get(scope, SPACE, TEXTS)
    assert all(vector is None or np.array_equal(vector, FRESH[text]) for text, vector in zip(TEXTS, found, strict=True))
    return sum(vector is not None for vector in found)


def embedded_again(folder: Path) -> int:
    """Use the cache as the product does; how many of A's texts the model had to read. Their vectors are the fresh ones."""
    meter = FreeMeter()
    service = EmbeddingService(Batcher(RUNTIME, batch_tokens=2048), DiskVectorCache(folder, max_bytes=1 << 20))
    with closing(service):
        first = service.embed_batch(A, meter, TEXTS, hold_id="first")
        again = service.embed_batch(A, meter, TEXTS, hold_id="again")
    for result in (first, again):
        assert all(np.array_equal(vector, FRESH[text]) for vector, text in zip(result.vectors, TEXTS, strict=True))
    assert again.charged == 0, "what was recomputed is kept"
    return len(TEXTS) - round(first.cached / sum(RUNTIME.count_tokens(TEXTS)) * len(TEXTS))


def test_the_schema_is_as_pinned(traps: Traps) -> None:
    """If this fails after an update of diskcache: read what it changed, then pin the new digest."""
    with closing(sqlite3.connect(traps.folder / "cache.db")) as database:
        listed = database.execute("SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY type, name").fetchall()
    assert len(listed) == 15
    assert embedded_again(traps.folder) == 0, f"{SCHEMA} is not what was made"


ROWS: dict[str, tuple[str, int]] = {
    "a pickle as value": ("UPDATE Cache SET mode = 4, value = :pickle", 40),
    "a pickle as genuine bytes": ("UPDATE Cache SET value = :pickle", 40),
    "a pickle as tag": ("UPDATE Cache SET tag = :pickle", 0),
    "a pickled key": ("UPDATE Cache SET key = :pickle || rowid, raw = 0", 40),
    "a genuine key said to be pickled": ("UPDATE Cache SET raw = 0", 40),
    "a pickle in a file": ("UPDATE Cache SET mode = 4, filename = '../bomb', value = NULL", 40),
    "a pickle in a file, absolute": ("UPDATE Cache SET mode = 4, filename = :bomb, value = NULL", 40),
    "a file of bytes": ("UPDATE Cache SET mode = 2, filename = '../victim', value = NULL, size = 1000", 40),
    "a file of bytes, absolute": ("UPDATE Cache SET mode = 2, filename = :victim, value = NULL, size = 1000", 40),
    "a file of text": ("UPDATE Cache SET mode = 3, filename = '../victim', value = NULL, size = 1000", 40),
    "a file beside genuine bytes": ("UPDATE Cache SET filename = :victim", 40),
    "an expired file": ("UPDATE Cache SET filename = '../victim', expire_time = 1.0", 40),
    "no value": ("UPDATE Cache SET value = NULL", 40),
    "a number": ("UPDATE Cache SET value = 7", 40),
    "text of the right length": ("UPDATE Cache SET value = CAST(substr(hex(value), 1, 520) AS TEXT)", 40),
    "text that is no UTF-8": ("UPDATE Cache SET value = CAST(value AS TEXT)", 40),
    "a giant value": ("UPDATE Cache SET value = zeroblob(3000000) WHERE rowid % 20 = 1", 2),
    "a short value": ("UPDATE Cache SET value = substr(value, 2)", 40),
    "zeros": ("UPDATE Cache SET value = zeroblob(length(value))", 40),
    "another row's value": ("UPDATE Cache SET value = (SELECT value FROM Cache AS other WHERE other.rowid = 41)", 40),
    "another tenant's account": ("UPDATE Cache SET tag = (SELECT tag FROM Cache WHERE rowid = 80)", 0),
    "an account that is text": ("UPDATE Cache SET tag = 'text ' || rowid", 0),
    "no mode": ("UPDATE Cache SET mode = NULL", 40),
    "a huge size": ("UPDATE Cache SET size = 1 << 40 WHERE rowid = 3", 0),
    "a negative size": ("UPDATE Cache SET size = -size - 500", 40),
    "a size in words": ("UPDATE Cache SET size = 'large'", 40),
    "the largest row id": ("UPDATE Cache SET rowid = 9223372036854775807 WHERE rowid = 1", 0),
    "an account of words": ("UPDATE Account SET bytes = 'many', vectors = 'few'", 40),
    "accounts of others": ("INSERT INTO Account VALUES (:pickle, 1, 1 << 50)", 40),
    "no rows behind the accounts": ("UPDATE Account SET bytes = 1 << 40", 40),
}


@pytest.mark.parametrize("plant", ROWS)
@pytest.mark.parametrize("opened", [False, True])
def test_a_planted_row_is_computed_again(traps: Traps, plant: str, opened: bool) -> None:
    statement, expected = ROWS[plant]
    values = {"pickle": pickle.dumps(Bomb(traps.ran)), "bomb": str(traps.bomb), "victim": str(traps.victim)}
    if opened:  # planted under the feet of a running cache
        with closing(DiskVectorCache(traps.folder, max_bytes=50_000)) as cache:
            traps.sql(statement, **values)
            held(cache, A), held(cache, B)
            cache.put(A, SPACE, FRESH)
            cache.put(B, SPACE, {TEXTS[0]: FRESH[TEXTS[0]]})
            cache.stats(A), cache.stats(B)
            cache.forget(A)
            assert held(cache, A) == 0
    else:
        traps.sql(statement, **values)
        assert embedded_again(traps.folder) == expected


@pytest.mark.filterwarnings("ignore::UserWarning")  # what check() finds wrong
@pytest.mark.parametrize("plant", ROWS)
def test_diskcaches_own_housekeeping_runs_and_removes_nothing_planted(traps: Traps, plant: str) -> None:
    """Nothing in the product calls these; some fail on what they find, and that is all they do."""
    values = {"pickle": pickle.dumps(Bomb(traps.ran)), "bomb": str(traps.bomb), "victim": str(traps.victim)}
    keys = [cache_key(scope, SPACE, text) for scope in (A, B) for text in TEXTS[:3]]
    with closing(open_file(traps.folder)) as file:
        traps.sql(ROWS[plant][0], **values)
        reads = [partial(file.get, key, read=read) for key in keys for read in (False, True)]
        changes = [partial(change, key) for key in keys for change in (file.pop, file.delete)]
        walks = [lambda: list(file), lambda: list(file.iterkeys()), lambda: list(file.iterkeys(reverse=True)), file.peekitem]
        removals = [file.expire, file.cull, partial(file.evict, account(A)), partial(file.evict, "text 3")]
        for call in (*reads, *walks, partial(file.check, fix=True), *changes, *removals):
            with suppress(sqlite3.Error, OverflowError, KeyError):
                call()
        file.clear()
        assert len(file) == 0


def test_what_the_planted_rows_would_do_to_diskcache_alone(tmp_path: Path) -> None:
    """The traps close: diskcache's own Disk runs the pickle and removes the file."""
    folder, victim, ran = tmp_path / "plain", tmp_path / "victim", tmp_path / "ran"
    victim.write_text("lost")
    with diskcache.Cache(str(folder)) as cache:
        cache.set(b"key", b"value")
        with closing(sqlite3.connect(folder / "cache.db")) as database, database:
            database.execute("UPDATE Cache SET mode = 4, value = ?", (pickle.dumps(Bomb(ran)),))
        cache.get(b"key").close()
        with closing(sqlite3.connect(folder / "cache.db")) as database, database:
            database.execute("UPDATE Cache SET mode = 2, filename = '../victim'")
        cache.delete(b"key")
    assert ran.exists()
    assert not victim.exists()


SCHEMAS = {
    "a trigger that deletes": "CREATE TRIGGER t AFTER INSERT ON Cache BEGIN DELETE FROM Cache; END",
    "a trigger that refuses": "CREATE TRIGGER t BEFORE INSERT ON Cache BEGIN SELECT RAISE(ABORT, 'no'); END",
    "a trigger that never ends": (
        "CREATE TRIGGER t AFTER INSERT ON Cache BEGIN INSERT INTO Account"
        " WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i, 1, 1 FROM n; END"
    ),
    "a view": "CREATE VIEW v AS SELECT load_extension('../victim') FROM Cache",
    "a virtual table": "CREATE VIRTUAL TABLE f USING fts4(x)",
    "a table": "CREATE TABLE stranger (x)",
    "an index that runs a function": "CREATE INDEX i ON Cache (hex(value))",
    "one trigger less": "DROP TRIGGER Account_delete",
    "one index less": "DROP INDEX Cache_tag_rowid",
    "another column": "ALTER TABLE Cache ADD COLUMN x GENERATED ALWAYS AS (hex(value)) VIRTUAL",
    "no table": "DROP TABLE Cache",
    "no settings": "DROP TABLE Settings",
}


@pytest.mark.parametrize("statement", SCHEMAS.values(), ids=SCHEMAS)
def test_a_file_with_another_schema_is_thrown_away(traps: Traps, statement: str) -> None:
    traps.sql(statement)
    assert embedded_again(traps.folder) == len(TEXTS)
    assert embedded_again(traps.folder) == 0


PLANTED_SETTINGS: list[tuple[Any, Any]] = [
    ("_directory", "elsewhere"),
    ("_local", "x"),
    ("_path", "x"),
    ("_timeout", "x"),
    ("get", 1),
    ("disk_fetch", 1),
    ("disk_unknown", 1),
    ("disk_pickle_protocol", 0),
    ("disk_min_file_size", 0),
    ("eviction_policy", "least-recently-stored"),
    ("eviction_policy", "unknown"),
    ("cull_limit", 10),
    ("statistics", 1),
    ("size_limit", -1),
    ("size_limit", "x"),
    ("count", "x"),
    ("size", None),
    ("sqlite_hard_heap_limit", 1),
    ("sqlite_temp_store_directory", "'..'"),
    ("sqlite_journal_mode", "delete"),
    ("sqlite_locking_mode", "exclusive"),
    ("sqlite_query_only", 1),
    ("sqlite_mmap_size", 1 << 40),
    ("sqlite_writable_schema", 1),
    ("sqlite_user_version; DROP TABLE Cache", 1),
    (b"\xff", 1),
    (7, 7),
]


@pytest.mark.parametrize(("key", "value"), PLANTED_SETTINGS)
def test_a_planted_setting_is_never_obeyed(traps: Traps, key: Any, value: Any) -> None:
    value = str(traps.root / value) if value == "elsewhere" else value
    traps.sql("INSERT OR REPLACE INTO Settings VALUES (:key, :value)", key=key, value=value)
    assert embedded_again(traps.folder) == len(TEXTS)
    assert embedded_again(traps.folder) == 0
    with closing(sqlite3.connect(":memory:")) as database:  # limits of the whole process
        assert database.execute("PRAGMA hard_heap_limit").fetchall() == [(0,)]


@pytest.mark.parametrize("link", [Path.symlink_to, Path.hardlink_to], ids=["symbolic", "hard"])
@pytest.mark.parametrize("name", ["cache.db", "cache.db-wal", "cache.db-shm", "cache.db-journal"])
def test_a_link_to_a_file_outside_is_not_followed(traps: Traps, name: str, link: Callable[[Path, Path], None]) -> None:
    (traps.folder / name).unlink(missing_ok=True)
    link(traps.folder / name, traps.victim)
    embedded_again(traps.folder)
    assert (traps.folder / "cache.db").stat().st_size > 1000


def hot_journal(database: Path, names: Path) -> None:
    """What SQLite finds after a crash in a transaction over several files: once rolled back, it removes the file named."""
    name = str(names).encode()
    header = bytes.fromhex("d9d505f920a163d7") + struct.pack(">IIIII", 0, 1, database.stat().st_size // 4096, 512, 4096)
    page = struct.pack(">I", (0x40000000 // 4096) + 1)
    trailer = page + name + struct.pack(">II", len(name), sum(name)) + bytes.fromhex("d9d505f920a163d7")
    database.with_name(database.name + "-journal").write_bytes(header.ljust(512, b"\0") + trailer)


def test_a_planted_journal_removes_nothing(traps: Traps, tmp_path: Path) -> None:
    copy, prey = tmp_path / "cache" / "copy.db", tmp_path / "cache" / "prey"
    shutil.copy(traps.folder / "cache.db", copy)
    prey.write_bytes(traps.victim.read_bytes())
    hot_journal(copy, prey)
    with closing(sqlite3.connect(copy)) as database:
        database.execute("SELECT COUNT(*) FROM Cache").fetchall()
    assert not prey.exists(), "the trap closes on SQLite alone"

    hot_journal(traps.folder / "cache.db", traps.victim)
    assert embedded_again(traps.folder) == 0
    with closing(_opened(traps)) as cache:
        cache.close()
        hot_journal(traps.folder / "cache.db", traps.victim)  # before a thread's first connection
        assert held(cache, A) == len(TEXTS)


@given(byte=st.integers(0, 8 + 2 * DIMENSIONS - 1), bit=st.integers(0, 7))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_flipped_bit_is_a_miss_and_written_again(traps: Traps, byte: int, bit: int) -> None:
    key = cache_key(A, SPACE, TEXTS[5])
    with closing(sqlite3.connect(traps.folder / "cache.db")) as database, database:
        value = bytearray(database.execute("SELECT value FROM Cache WHERE key = ?", (key,)).fetchone()[0])
        value[byte] ^= 1 << bit
        database.execute("UPDATE Cache SET value = ? WHERE key = ?", (bytes(value), key))
    assert embedded_again(traps.folder) == 1


@given(seed=st.integers(0, 1 << 32), spots=st.integers(1, 40), length=st.sampled_from([1, 8, 300, 5000]), opened=st.booleans())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_damaged_file_never_raises_and_never_lies(traps: Traps, seed: int, spots: int, length: int, opened: bool) -> None:
    embedded_again(traps.folder)
    chance, path = random.Random(seed), traps.folder / "cache.db"

    def damage() -> None:
        with path.open("r+b") as file:
            for _ in range(spots):
                file.seek(chance.randrange(path.stat().st_size))
                file.write(chance.randbytes(length))

    if not opened:
        damage()
    with closing(DiskVectorCache(traps.folder, max_bytes=60_000)) as cache:
        if opened:
            damage()
        for _ in range(3):
            for scope in (A, B):
                held(cache, scope)
                cache.put(scope, SPACE, FRESH)
                cache.stats(scope)
        cache.forget(A)
        assert held(cache, A) == 0


@pytest.mark.parametrize("keep", [0, 50, 4096, 30_000])
@pytest.mark.parametrize("noise", [False, True])
def test_a_file_that_is_cut_short_or_overwritten_while_open_is_replaced(traps: Traps, keep: int, noise: bool) -> None:
    with closing(_opened(traps)) as cache:
        path = traps.folder / "cache.db"
        size = path.stat().st_size
        os.truncate(path, keep)
        if noise:
            with path.open("ab") as file:
                file.write(random.Random(keep).randbytes(size - keep))
        for _ in range(2):
            cache.get(A, SPACE, TEXTS)
            cache.put(A, SPACE, FRESH)
        assert held(cache, A) == len(TEXTS)
    assert embedded_again(traps.folder) == 0


def test_a_folder_that_vanishes_costs_the_vectors_and_nothing_else(traps: Traps) -> None:
    with closing(_opened(traps)) as cache:
        cache.close()
        shutil.rmtree(traps.folder)
        for _ in range(2):
            assert cache.get(A, SPACE, TEXTS[:1]) == [None]
            cache.put(A, SPACE, FRESH)


def test_a_file_that_another_process_replaced_is_left_for_the_new_one(traps: Traps) -> None:
    with closing(_opened(traps)) as one, closing(_opened(traps)) as other:
        assert held(one, A) == held(other, A) == len(TEXTS)
        with (traps.folder / "cache.db").open("r+b") as file:
            file.write(bytes(200))
        one.close()
        one.get(A, SPACE, TEXTS)  # finds the damage
        for scope in (A, B):
            one.put(scope, SPACE, FRESH)
        assert other.forget(B) == len(TEXTS)
        assert (held(one, B), held(one, A)) == (0, len(TEXTS))
        other.put(B, SPACE, FRESH)
        assert held(one, B) == held(other, B) == len(TEXTS)


def test_a_file_that_is_written_to_while_it_is_looked_at_is_still_ours(traps: Traps, monkeypatch: pytest.MonkeyPatch) -> None:
    connect, seen = cache_file._connect, []

    def busy(path: Path) -> sqlite3.Connection:
        connection = connect(path)

        def write(statement: str) -> None:
            if "FROM Account" in statement:
                seen.append(statement)
                other.put(A, SPACE, {"one more": FRESH[TEXTS[0]]})

        connection.set_trace_callback(write)
        return connection

    with closing(_opened(traps)) as other:
        assert held(other, A) == len(TEXTS)
        monkeypatch.setattr(cache_file, "_connect", busy)
        with closing(_opened(traps)) as cache:
            assert held(cache, A) == len(TEXTS)
    assert len(seen) == 1


def test_a_file_that_is_locked_while_it_is_opened_is_waited_for(traps: Traps, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(_opened(traps)) as cache:
        assert held(cache, A) == len(TEXTS)
    holder = sqlite3.connect(traps.folder / "cache.db", isolation_level=None, check_same_thread=False)
    connect, freed = cache_file._connect, threading.Timer(0.3, holder.close)

    def meet(path: Path) -> sqlite3.Connection:
        if freed.ident is None:
            holder.execute("PRAGMA locking_mode=EXCLUSIVE")
            holder.execute("BEGIN EXCLUSIVE")
            freed.start()
        return connect(path)

    with monkeypatch.context() as patch:
        patch.setattr(cache_file, "_ours", lambda folder: True)  # it was looked at before the lock was taken
        patch.setattr(cache_file, "_connect", meet)
        with closing(cache_file.open_file(traps.folder)):
            freed.join()
    with closing(_opened(traps)) as cache:
        assert held(cache, A) == len(TEXTS)
