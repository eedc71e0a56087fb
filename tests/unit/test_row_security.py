"""The wall inside PostgreSQL, asked at the driver's level: no statement of ours, however wrong, reaches another tenant."""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import ProgrammingError
from sqlmodel import SQLModel, col, select

from api.row_security import _rules, raise_walls
from api.schema import upgrade
from config.clock import system_clock
from config.database import SYSTEM_ROLE, TENANT_ROLE, TENANT_SETTING, Database
from config.errors import SetupError
from ingestion.queue.durable import DurableQueue
from tenants.audit.record import AuditLog
from tenants.context import Scope
from tenants.identity.keys import FIND_KEY, KeyRing
from tenants.registry import TenantRegistry
from tenants.tables import BudgetWindow
from tests.postgresql import server
from tests.support import FakeScope

A, B = FakeScope("a"), FakeScope("b")
DENIED = "permission denied"
TABLES = SQLModel.metadata.tables
OWNERS = {name: owner for name, (_, owner) in _rules().items() if owner is not None}
REACHED = sorted(name for name, (rights, owner) in _rules().items() if owner is not None and rights is not None)
CHANGED = sorted(name for name in REACHED if "UPDATE" in str(_rules()[name][0]))


def _value(column: sa.Column[object], tenant: str) -> object:
    """Something that fits the column; ids are unique in each tenant, and references go to that tenant's own row."""
    kinds = {sa.LargeBinary: b"x", sa.Boolean: False, sa.Integer: 1, sa.BigInteger: 1, sa.Float: 1.0, sa.JSON: {}}
    if column.name == "seq":
        return ord(tenant)
    return next((value for kind, value in kinds.items() if isinstance(column.type, kind)), f"{tenant}-x")


def _row(table: sa.Table, tenant: str) -> dict[str, object]:
    row = {column.name: _value(column, tenant) for column in table.columns}
    owner = OWNERS.get(table.name)
    return row | ({owner: tenant} if owner else {})


@pytest.fixture
def sql_url() -> Iterator[str]:
    """The `database` of these tests is always PostgreSQL's."""
    with server().database() as url:
        yield url


@contextmanager
def _filled() -> Iterator[Database]:
    """In every table a row of each of the two tenants."""
    with server().database() as url:
        database = Database(url)
        with database.system_write() as session:
            for table in SQLModel.metadata.sorted_tables:
                session.connection().execute(sa.insert(table), [_row(table, tenant) for tenant in "ab"])
        yield database
        database.close()


@pytest.fixture(scope="module")
def filled() -> Iterator[Database]:
    """For tests that leave every row as it was."""
    with _filled() as database:
        yield database


def _take_on(connection: sa.Connection, role: str | None, tenant: str | None = None) -> None:
    if role is not None:
        connection.exec_driver_sql(f"SET LOCAL ROLE {role}")
    if tenant is not None:
        connection.execute(sa.select(sa.func.set_config(TENANT_SETTING, tenant, True)))


def _owners(connection: sa.Connection, table: str) -> list[str]:
    return sorted(connection.exec_driver_sql(f"SELECT {OWNERS[table]} FROM {table}").scalars())


def test_every_table_with_an_owner_has_row_security_that_binds_its_owner_too(database: Database) -> None:
    with database.engine.connect() as connection:
        flags = connection.exec_driver_sql(
            "SELECT relname, relrowsecurity, relforcerowsecurity FROM pg_class WHERE relnamespace = 'public'::regnamespace"
        )
        walled = {name for name, enabled, forced in flags if enabled and forced}
    named = {name for name, table in TABLES.items() if "tenant_id" in table.columns or name == "tenants"}
    assert walled == named == set(OWNERS)
    assert set(_rules()) == set(TABLES)


def test_tests_log_in_as_somebody_ordinary(database: Database) -> None:
    with database.engine.connect() as connection:
        rights = connection.exec_driver_sql("SELECT rolsuper, rolbypassrls FROM pg_roles WHERE rolname = current_user")
        assert rights.one() == (False, False)


@pytest.mark.parametrize("table", sorted(OWNERS))
def test_who_has_taken_on_no_role_sees_nothing(filled: Database, table: str) -> None:
    with filled.engine.begin() as connection:
        assert _owners(connection, table) == []
        _take_on(connection, None, "a")
        assert _owners(connection, table) == []
    with filled.system_read() as session:
        assert _owners(session.connection(), table) == ["a", "b"]


