"""Migrations make exactly the tables that the code declares, once, whoever starts them together."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlmodel import SQLModel, col, select

from api.schema import MIGRATIONS, migrate, revision, upgrade
from config.database import Database, TenantOwned
from config.profiles import BUILT_IN, PRIORITIES
from ingestion.jobs.tables import Job
from rag.corpus import Collection, DocumentVersion
from rag.embedding.hashing import HashRuntime
from rag.profiles import Chunking, Profiles
from rag.recall.tables import TurnVector
from rag.sessions.compacting import SessionCompactor
from rag.sessions.sessions import Sessions
from rag.sessions.tables import PIECE, ChatSession, Turn
from rag.sessions.values import NewSession, NewTurn
from rag.traces.erasing import KNOWN_MS
from rag.traces.old_vectors import OldVectors
from tenants.ledger.budget import Ledger
from tenants.tables import BudgetWindow, LedgerEntry, Tenant, UsageDay
from tests.postgresql import KINDS, database_url
from tests.support import FakeScope

START = "import sys; from api.schema import upgrade; from config.database import Database; upgrade(Database(sys.argv[1]))"


@pytest.fixture(params=KINDS)
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    with database_url(request.param, tmp_path, empty=True) as url:
        database = Database(url)
        yield database
        database.close()


def _schema(database: Database) -> set[tuple[str, ...]]:
    """Whatever the database knows of tables, columns, indexes, and who may do what with them."""
    queries = ["SELECT name, sql FROM sqlite_master"]
    if database.is_postgresql:
        queries = [
            "SELECT attrelid::regclass::text, attname, atttypid::regtype::text FROM pg_attribute WHERE attrelid >= 16384",
            "SELECT indexname, indexdef FROM pg_indexes",
            "SELECT relname, relacl::text, relrowsecurity::text, relforcerowsecurity::text FROM pg_class WHERE oid >= 16384",
            "SELECT tablename, policyname, roles::text, qual, with_check FROM pg_policies",
        ]
    with database.engine.connect() as connection:
        return {tuple(row) for query in queries for row in connection.exec_driver_sql(query)}


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


def test_the_newest_revision_is_the_head_of_one_line_of_files(empty: Database) -> None:
    """What is read off the files' names, so that starts need no Alembic, is what Alembic reads in them."""
    script = ScriptDirectory(str(MIGRATIONS))
    assert script.get_heads() == [revision(empty)[1]]
    for each in script.walk_revisions():
        assert Path(each.path).name.startswith(f"{each.revision}_")


def test_the_comparison_would_notice_a_change(empty: Database) -> None:
    SQLModel.metadata.create_all(empty.engine)
    assert _differences(empty) == []
    with empty.engine.begin() as connection:
        connection.execute(sa.text("ALTER TABLE documents ADD COLUMN extra INTEGER"))
        connection.execute(sa.text("DROP INDEX uq_documents_external_id"))
    assert len(_differences(empty)) == 2


TENANT = {"id": "ten_old", "name": "old", "cache_salt": b"salt", "created_at": 1}
JOB = {
    "tenant_id": "ten_old",
    "id": "job_old",
    "kind": "ingest",
    "collection_id": "col",
    "document_id": "doc",
    "state": "queued",
    "stage": "waiting",
    "chunks_total": 3,
    "chunks_done": 2,
    "tokens_charged": 1,
    "tokens_cached": 0,
    "created_at": 1,
    "updated_at": 1,
}

CORPUS: dict[str, dict[str, Any]] = {
    "spaces": {"id": "sp", "dimensions": 2, "description": "{}", "created_at": 1},
    "collections": {
        "tenant_id": "ten_old", "id": "col", "name": "default", "space_id": "sp", "placement": "shared", "generation": 0,
        "created_at": 1,
    },
    "documents": {
        "tenant_id": "ten_old", "id": "doc", "collection_id": "col", "external_id": "x", "live_number": 0, "last_number": 1,
        "created_at": 1,
    },
    "document_versions": {
        "tenant_id": "ten_old", "id": "ver", "document_id": "doc", "number": 1, "state": "queued", "digest": "d", "title": "",
        "media_type": "text/plain", "attributes": "{}", "labels": "[]", "bytes": 1, "content_blob": "b", "chars": 0,
        "pages": 0, "parser_deaths": 0, "read_starts": 0, "created_at": 1,
    },
}  # fmt: skip


