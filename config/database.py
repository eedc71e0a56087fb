"""The database, and the first wall between tenants: a session is bound to one tenant or cannot see tenant tables.

`Database.read/write` give a session for one tenant: every ORM statement on a `TenantOwned` table gets that tenant's
condition, and a row of another tenant cannot be added. `system_read/system_write` are for the few places that act before
a tenant is known or across tenants (administration, sweeping); a test lists those places.

On PostgreSQL the database itself is a second wall: each transaction takes on TENANT_ROLE with its tenant, or SYSTEM_ROLE,
and row level security decides (`api.row_security`), whatever the statement says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from functools import wraps
from typing import Any, ParamSpec, Protocol, TypeVar
from weakref import WeakKeyDictionary

import orjson
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.orm import ORMExecuteState, Session, with_loader_criteria
from sqlmodel import Field, SQLModel

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}
SQLModel.metadata.naming_convention = NAMING

BUSY_TIMEOUT_MS, CHECKPOINT_TIMEOUT_MS = 30_000, 200
TENANT_ROLE, SYSTEM_ROLE = "carrel_tenant", "carrel_system"  # of PostgreSQL; nobody can log in as either
TENANT_SETTING = "app.tenant_id"
#: Execution option of a statement that finds its rows by their keys: see `_BY_KEY`.
ROWS_BY_KEY = {"carrel_rows_by_key": True}
UPSERTS = (sqlite.dml.OnConflictDoUpdate, postgresql.dml.OnConflictDoUpdate)


P = ParamSpec("P")
T = TypeVar("T")


class HasTenant(Protocol):
    @property
    def tenant_id(self) -> str: ...


class TenantOwned(SQLModel):
    """Base of every table whose rows belong to one tenant."""

    tenant_id: str = Field(index=True)

    @classmethod
    def owner(cls) -> sa.ColumnElement[str]:
        """The tenant's column, of the table or of the alias; on this base, which has no table, a stand-in of the same name."""
        if sa.inspect(cls, raiseerr=False) is None:
            return sa.column("tenant_id", sa.String)
        return cls.tenant_id  # type: ignore[return-value]


class ForeignRow(RuntimeError):
    """A row or statement outside the session's tenant was attempted: a defect of ours, never a user's error."""


class TenantSession(Session):
    def bind_tenant(self, tenant_id: str | None) -> None:
        self.info["tenant_id"] = tenant_id

    def _bulk_save_mappings(self, *args: Any, **kwargs: Any) -> None:
        raise ForeignRow("the legacy bulk methods pass every check: use session.execute(insert(Table), rows)")


