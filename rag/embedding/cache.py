"""Vectors of texts that were embedded before, on disk, for all processes of a machine. The only file that imports diskcache.

diskcache's own Disk classes unpickle what they find in their file (CVE-2025-69872, no fixed release), so ours keeps bytes
inline and refuses every other row. A value is float16 behind a checksum: a damaged one is a miss. Keys are salted with a
secret of the tenant: nobody can learn by timing what another tenant has embedded.
"""

from __future__ import annotations

import hashlib
import logging
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import diskcache
import numpy as np

from rag.store.base import Space, Vector
from rag.types import Scope

log = logging.getLogger(__name__)

CHECKSUM_BYTES = 8
MODE_RAW = 1  # diskcache's mark of a value stored as bytes in its row


class VectorCache(Protocol):
    def get(self, scope: Scope, space: Space, texts: Sequence[str]) -> list[Vector | None]: ...

    def put(self, scope: Scope, space: Space, vectors: Mapping[str, Vector]) -> None: ...

    def close(self) -> None: ...


class BytesOnlyDisk(diskcache.Disk):  # type: ignore[misc]
    """Reads and writes bytes in the row itself: no pickle, no file beside the database, whatever the row says."""

    def put(self, key: Any) -> tuple[sqlite3.Binary, bool]:
        if not isinstance(key, bytes):
            raise TypeError("keys of the embedding cache are bytes")
        return sqlite3.Binary(key), True

    def get(self, key: Any, raw: Any) -> bytes:
        return bytes(key)

    def store(self, value: Any, read: Any, key: Any = diskcache.UNKNOWN) -> tuple[int, int, None, sqlite3.Binary]:
        if not isinstance(value, bytes) or read:
            raise TypeError("values of the embedding cache are bytes")
        return 0, MODE_RAW, None, sqlite3.Binary(value)

    def fetch(self, mode: Any, filename: Any, value: Any, read: Any) -> bytes:
        if mode != MODE_RAW or filename is not None or read or not isinstance(value, bytes):
            return b""  # fails its checksum: a miss, which is then written again
        return value

    def remove(self, file_path: Any) -> None:
        """Never deletes files: a planted row could name any."""


class DiskVectorCache:
    def __init__(self, folder: Path, *, max_bytes: int) -> None:
        try:
            self._cache = _open(folder, max_bytes)
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode not in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
                raise
            for path in folder.glob("cache.db*"):  # what a damaged file held can be computed again
                path.unlink(missing_ok=True)
            self._cache = _open(folder, max_bytes)

    def get(self, scope: Scope, space: Space, texts: Sequence[str]) -> list[Vector | None]:
        return [_decode(self._read(cache_key(scope, space, text)), space) for text in texts]

    def _read(self, key: bytes) -> bytes:
        try:
            value = self._cache.get(key, default=b"")
        except (diskcache.Timeout, sqlite3.Error):
            return b""  # a busy or damaged cache costs time, never an answer
        return value if isinstance(value, bytes) else b""

    def put(self, scope: Scope, space: Space, vectors: Mapping[str, Vector]) -> None:
        try:
            with self._cache.transact():  # one transaction a batch: 70 µs a value instead of 118
                for text, vector in vectors.items():
                    self._cache.set(cache_key(scope, space, text), _encode(vector))
        except (diskcache.Timeout, sqlite3.Error) as error:
            log.warning("vectors were not cached and will be paid for again", extra={"reason": repr(error)})

    def close(self) -> None:
        self._cache.close()


def _open(folder: Path, max_bytes: int) -> diskcache.Cache:
    # Least-recently-stored eviction: recording every read would cost 72 µs a get instead of 12.
    return diskcache.Cache(
        str(folder), disk=BytesOnlyDisk, size_limit=max_bytes, eviction_policy="least-recently-stored", timeout=5
    )


class NullVectorCache:
    """Remembers nothing."""

    def get(self, scope: Scope, space: Space, texts: Sequence[str]) -> list[Vector | None]:
        return [None] * len(texts)

    def put(self, scope: Scope, space: Space, vectors: Mapping[str, Vector]) -> None:
        pass

    def close(self) -> None:
        pass


def cache_key(scope: Scope, space: Space, text: str) -> bytes:
    return hashlib.blake2b(f"{space.id}\0{text}".encode(), key=scope.cache_salt, digest_size=32).digest()


def as_stored(vector: Vector) -> Vector:
    """The vector as it comes back from the cache: a text has one vector, whether it was cached or not."""
    return np.asarray(np.asarray(vector, np.float16), np.float32)


def _checksum(raw: bytes) -> bytes:
    return hashlib.blake2b(raw, digest_size=CHECKSUM_BYTES).digest()


def _encode(vector: Vector) -> bytes:
    raw = np.asarray(vector, "<f2").tobytes()
    return _checksum(raw) + raw


def _decode(value: bytes, space: Space) -> Vector | None:
    raw = value[CHECKSUM_BYTES:]
    if len(raw) != 2 * space.dimensions or value[:CHECKSUM_BYTES] != _checksum(raw):
        return None
    return np.asarray(np.frombuffer(raw, "<f2"), np.float32)
