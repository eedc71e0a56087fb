"""Vectors of texts that were embedded before, on disk, for all processes of a machine.

Keys are salted with a secret of the tenant: nobody can learn by timing what another tenant has embedded. A value is float16
behind a checksum under the same secret, over key and value: what was damaged, moved or planted is a miss.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Protocol

import numpy as np

from config.errors import Unavailable
from rag.embedding.cache_file import FAILURES, CacheFile, blames_file, open_file
from rag.embedding.cache_shares import row_bytes, to_evict
from rag.store.base import Space, Vector
from rag.types import Scope

log = logging.getLogger(__name__)

CHECKSUM_BYTES = 8
READ_AT_ONCE = 64  # rows of one SELECT: 1.4 µs a row instead of 5.5
FORGET_AT_ONCE = 512  # rows of one transaction: others' writes wait 10 to 25 ms

#: Only rows as this cache writes them, as bytes inline (mode 1): of any other nothing is even read.
_SELECT = (
    "SELECT key, value FROM Cache WHERE key IN ({}) AND raw = 1"
    " AND mode = 1 AND filename IS NULL AND typeof(value) = 'blob' AND length(value) = ?"
)
_INSERT = "INSERT INTO Cache (key, raw, tag, size, mode, value) VALUES (?, 1, ?, ?, 1, ?)"
_STATS = "SELECT CAST(vectors AS INTEGER), CAST(bytes AS INTEGER) FROM Account WHERE tag = ?"
_FORGET = "DELETE FROM Cache WHERE rowid IN (SELECT rowid FROM Cache WHERE tag = ? ORDER BY rowid LIMIT ?)"


@dataclass(frozen=True, slots=True)
class CacheStats:
    vectors: int
    bytes: int  #: of the file, with a row's share of pages and indexes


class VectorCache(Protocol):
    def get(self, scope: Scope, space: Space, texts: Sequence[str]) -> list[Vector | None]: ...

    def put(self, scope: Scope, space: Space, vectors: Mapping[str, Vector]) -> None:
        """Keep what is finite and of the space's length; a cache that fails costs money, never an answer."""

    def stats(self, scope: Scope) -> CacheStats: ...

    def forget(self, scope: Scope) -> int:
        """Erase a tenant's vectors, and return how many. Raises Unavailable if some may be left."""

    def erase(self, scope: Scope, keys: Sequence[bytes]) -> None:
        """Erase these vectors of a tenant, as `cache_key` names them. Raises as `forget`."""

    def close(self) -> None: ...