@pytest.mark.parametrize("table", REACHED)
def test_the_tenants_role_sees_one_tenants_rows_and_none_without_a_tenant(filled: Database, table: str) -> None:
    with filled.engine.begin() as connection:
        _take_on(connection, TENANT_ROLE)
        assert _owners(connection, table) == []
        for tenant in ("a", "b", "a"):
            _take_on(connection, None, tenant)
            assert _owners(connection, table) == [tenant]
        _take_on(connection, None, "")
        assert _owners(connection, table) == []


@pytest.mark.parametrize("table", CHANGED)
def test_an_update_without_a_condition_touches_one_tenants_rows(filled: Database, table: str) -> None:
    with filled.engine.begin() as connection:
        _take_on(connection, TENANT_ROLE, "a")
        assert connection.exec_driver_sql(f"UPDATE {table} SET {OWNERS[table]} = {OWNERS[table]}").rowcount == 1


def test_deleting_everything_leaves_the_other_tenants_rows() -> None:
    with _filled() as database:
        with database.engine.begin() as connection:
            _take_on(connection, TENANT_ROLE, "a")
            for each in reversed(SQLModel.metadata.sorted_tables):
                if each.name in CHANGED:
                    assert connection.exec_driver_sql(f"DELETE FROM {each.name}").rowcount == 1
        with database.system_read() as session:
            left = {table: _owners(session.connection(), table) for table in CHANGED}
        assert left == {table: ["b"] for table in CHANGED}


@pytest.mark.parametrize("table", REACHED)
def test_rows_of_another_tenant_cannot_be_brought_nor_given(filled: Database, table: str) -> None:
    foreign = sa.insert(TABLES[table]).values(**_row(TABLES[table], "b"))
    given = sa.text(f"UPDATE {table} SET {OWNERS[table]} = 'b'")
    for statement in (foreign, given):
        with filled.engine.connect() as connection:
            _take_on(connection, TENANT_ROLE, "a")
            with pytest.raises(ProgrammingError, match=f"row-level security|{DENIED}"):
                connection.execute(statement)
    with filled.system_read() as session:
        assert _owners(session.connection(), table) == ["a", "b"]


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM api_keys",
        "UPDATE api_keys SET name = name",
        "INSERT INTO tenants SELECT * FROM tenants",
        "UPDATE tenants SET monthly_tokens = NULL",
        "DELETE FROM audit_entries",
        "UPDATE audit_entries SET detail = detail",
        "SELECT * FROM instances",
        "INSERT INTO spaces SELECT * FROM spaces",
        "SELECT * FROM dbos.workflow_status",
        "SELECT * FROM alembic_version",
        "CREATE TABLE public.mine (x int)",
        "ALTER TABLE documents DISABLE ROW LEVEL SECURITY",
        "TRUNCATE documents CASCADE",
        f"ALTER FUNCTION {FIND_KEY}(text) SECURITY INVOKER",
    ],
)
def test_what_the_tenants_role_may_not_do(filled: Database, statement: str) -> None:
    with filled.engine.connect() as connection:
        _take_on(connection, TENANT_ROLE, "a")
        with pytest.raises(ProgrammingError, match=f"{DENIED}|must be owner"):
            connection.exec_driver_sql(statement)


def test_a_key_is_looked_up_by_its_whole_id_only(database: Database) -> None:
    keys = KeyRing(database, system_clock)
    new = [keys.create(tenant, name="k", scopes=[Scope.QUERY]) for tenant in "ab"]
    with database.engine.begin() as connection:
        _take_on(connection, TENANT_ROLE)
        for wanted, found in [(new[0].row.id, 1), (new[1].row.id, 1), ("key_%", 0), ("", 0), ("key_unknown", 0)]:
            rows = connection.execute(sa.text(f"SELECT id FROM {FIND_KEY}(:wanted)"), {"wanted": wanted}).scalars().all()
            assert rows == [wanted] * found
    with database.engine.connect() as connection, pytest.raises(ProgrammingError, match=DENIED):
        connection.execute(sa.text(f"SELECT id FROM {FIND_KEY}('x')"))  # nor by who has taken on no role


