"""What makes a database of a test quick: tables that are copied, and statements that the databases of a process share."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path

from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.util import LRUCache
from sqlmodel import SQLModel

from config.database import Database

STATEMENTS: LRUCache[object, object] = LRUCache(3000)


def make_tables(database: Database) -> None:
    """Every declared table, unless there are some: PostgreSQL's databases come with them, see `tests.postgresql`."""
    path = Path(str(database.engine.url.database))
    if not database.is_postgresql and not (path.exists() and path.stat().st_size):
        shutil.copyfile(_template(frozenset(SQLModel.metadata.tables)), path)


@cache
def _template(_declared: frozenset[str]) -> Path:
    """A file with these tables: to make them takes 25 ms of CPU, to copy them 0.5."""
    folder = Path(tempfile.mkdtemp(prefix="carrel-tables-"))
    atexit.register(shutil.rmtree, folder)
    database = Database(f"sqlite:///{folder / 'carrel.db'}")
    SQLModel.metadata.create_all(database.engine)
    database.close()
    return folder / "carrel.db"


def share_statements() -> None:
    """Let all databases of this process share what was compiled: SQLAlchemy does it for each engine, a third of most tests."""
    for dialect in (SQLiteDialect_pysqlite, PGDialect_psycopg):
        dialect.__eq__, dialect.__hash__ = _alike, _kind  # type: ignore[method-assign]
    engine_of = Database._new_engine

    def sharing(self: Database) -> object:
        engine = engine_of(self)
        engine.update_execution_options(compiled_cache=STATEMENTS)
        return engine

    Database._new_engine = sharing  # type: ignore[assignment, method-assign]


def _alike(self: DefaultDialect, other: object) -> bool:
    """Whether what was compiled for one can be run by the other: one server's version, and one way to read JSON."""
    return (
        isinstance(other, type(self))
        and self._json_deserializer is other._json_deserializer  # type: ignore[attr-defined]
        and self.server_version_info == other.server_version_info
    )


def _kind(self: DefaultDialect) -> int:
    return hash(type(self))
