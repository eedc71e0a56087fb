"""Migrations make exactly the tables that the code declares, once, whoever starts them together."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlmodel import SQLModel

from api.schema import revision, upgrade
from config.database import Database, TenantOwned

START = "import sys; from api.schema import upgrade; from config.database import Database; upgrade(Database(sys.argv[1]))"


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Database]:
    database = Database(f"sqlite:///{tmp_path / 'carrel.db'}")
    yield database
    database.close()


def _schema(database: Database) -> set[tuple[str, str]]:
    with database.engine.connect() as connection:
        return {(name, sql) for name, sql in connection.exec_driver_sql("SELECT name, sql FROM sqlite_master").all()}


def _differences(database: Database) -> list[object]:
    declared = SQLModel.metadata.tables
    with database.engine.connect() as connection:
        context = MigrationContext.configure(
            connection,
            opts={
                "compare_type": True,
                # the job queue's tables are its own
                "include_name": lambda name, kind, _: kind != "table" or name in declared,
            },
        )
        return compare_metadata(context, SQLModel.metadata)


def test_an_empty_database_gets_every_declared_table_and_is_then_left_alone(empty: Database) -> None:
    assert revision(empty)[0] is None
    upgrade(empty)
    current, newest = revision(empty)
    assert current == newest is not None
    assert _differences(empty) == []
    before = _schema(empty)
    upgrade(empty)
    assert _schema(empty) == before


def test_the_comparison_would_notice_a_change(empty: Database) -> None:
    SQLModel.metadata.create_all(empty.engine)
    assert _differences(empty) == []
    with empty.engine.begin() as connection:
        connection.execute(sa.text("ALTER TABLE documents ADD COLUMN extra INTEGER"))
        connection.execute(sa.text("DROP INDEX uq_documents_external_id"))
    assert len(_differences(empty)) == 2


def test_processes_that_start_together_migrate_once(empty: Database) -> None:
    starting = [
        subprocess.Popen([sys.executable, "-P", "-c", START, empty.url], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for _ in range(3)
    ]
    outputs = [process.communicate(timeout=120)[0].decode() for process in starting]
    assert [process.returncode for process in starting] == [0, 0, 0], outputs
    current, newest = revision(empty)
    assert current == newest
    assert _differences(empty) == []


def test_every_table_of_a_tenant_names_its_tenant() -> None:
    owned = [mapper.class_ for mapper in TenantOwned._sa_registry.mappers if issubclass(mapper.class_, TenantOwned)]
    assert len(owned) >= 8
    for table in owned:
        column = table.__table__.c.tenant_id
        assert not column.nullable
        leading = [next(iter(index.columns)) for index in table.__table__.indexes]
        assert column.primary_key or column in leading, table