WINDOW = {"tenant_id": "ten_old", "month": "2026-03", "used": 7, "held": 2}
ENTRY = {
    "tenant_id": "ten_old",
    "id": "hold",
    "month": "2026-03",
    "operation": "ingest",
    "state": "settled",
    "tokens": 7,
    "epoch": 1,
    "created_at": 1,
}
DAY = {"tenant_id": "ten_old", "day": "2026-03-10", "operation": "ingest", "charged": 7, "cached": 1, "deduplicated": 0}


def _insert(connection: sa.Connection, table: str, row: dict[str, Any]) -> None:
    connection.execute(sa.insert(sa.table(table, *map(sa.column, row))).values(row))


def test_rows_of_the_first_revision_are_kept_and_get_what_later_ones_added(empty: Database) -> None:
    with empty.engine.begin() as connection:
        migrate(connection, "0001")
        _insert(connection, "tenants", TENANT)
        _insert(connection, "jobs", JOB)
        for table, row in CORPUS.items():
            _insert(connection, table, row)
    upgrade(empty)
    assert _differences(empty) == []
    with empty.read(FakeScope("ten_old")) as session:
        job = session.scalars(select(Job)).one()
        assert JOB.items() <= job.model_dump().items()
        assert (job.epoch, job.pages, job.tokens_total, job.retry_of, job.finished_at) == (0, 0, 0, None, None)
        assert job.priority == PRIORITIES["normal"]
        [collection], [version] = session.scalars(select(Collection)), session.scalars(select(DocumentVersion))
        assert (collection.profile, version.profile) == ("standard", "standard")
        # as the standard profile is with a model of 256 tokens: what was brought before is known when it is brought again
        assert Chunking(**version.chunking) == (Profiles(BUILT_IN, HashRuntime()).get("standard").chunking)
    with empty.read(FakeScope("ten_other")) as session:
        assert session.scalars(select(Job)).all() == []
    with empty.system_read() as session:
        assert session.scalars(select(col(Tenant.name))).all() == ["old"]


def test_what_was_used_before_there_was_money_cost_nothing(empty: Database) -> None:
    with empty.engine.begin() as connection:
        migrate(connection, "0002")
        for name in ("ten_old", "ten_other"):
            _insert(connection, "tenants", {**TENANT, "id": name, "name": name})
            open_one = {**ENTRY, "id": "open", "state": "started", "tokens": 4}
            for table, row in (("budget_windows", WINDOW), ("ledger", ENTRY), ("ledger", open_one), ("usage_days", DAY)):
                _insert(connection, table, {**row, "tenant_id": name})
    upgrade(empty)
    meter = Ledger(empty, lambda: 1_773_144_000_000, lease_s=60, price=3).for_tenant(FakeScope("ten_old"), "ingest")
    assert meter.charged("hold") == 7
    meter.debit("new", 5)
    with empty.read(FakeScope("ten_old")) as session:
        old = session.get_one(LedgerEntry, ("ten_old", "hold"))
        assert (old.price, old.cost, old.part_of) == (0, 0, None)
        windows = {w.period: (w.kind, w.used, w.held, w.cost, w.held_cost) for w in session.scalars(select(BudgetWindow))}
        assert windows == {
            "2026-03": ("embedding", 12, 4, 15, 0),  # as the entries say: the former window had forgotten some of what is held
            "2026-03-01": ("embedding", 7, 4, 0, 0),  # all that is known is the month
            "2026-03-10": ("embedding", 5, 0, 15, 0),
        }
        days = {day.day: (day.charged, day.cached, day.hits, day.cost) for day in session.scalars(select(UsageDay))}
        assert days == {"2026-03-01": (7, 0, 0, 0), "2026-03-10": (5, 1, 0, 15)}
    with empty.read(FakeScope("ten_other")) as session:
        assert {window.cost for window in session.scalars(select(BudgetWindow))} == {0}