def test_the_queue_is_reached_past_the_wall_only_and_the_wall_stands_again_after_it(database: Database) -> None:
    queue = DurableQueue(database)
    with database.read(A) as session:
        assert session.connection().exec_driver_sql("SELECT current_user").scalar() == TENANT_ROLE
        assert queue.unfinished(["job_x"]) == set()
        assert session.connection().exec_driver_sql("SELECT current_user").scalar() == TENANT_ROLE
        assert session.connection().exec_driver_sql(f"SELECT current_setting('{TENANT_SETTING}')").scalar() == "a"
    queue.close()


def _interleave(database: Database, seed: int) -> int:
    """Transactions of either tenant and of the system in any order, some of which fail in some way; return how many."""
    chance, names = random.Random(seed), {"a": ["a"], "b": ["b"], None: ["a", "b"]}
    for _ in range(60):
        who = chance.choice([A, B, None])
        bound = (
            (database.system_write() if who is None else database.write(who))
            if chance.random() < 0.5
            else (database.system_read() if who is None else database.read(who))
        )
        end = chance.choice(["commit", "rollback", "error in SQL", "error in Python", "savepoint"])
        try:
            with bound as session:
                connection = session.connection()
                role = SYSTEM_ROLE if who is None else TENANT_ROLE
                assert connection.exec_driver_sql("SELECT current_user").scalar() == role
                assert sorted(session.scalars(select(col(BudgetWindow.tenant_id)))) == names[who and who.tenant_id]
                assert _owners(connection, "collections") == names[who and who.tenant_id]
                if end == "rollback":
                    session.rollback()
                elif end == "error in SQL":
                    connection.exec_driver_sql("SELECT 1/0")
                elif end == "error in Python":
                    raise ZeroDivisionError
                elif end == "savepoint":
                    with session.begin_nested() as nested:
                        nested.rollback()
                    assert connection.exec_driver_sql("SELECT current_user").scalar() == role
        except (ZeroDivisionError, sa.exc.DataError):
            pass
        with database.engine.begin() as connection:  # whoever gets a connection from the pool starts as nobody
            assert _owners(connection, "collections") == []
    return 60


def test_transactions_that_share_two_connections_never_mix(filled: Database) -> None:
    shared = Database(filled.url, pool_size=1)  # and one more that may be opened beside it
    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(lambda seed: _interleave(shared, seed), range(8))) == 480
    shared.close()


def test_a_table_that_nobody_classified_stops_the_start(database: Database) -> None:
    table = sa.Table("unclassified", SQLModel.metadata, sa.Column("id", sa.String, primary_key=True))
    try:
        with pytest.raises(KeyError, match="unclassified"):
            with database.engine.begin() as connection:
                raise_walls(connection)
    finally:
        SQLModel.metadata.remove(table)


def test_raising_the_walls_again_changes_nothing(filled: Database) -> None:
    with filled.engine.begin() as connection:
        raise_walls(connection)
    with filled.read(A) as session:
        assert _owners(session.connection(), "documents") == ["a"]


@pytest.fixture
def poor() -> Iterator[str]:
    """A login that may make no roles."""
    name = f"poor_{uuid.uuid4().hex[:8]}"
    server().run(f"CREATE ROLE {name} LOGIN PASSWORD 'carrel'")
    yield name
    server().run(f"DROP ROLE {name}")


def test_a_login_without_rights_is_told_what_an_administrator_must_run_and_starts_after_it(poor: str) -> None:
    with server().database(empty=True, owner=poor) as url:
        database = Database(url)
        with pytest.raises(SetupError) as refused:
            upgrade(database)
        statements = [line.strip() for line in refused.value.detail.splitlines()[1:]]
        assert statements
        server().run(*statements)
        upgrade(database)
        upgrade(database)
        tenant = TenantRegistry(database, system_clock).create("first", monthly_tokens=None)
        assert AuditLog(database, system_clock).of(tenant.id) == []
        with database.engine.connect() as connection:
            assert connection.exec_driver_sql("SELECT * FROM tenants").all() == []
        database.close()


def test_a_membership_that_is_inherited_is_refused(poor: str) -> None:
    server().run(f"GRANT {SYSTEM_ROLE}, {TENANT_ROLE} TO {poor}")
    with server().database(empty=True, owner=poor) as url:
        database = Database(url)
        with pytest.raises(SetupError, match="INHERIT FALSE"):
            upgrade(database)
        database.close()
