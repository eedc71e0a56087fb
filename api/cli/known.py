"""What `carrel ingest` remembers on its own machine: which file, as it was then, became which version of which document.

A hint only: it spares reading files that did not change, and says which documents vanished files had. What the service does
not list any more is brought again.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from api.cli.sources import File

_TABLE = (
    "CREATE TABLE IF NOT EXISTS files (path TEXT PRIMARY KEY, name TEXT, size INTEGER, changed_ns INTEGER,"
    " document_id TEXT, version INTEGER)"
)
_KEEP = "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?)"
Listed = Mapping[str, int]  #: documents that the service has, with their versions


@dataclass(frozen=True, slots=True)
class Gone:
    path: str
    document_id: str


class Known:
    """Used by all threads of one command; two commands at once may forget some of each other's files, and read them again."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection, self._lock = connection, Lock()

    def has(self, file: File, listed: Listed) -> bool:
        """Whether the file is as it was when it was brought, and what it became is there."""
        row = self._one("SELECT name, size, changed_ns, document_id, version FROM files WHERE path = ?", _path(file.path))
        return row is not None and row[:3] == (file.name, file.size, file.changed_ns) and listed.get(str(row[3])) == row[4]

    def is_empty(self) -> bool:
        return self._one("SELECT 1 FROM files LIMIT 1") is None

    def keep(self, file: File, document_id: str, version: int) -> None:
        self._do(_KEEP, _path(file.path), file.name, file.size, file.changed_ns, document_id, version)

    def gone(self, root: Path) -> Iterator[Gone]:
        """Files beneath the folder that are there no more, and whose documents no other file became."""
        with self._lock:
            rows = self._connection.execute("SELECT path, document_id FROM files ORDER BY path").fetchall()
        for path, document_id in rows:
            if Path(path).is_relative_to(_path(root)) and not Path(path).exists():
                if not self._one("SELECT 1 FROM files WHERE document_id = ? AND path != ?", document_id, path):
                    yield Gone(path, document_id)
                else:
                    self.forget(path)

    def forget(self, path: str) -> None:
        self._do("DELETE FROM files WHERE path = ?", path)

    def _one(self, statement: str, *values: object) -> tuple[object, ...] | None:
        with self._lock:
            row: tuple[object, ...] | None = self._connection.execute(statement, values).fetchone()
            return row

    def _do(self, statement: str, *values: object) -> None:
        with self._lock:
            self._connection.execute(statement, values)


@contextmanager
def open_known(folder: Path, *who: str) -> Iterator[Known]:
    """`who`: the service, the tenant or key, and the collection that files are brought to."""
    folder = folder.expanduser() / "ingest"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    name = hashlib.sha256("\0".join(who).encode()).hexdigest()[:32]
    connection = sqlite3.connect(folder / f"{name}.db", isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA synchronous=OFF")  # what a power loss takes is read and sent again
        connection.execute(_TABLE)
        yield Known(connection)
    finally:
        connection.close()


def _path(path: Path) -> str:
    return str(path.absolute()).encode("utf-8", "backslashreplace").decode()  # not resolved: a link is a file of its own
