"""The file of the embedding cache: opened so that nothing planted in it is run, and thrown away if it is not ours.

What it holds can be computed again, so doubt is settled by deleting it. The only file that imports diskcache, whose own Disk
classes unpickle what they find (CVE-2025-69872, no fixed release) and whose Settings rows become attributes and pragmas.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import sqlite3
import stat
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import diskcache

from rag.embedding.cache_shares import ACCOUNTS, INDEX_BYTES

log = logging.getLogger(__name__)

NAME = "cache.db"
MODE_RAW = 1  # diskcache's mark of a value stored as bytes in its row
PATIENCE_S = 5.0  # how long a writer waits for the one before it
MAX_ROW_BYTES = 1 << 20  # a vector of 100,000 numbers takes a fifth; a planted length reserves no memory

SETTINGS: dict[str, Any] = {
    "eviction_policy": "none",  # tenants have shares, which diskcache's own policies ignore
    "cull_limit": 0,
    "tag_index": 1,  # the tag is the tenant's account, and (tag, rowid) the order in which its rows were stored
    "sqlite_mmap_size": 0,  # a mapped file that somebody cuts short kills the process; reading costs the same without
    "sqlite_cache_size": -2000,  # KiB for each thread; diskcache's 32 MiB is no faster
}
#: The rows of the Settings table beside diskcache's counters.
_WRITTEN = diskcache.DEFAULT_SETTINGS | SETTINGS
_COUNTERS = {"count", "size", "hits", "misses"}
#: Digest of every table, index and trigger that diskcache 5.6.3 and ACCOUNTS make, as SQLite lists them.
SCHEMA = "510ac74d99d3524272cfce2b3518368e"
#: As SQLite advises for files that others may have written (sqlite.org/security.html); erased rows are overwritten.
_PRAGMAS = ("trusted_schema=OFF", "cell_size_check=ON", "synchronous=NORMAL", "secure_delete=ON")
_BOOKS = (
    "SELECT COALESCE(SUM(typeof(vectors) != 'integer' OR typeof(bytes) != 'integer' OR vectors < 0 OR bytes < vectors * ?), 0),"
    " COALESCE(SUM(vectors), 0), COALESCE(SUM(bytes), 0) FROM Account"
)
#: Errors that say nothing against the file. After any other it is replaced.
_BLAMELESS = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_INTERRUPT,
}

#: What using the file may raise: a damaged one also messages that are no UTF-8.
FAILURES = (sqlite3.Error, OSError, UnicodeDecodeError)

Identity = tuple[int, int]


class BytesOnlyDisk(diskcache.Disk):  # type: ignore[misc]
    """Reads and writes bytes in the row itself: no pickle, no file beside the database, whatever the row says."""

    def put(self, key: Any) -> tuple[sqlite3.Binary, bool]:
        if not isinstance(key, bytes):
            raise TypeError("keys of the embedding cache are bytes")
        return sqlite3.Binary(key), True

    def get(self, key: Any, raw: Any) -> bytes:
        return key if isinstance(key, bytes) else b""

    def store(self, value: Any, read: Any, key: Any = diskcache.UNKNOWN) -> tuple[int, int, None, sqlite3.Binary]:
        raise TypeError("the embedding cache writes its rows itself")

    def fetch(self, mode: Any, filename: Any, value: Any, read: Any) -> bytes:
        if mode != MODE_RAW or filename is not None or read or not isinstance(value, bytes):
            return b""
        return value

    def remove(self, file_path: Any) -> None:
        """Never deletes files: a planted row could name any."""


class CacheFile(diskcache.Cache):  # type: ignore[misc]
    """diskcache's file, transactions and connection a thread, without its reading of settings from the file."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / NAME
        super().__init__(str(folder), timeout=PATIENCE_S, disk=BytesOnlyDisk, **SETTINGS)
        for statement in ACCOUNTS:
            self._sql(statement)
        self.identity = _identity(self._path)

    @property
    def _con(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._local, "con", None)
        if connection is None:
            # diskcache opens its first connection without patience, and what others write would fail the start.
            connection = self._local.con = _connect(self._path)
        return connection

    @property
    def sql(self) -> Callable[..., sqlite3.Cursor]:
        return self._con.execute

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction. Raises sqlite3.OperationalError if others write for longer than PATIENCE_S."""
        if _identity(self._path) != self.identity:
            raise sqlite3.DatabaseError("another process has replaced the file")
        connection = self._con
        connection.execute("BEGIN IMMEDIATE")
        with connection:  # commits, or rolls back
            yield connection


def open_file(folder: Path, *, damaged: Identity | None = None) -> CacheFile:
    """The folder's cache file, a new one if there is none, or if it is not ours, or still the `damaged` one.

    One process at a time: two that start at once must not delete what the other has just made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if damaged is not None and damaged == _identity(folder / NAME):
            _discard(folder, "it is damaged")
        elif not _ours(folder):
            _discard(folder, "it is not as this version writes it")
        return CacheFile(folder)
    except FAILURES as error:
        if not blames_file(error):
            raise
        _discard(folder, repr(error))
        return CacheFile(folder)
    finally:
        os.close(lock)