class Database:
    def __init__(self, url: str, *, synchronous: str = "normal", pool_size: int = 24) -> None:
        self.url, self._synchronous, self._pool_size = with_driver(url), synchronous, pool_size
        self.engine = self._new_engine()
        self.is_postgresql = self.engine.dialect.name == "postgresql"
        if not self.is_postgresql:
            _set_up_sqlite(self.engine, synchronous)
        self._writer = self.engine.execution_options(carrel_write=True)

    def _new_engine(self) -> sa.Engine:
        size, server = self._pool_size, not self.url.startswith("sqlite")
        return sa.create_engine(
            self.url,
            pool_size=size,
            max_overflow=size,
            pool_timeout=30,
            pool_pre_ping=server,  # connections from before its restart are found out here, not by whoever gets one
            hide_parameters=True,
            json_deserializer=orjson.loads,
        )

    @contextmanager
    def read(self, scope: HasTenant) -> Iterator[Session]:
        with self._session(self.engine, scope.tenant_id) as session:
            yield session

    @contextmanager
    def write(self, scope: HasTenant) -> Iterator[Session]:
        """One transaction; commits at the end of the block, rolls back on any exception."""
        with self._session(self._writer, scope.tenant_id) as session, session.begin():
            yield session

    @contextmanager
    def system_read(self) -> Iterator[Session]:
        with self._session(self.engine, None) as session:
            yield session

    @contextmanager
    def system_write(self) -> Iterator[Session]:
        with self._session(self._writer, None) as session, session.begin():
            yield session

    @contextmanager
    def lookup(self) -> Iterator[Session]:
        """For finding out who asks: on PostgreSQL it may call the one function for that and sees no table of any tenant."""
        with self._session(self.engine, None) as session:
            session.info["role"] = TENANT_ROLE
            yield session

    @contextmanager
    def _session(self, engine: sa.Engine, tenant_id: str | None) -> Iterator[Session]:
        with TenantSession(engine, expire_on_commit=False) as session:
            session.bind_tenant(tenant_id)
            session.info["role"] = SYSTEM_ROLE if tenant_id is None else TENANT_ROLE
            yield session

    def queue_engine(self) -> sa.Engine:
        """An engine for a library that manages its own transactions on the same database: the driver begins them."""
        engine = self._new_engine()
        if not self.is_postgresql:

            @event.listens_for(engine, "connect")
            def _connect(connection: Any, _record: object) -> None:
                _set_pragmas(connection, self._synchronous)
                connection.isolation_level = "IMMEDIATE"

        return engine

    def checkpoint(self) -> bool:
        """Leave nothing in SQLite's log of what was overwritten; False if others were in the way. On PostgreSQL vacuum does."""
        if self.is_postgresql:
            return True
        with closing(self.engine.raw_connection()) as connection:
            pragma = connection.driver_connection.execute  # type: ignore[union-attr]
            pragma(f"PRAGMA busy_timeout={CHECKPOINT_TIMEOUT_MS}")  # writers wait while it waits for readers
            busy = pragma("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
            pragma(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
        return not busy

    def ping(self) -> None:
        with self.engine.connect() as connection:
            connection.execute(sa.select(1))

    def close(self) -> None:
        self.engine.dispose()


def once_more(transaction: Callable[P, T]) -> Callable[P, T]:
    """Run it again if a row exists that it was about to make: on PostgreSQL two can find it missing at the same moment."""

    @wraps(transaction)
    def twice(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return transaction(*args, **kwargs)
        except IntegrityError:
            return transaction(*args, **kwargs)

    return twice


def may_be_committed(error: BaseException) -> bool:
    """Whether a transaction that raised this can be on record all the same: its connection broke before the answer came."""
    return isinstance(error, DBAPIError) and error.connection_invalidated


def with_driver(url: str) -> str:
    """`postgresql://` and `postgres://` mean psycopg 3 here, SQLAlchemy's default another driver."""
    scheme, separator, rest = url.partition("://")
    return f"postgresql+psycopg{separator}{rest}" if scheme in ("postgresql", "postgres") else url


@event.listens_for(TenantSession, "after_begin")
def _take_on_role(session: Session, _transaction: object, connection: sa.Connection) -> None:
    """Until the end of the transaction, and no longer: the next user of the connection starts as nobody."""
    if connection.dialect.name == "postgresql":
        _set_role(connection, session.info["role"], session.info.get("tenant_id"))


def _set_role(connection: sa.Connection, role: str, tenant_id: str | None) -> None:
    settings = sa.func.set_config("role", role, True), sa.func.set_config(TENANT_SETTING, tenant_id or "", True)
    connection.execute(sa.select(*settings))


@contextmanager
def past_the_wall(session: Session) -> Iterator[sa.Connection]:
    """The session's connection for tables that belong to no tenant, in the same transaction: the job queue's."""
    connection = session.connection()
    if connection.dialect.name != "postgresql":
        yield connection
        return
    _set_role(connection, SYSTEM_ROLE, None)
    yield connection
    _set_role(connection, session.info["role"], session.info.get("tenant_id"))


def add_last(session: Session, row: TenantOwned) -> None:
    """Insert the row right before the session commits, so that numbers given by the database follow the order of commits."""
    session.info.setdefault(_LAST, []).append(row)


_LAST = "carrel_last"


@event.listens_for(TenantSession, "before_commit")
def _insert_last(session: Session) -> None:
    if rows := session.info.pop(_LAST, None):
        session.flush()  # nobody waits for another's row while others wait for this one's turn
        if session.get_bind().dialect.name == "postgresql":
            for tenant_id in sorted({row.tenant_id for row in rows}):
                # Held until the commit: without it a later number could be seen first, and a reader would pass over the other.
                session.connection().execute(sa.select(sa.func.pg_advisory_xact_lock(sa.func.hashtextextended(tenant_id, 0))))
        session.add_all(rows)
        session.flush()


@event.listens_for(TenantSession, "after_rollback")
def _forget_last(session: Session) -> None:
    session.info.pop(_LAST, None)


def _set_pragmas(connection: Any, synchronous: str) -> None:
    """What is deleted is overwritten with zeros, which SQLite does by itself only where it was built so."""
    waits = f"busy_timeout={BUSY_TIMEOUT_MS}", "journal_mode=WAL", f"synchronous={synchronous}"
    for pragma in (*waits, "foreign_keys=ON", "secure_delete=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _set_up_sqlite(engine: sa.Engine, synchronous: str) -> None:
    @event.listens_for(engine, "connect")
    def _connect(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # the driver's own BEGIN comes too late to take the write lock first
        _set_pragmas(connection, synchronous)

    @event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        if connection.get_execution_options().get("carrel_write", False):
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        else:  # waits for nothing and cannot fail, so it needs none of SQLAlchemy's handling
            connection.connection.driver_connection.execute("BEGIN")  # type: ignore[union-attr]


#: Has no value of its own: a statement that runs without one is refused.
_TENANT = sa.bindparam("carrel_tenant", type_=sa.String())
#: One condition for all tenants, whose value comes with each execution: a closure over the id would cost 50 µs a statement.
_OWN = with_loader_criteria(TenantOwned, lambda table: table.owner() == _TENANT, include_aliases=True)
#: The same condition in a form that no index serves. SQLite takes any index to leave ten rows, so it would read all places of
#: a tenant's chunks (0.17 ms at 2,000, 0.77 at 10,000) rather than look eighteen keys up (0.03).
_BY_KEY = with_loader_criteria(TenantOwned, lambda table: table.owner() + "" == _TENANT, include_aliases=True)
#: Statements that modules keep, as they are confined: another 30 µs for each execution.
_confined: WeakKeyDictionary[sa.Executable, sa.Executable] = WeakKeyDictionary()


@event.listens_for(TenantSession, "do_orm_execute")
def _confine(state: ORMExecuteState) -> None:
    tenant_id = state.session.info.get("tenant_id")
    if tenant_id is None:
        return
    if not state.is_orm_statement:
        raise ForeignRow("only statements on mapped classes can be confined to a tenant")
    if state.is_insert:
        _check_inserted(state, tenant_id)
        return
    if state.is_update:
        _check_updated(state)
    if not isinstance(state.parameters or {}, Mapping):
        raise ForeignRow("a statement with many sets of parameters cannot be confined to a tenant")
    if state.is_select or state.execution_options.get("synchronize_session") is False:
        _add_condition(state, tenant_id)
    else:  # evaluated on the session's objects too, which have no parameters
        state.statement = state.statement.options(
            with_loader_criteria(TenantOwned, lambda table: table.owner() == tenant_id, include_aliases=True)
        )


def _add_condition(state: ORMExecuteState, tenant_id: str) -> None:
    confined = _confined.get(state.statement)
    if confined is None:
        by_key = state.execution_options.get("carrel_rows_by_key", False)
        confined = _confined[state.statement] = state.statement.options(_BY_KEY if by_key else _OWN)
    given: Mapping[str, Any] = state.parameters or {}  # type: ignore[assignment]
    state.statement, state.parameters = confined, {**given, _TENANT.key: tenant_id}


def _check_updated(state: ORMExecuteState) -> None:
    """An update by primary keys takes no condition, and one that sets the tenant would give rows away."""
    assigned: Mapping[Any, Any] = state.statement._values or {}  # type: ignore[attr-defined]
    given = state.parameters or {}
    if not isinstance(given, Mapping) or "tenant_id" in {*given, *(column.key for column in assigned)}:
        raise ForeignRow("an update that cannot be confined to its tenant")


def _check_inserted(state: ORMExecuteState, tenant_id: str) -> None:
    mapper = state.bind_mapper
    if mapper is None or not issubclass(mapper.class_, TenantOwned):
        return
    if isinstance(getattr(state.statement, "_post_values_clause", None), UPSERTS):
        raise ForeignRow("an upsert could change the row of another tenant that has the same key")
    given = state.parameters
    rows: list[Mapping[str, Any]] = [given] if isinstance(given, Mapping) else list(given or ())
    rows = rows or [state.statement.compile().params]  # type: ignore[attr-defined]
    if any(row.get("tenant_id") != tenant_id for row in rows):
        raise ForeignRow(f"a row of another tenant was inserted into {mapper.class_.__name__}")


@event.listens_for(TenantSession, "before_flush")
def _check_flushed(session: Session, _context: object, _instances: object) -> None:
    tenant_id = session.info.get("tenant_id")
    if tenant_id is None:
        return
    for row in (*session.new, *session.dirty, *session.deleted):
        if isinstance(row, TenantOwned) and row.tenant_id != tenant_id:
            raise ForeignRow(f"a row of another tenant was written to {row.__class__.__name__}")
