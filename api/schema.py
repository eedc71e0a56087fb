"""Brings the database to this version's schema, and the job queue's tables with it. Alembic is imported here only, and only
when something is to be done: it takes 0.1 s and 12 MB."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa

from api.row_security import make_roles, raise_walls
from config.database import Database
from ingestion.queue.durable import migrate_queue_tables

LOOK_AGAIN_S = 0.1  # for the end of another process's migration
MIGRATIONS = Path(__file__).parent / "migrations"
_REVISIONS = sa.table("alembic_version", sa.column("version_num", sa.String))


def upgrade(database: Database) -> None:
    """Apply what is missing. Safe to call from several processes at once."""
    with _one_at_a_time(database):
        current, newest = revision(database)
        if current != newest and database.is_postgresql:
            with database.engine.begin() as connection:
                make_roles(connection)
        migrate_queue_tables(database)
        if current == newest:
            return  # to raise the walls again would lock tables that others are using
        with database.engine.begin() as connection:
            migrate(connection, newest)
            if database.is_postgresql:
                raise_walls(connection)


def migrate(connection: sa.Connection, target: str) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    command.upgrade(config, target)


def revision(database: Database) -> tuple[str | None, str]:
    """(the database's revision, the newest one): equal when nothing is missing."""
    # The files are in one line, numbered from 0001 on.
    newest = max(path.name.partition("_")[0] for path in (MIGRATIONS / "versions").glob("[0-9]*.py"))
    with database.engine.connect() as connection:
        if not sa.inspect(connection).has_table(_REVISIONS.name):
            return None, newest
        return connection.scalar(sa.select(_REVISIONS.c.version_num)), newest


@contextmanager
def _one_at_a_time(database: Database) -> Iterator[None]:
    """Processes that start together would both see an empty database."""
    if database.is_postgresql:
        # Outside any transaction: the queue builds indexes concurrently, which waits for every transaction to end.
        with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            # Not `pg_advisory_lock`: to wait inside a statement is a transaction too.
            while not connection.scalar(sa.select(sa.func.pg_try_advisory_lock(_MIGRATION_LOCK))):
                time.sleep(LOOK_AGAIN_S)
            try:
                yield
            finally:
                connection.execute(sa.select(sa.func.pg_advisory_unlock(_MIGRATION_LOCK)))
        return
    path = Path(f"{database.engine.url.database}.migrating")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


_MIGRATION_LOCK = 0x63617272656C  # "carrel": advisory locks of PostgreSQL have numbers