def blames_file(error: Exception) -> bool:
    """Whether the error says that the file is not what it should be."""
    if not isinstance(error, sqlite3.Error):
        return isinstance(error, UnicodeDecodeError)
    code = getattr(error, "sqlite_errorcode", None)  # none, if the module itself could not read what SQLite gave it
    return code is None or code & 0xFF not in _BLAMELESS


def _connect(path: Path) -> sqlite3.Connection:
    # A journal that lies here was planted, as ours is a WAL: rolling it back may delete a file that it names.
    path.with_name(f"{NAME}-journal").unlink(missing_ok=True)
    connection = sqlite3.connect(path, timeout=PATIENCE_S, isolation_level=None)
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_ROW_BYTES)
    for pragma in _PRAGMAS:
        connection.execute(f"PRAGMA {pragma}")
    return connection


def _ours(folder: Path) -> bool:
    files = [path.lstat() for path in folder.glob(f"{NAME}*")]
    if not all(stat.S_ISREG(file.st_mode) and file.st_nlink == 1 for file in files):
        return False  # a link would have SQLite read and write elsewhere
    if not (folder / NAME).exists():
        return not files
    with closing(_connect(folder / NAME)) as connection:
        connection.execute("BEGIN")  # one state of the file, as others may be writing
        return _schema(connection) == SCHEMA and _settings_are_ours(connection) and _books_agree(connection)


def _schema(connection: sqlite3.Connection) -> str:
    listed = connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY type, name LIMIT 100")
    return hashlib.blake2b(repr(listed.fetchall()).encode(), digest_size=16).hexdigest()


def _settings_are_ours(connection: sqlite3.Connection) -> bool:
    found = dict(connection.execute("SELECT key, value FROM Settings LIMIT 100"))
    counters = [found.pop(name, None) for name in _COUNTERS]
    return found == _WRITTEN and all(isinstance(counter, int) for counter in counters)


def _books_agree(connection: sqlite3.Connection) -> bool:
    """The accounts are whole numbers that add up to diskcache's own: what is evicted hangs on them."""
    counters = dict(connection.execute("SELECT key, value FROM Settings WHERE key IN ('count', 'size')"))
    odd, vectors, size = connection.execute(_BOOKS, (INDEX_BYTES,)).fetchone()
    return (odd, vectors, size) == (0, counters["count"], counters["size"])


def _identity(path: Path) -> Identity | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _discard(folder: Path, reason: str) -> None:
    log.warning("the embedding cache begins anew", extra={"reason": reason})
    for path in folder.glob(f"{NAME}*"):
        path.unlink(missing_ok=True)