def test_who_goes_back_has_what_was_said_in_old_turns(empty: Database) -> None:
    upgrade(empty)
    said = [NewTurn("user", f"“{n}”", tool_calls=[{"n": n}] if n % 3 else None, metadata={"n": n}) for n in range(PIECE + 2)]
    with empty.system_write() as session:
        session.add_all([Tenant(**{**TENANT, "id": name, "name": name}) for name in ("ten_old", "ten_other")])
    sessions, made = Sessions(empty, lambda: 1), {}
    for name in ("ten_old", "ten_other"):
        handle = sessions.for_tenant(FakeScope(name))
        made[name] = handle.create(NewSession("ann", max_turns=1, when_full="archive")).id
        handle.append(made[name], said)
    turns = sa.table("turns", *map(sa.column, ("session_id", "seq", "content", "tool_calls", "data", "files")))

    def stored() -> list[tuple[object, ...]]:
        with empty.engine.begin() as connection:
            if empty.is_postgresql:
                connection.exec_driver_sql("SET LOCAL ROLE carrel_system")
            return [*map(tuple, connection.execute(sa.select(turns).order_by(turns.c.session_id, turns.c.seq)))]

    before = stored()
    for name, session_id in made.items():
        with empty.write(FakeScope(name)) as session:
            own = {"tenant_id": name, "session_id": session_id, "space": "sp", "vector": b"12"}
            session.add_all(TurnVector(turn_id=turn.id, seq=turn.seq, **own) for turn in session.scalars(select(Turn)).all())
    assert SessionCompactor(sessions, pause=lambda _seconds: None).run_once() == 2 * PIECE
    assert stored() != before
    assert OldVectors(empty, lambda: KNOWN_MS + 1, pause=lambda _seconds: None).run_once() == 0
    assert OldVectors(empty, lambda: KNOWN_MS + 2, pause=lambda _seconds: None).run_once() == 2
    with empty.system_read() as session:
        assert sorted(session.scalars(select(TurnVector.seq))) == sorted([PIECE + 1, PIECE + 2] * 2)
    for name, session_id in made.items():
        for read in (session_id, sessions.for_tenant(FakeScope(name)).fork(session_id).id):
            turns_read = sessions.for_tenant(FakeScope(name)).turns(read, limit=500)
            assert [(turn.content, turn.tool_calls, turn.data) for turn in turns_read] == [
                (turn.content, turn.tool_calls, turn.metadata) for turn in said
            ]
    _back(empty, "0028")
    assert {*map(str, before)} <= {*map(str, stored())}  # of the forks too


def _back(database: Database, to: str) -> None:
    with database.engine.begin() as connection:
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        config.attributes["connection"] = connection
        command.downgrade(config, to)


def test_sessions_that_had_ended_are_found_by_when_they_did(empty: Database) -> None:
    upgrade(empty)
    sessions = Sessions(empty, lambda: 1)
    with empty.system_write() as session:
        session.add_all([Tenant(**{**TENANT, "id": name, "name": name}) for name in ("ten_old", "ten_other")])
    gone, living = (sessions.for_tenant(FakeScope(name)).create(NewSession("ann")).id for name in ("ten_old", "ten_other"))
    _back(empty, "0027")
    with empty.system_write() as session:
        session.execute(sa.text("UPDATE sessions SET state = 'erased', expires_at = NULL WHERE id = :id"), {"id": gone})
    upgrade(empty)
    with empty.system_read() as session:
        ends = {one.id: one.expires_at for one in session.scalars(select(ChatSession))}
    assert ends == {gone: 0, living: None}


def test_processes_that_start_together_migrate_once(empty: Database) -> None:
    starting = [
        subprocess.Popen([sys.executable, "-P", "-c", START, empty.url], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=120)[0].decode() for process in starting]
    assert [process.returncode for process in starting] == [0, 0], outputs
    current, newest = revision(empty)
    assert current == newest


def test_every_table_of_a_tenant_names_its_tenant() -> None:
    owned = [mapper.class_ for mapper in TenantOwned._sa_registry.mappers if issubclass(mapper.class_, TenantOwned)]
    assert len(owned) >= 8
    for table in owned:
        column = table.__table__.c.tenant_id
        assert not column.nullable
        leading = [next(iter(index.columns)) for index in table.__table__.indexes]
        assert column.primary_key or column in leading, table
