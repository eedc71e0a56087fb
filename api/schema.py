"""Brings the database to this version's schema, and the job queue's tables with it. Alembic is imported here only."""

from __future__ import annotations

import fcntl
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from config.database import Database
from ingestion.durable import migrate_queue_tables

MIGRATIONS = Path(__file__).parent / "migrations"


def upgrade(database: Database) -> None:
    """Apply what is missing. Safe to call from several processes at once."""
    with _one_at_a_time(database):
        config = _config()
        with database.engine.connect() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
        migrate_queue_tables(database)


def revision(database: Database) -> tuple[str | None, str | None]:
    """(the database's revision, the newest one): equal when nothing is missing."""
    with database.engine.connect() as connection:
        current = MigrationContext.configure(connection).get_current_revision()
    return current, ScriptDirectory.from_config(_config()).get_current_head()


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    return config


@contextmanager
def _one_at_a_time(database: Database) -> Iterator[None]:
    """Processes that start together would both see an empty database."""
    name = database.engine.url.database or "database"
    path = (
        Path(f"{name}.migrating")
        if database.engine.dialect.name == "sqlite"
        else Path(tempfile.gettempdir(), "carrel.migrating")
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