class DiskVectorCache:
    """Any thread, and any process of the machine at the same time."""

    def __init__(self, folder: Path, *, max_bytes: int) -> None:
        self._folder, self._max_bytes = folder, max_bytes
        self._file, self._mending = open_file(folder), threading.Lock()

    def get(self, scope: Scope, space: Space, texts: Sequence[str]) -> list[Vector | None]:
        keys = [cache_key(scope, space, text) for text in texts]
        found: dict[bytes, Vector] = {}
        file = self._file
        try:
            for start in range(0, len(keys), READ_AT_ONCE):
                found |= _decode(scope, _read(file, keys[start : start + READ_AT_ONCE], space))
        except FAILURES as error:  # a busy or damaged cache costs time, never an answer
            self._mend(file, error)
        return [found.get(key) for key in keys]

    def put(self, scope: Scope, space: Space, vectors: Mapping[str, Vector]) -> None:
        file, tag = self._file, account(scope)
        rows = [(key, tag, row_bytes(len(value)), value) for key, value in _encode(scope, space, vectors)]
        try:
            with file.writing() as connection:  # one transaction a batch: 20 µs a vector instead of 27
                connection.executemany("DELETE FROM Cache WHERE key = ?", [row[:1] for row in rows])
                connection.executemany(_INSERT, rows)
                evicted = to_evict(connection.execute, self._max_bytes)
                connection.executemany("DELETE FROM Cache WHERE rowid = ?", evicted)
        except FAILURES as error:
            log.warning("vectors were not cached and will be paid for again", extra={"reason": repr(error)})
            self._mend(file, error)

    def stats(self, scope: Scope) -> CacheStats:
        file = self._file
        try:
            row = file.sql(_STATS, (account(scope),)).fetchone()
        except FAILURES as error:
            self._mend(file, error)
            row = None
        return CacheStats(*row) if row else CacheStats(0, 0)

    def forget(self, scope: Scope) -> int:
        def erase(file: CacheFile) -> int:
            forgotten = 0
            while erased := _erase(file, account(scope)):
                forgotten += erased
            return forgotten

        return self._insist(erase)

    def erase(self, scope: Scope, keys: Sequence[bytes]) -> None:
        tag = account(scope)

        def erase(file: CacheFile) -> int:
            with file.writing() as connection:
                connection.executemany("DELETE FROM Cache WHERE key = ? AND raw = 1 AND tag = ?", [(key, tag) for key in keys])
            return len(keys)

        if keys:
            self._insist(erase)

    def _insist(self, erase: Callable[[CacheFile], int]) -> int:
        """Have it done in whatever file there is then, and nothing left of it in the log."""
        while True:
            file = self._file
            try:
                erased = erase(file)
                file.sql("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()  # the log held the rows too
                return erased
            except FAILURES as error:
                self._mend(file, error)
                if self._file is file:
                    raise Unavailable("The embedding cache cannot be written at the moment.") from error

    def close(self) -> None:
        self._file.close()

    def _mend(self, file: CacheFile, error: Exception) -> None:
        """After a failure of `file`: this thread's connection ends, and with it what it held; a damaged file is replaced."""
        file.close()
        with self._mending:
            if self._file is not file or not blames_file(error):
                return
            try:
                self._file = open_file(self._folder, damaged=file.identity)
            except FAILURES as again:
                log.warning("the embedding cache cannot be opened again", extra={"reason": repr(again)})


class NullVectorCache:
    """Remembers nothing."""

    def get(self, scope: Scope, space: Space, texts: Sequence[str]) -> list[Vector | None]:
        return [None] * len(texts)

    def put(self, scope: Scope, space: Space, vectors: Mapping[str, Vector]) -> None:
        pass

    def stats(self, scope: Scope) -> CacheStats:
        return CacheStats(0, 0)

    def forget(self, scope: Scope) -> int:
        return 0

    def erase(self, scope: Scope, keys: Sequence[bytes]) -> None:
        pass

    def close(self) -> None:
        pass


def cache_key(scope: Scope, space: Space, text: str) -> bytes:
    return hashlib.blake2b(f"{space.id}\0{text}".encode(), key=scope.cache_salt, digest_size=32).digest()


def account(scope: Scope) -> bytes:
    """What stands for the tenant in the file: neither its name nor anything that follows from it."""
    return hashlib.blake2b(key=scope.cache_salt, digest_size=16, person=b"carrel account").digest()


def as_stored(vector: Vector) -> Vector:
    """The vector as it comes back from the cache: a text has one vector, whether it was cached or not."""
    return np.asarray(np.asarray(vector, np.float16), np.float32)


def _read(file: CacheFile, keys: Sequence[bytes], space: Space) -> list[tuple[bytes, bytes]]:
    return file.sql(_select(len(keys)), (*keys, CHECKSUM_BYTES + 2 * space.dimensions)).fetchall()


@cache
def _select(count: int) -> str:
    return _SELECT.format(", ".join("?" * count))


def _erase(file: CacheFile, tag: bytes) -> int:
    with file.writing() as connection:
        erased = connection.execute(_FORGET, (tag, FORGET_AT_ONCE)).rowcount
        if not erased:
            connection.execute("DELETE FROM Account WHERE tag = ?", (tag,))
    return erased


def _checksum(scope: Scope, key: bytes, raw: bytes) -> bytes:
    return hashlib.blake2b(key + raw, key=scope.cache_salt, digest_size=CHECKSUM_BYTES, person=b"carrel vector").digest()


def _encode(scope: Scope, space: Space, vectors: Mapping[str, Vector]) -> Iterator[tuple[bytes, bytes]]:
    for text, vector in vectors.items():
        with np.errstate(over="ignore"):  # what float16 cannot hold becomes infinite
            stored = np.asarray(vector, "<f2")
        if stored.shape == (space.dimensions,) and np.isfinite(stored).all():
            key, raw = cache_key(scope, space, text), stored.tobytes()
            yield key, _checksum(scope, key, raw) + raw


def _decode(scope: Scope, rows: Sequence[tuple[bytes, bytes]]) -> dict[bytes, Vector]:
    split = [(key, value[:CHECKSUM_BYTES], value[CHECKSUM_BYTES:]) for key, value in rows]
    return {
        key: np.frombuffer(raw, "<f2").astype(np.float32)
        for key, checksum, raw in split
        if checksum == _checksum(scope, key, raw)
    }
