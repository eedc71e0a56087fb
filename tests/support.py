"""Starting real services, and small stand-ins with the shapes that the code asks for."""

from __future__ import annotations

import asyncio
import atexit
import gc
import io
import json
import os
import random
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, ClassVar, TypeVar
from unittest.mock import patch

from hypothesis import settings
from sqlalchemy.orm import Session

from carrel_client import Carrel
from config.database import Database
from config.errors import Forbidden
from rag.store.base import Space
from rag.store.build import BuildsHere
from rag.store.engine import EngineServer
from rag.store.files import copy_folder
from rag.store.remote import EngineClient
from rag.store.shards import EdgeStore

T = TypeVar("T")
#: How many times as long as promised something may take beside other tests; 1 on a machine that has nothing else to do.
PATIENCE = float(os.environ.get("CARREL_TEST_PATIENCE", "6"))


@dataclass(frozen=True)
class FakeScope:
    """Satisfies rag.types.Reader and Speaker by shape."""

    tenant_id: str
    cache_salt: bytes = b"salt"
    collections: frozenset[str] | None = None
    labels: frozenset[str] | None = None
    session: str | None = None
    subject: str | None = None

    def speaking_for(self, named: str | None) -> str | None:
        if self.subject is not None and named not in (None, self.subject):
            raise Forbidden("another subject")
        return self.subject or named


@dataclass
class FreeMeter:
    """Satisfies rag.types.Meter by shape; pays for everything and remembers it."""

    paid: dict[str, int] = field(default_factory=dict)

    def hold(self, hold_id: str, tokens: int, *, started: bool = False) -> bool:
        return hold_id not in self.paid

    def start(self, hold_id: str) -> None:
        pass

    def settle(self, hold_id: str, tokens: int) -> int:
        self.paid[hold_id] = tokens
        return tokens

    def settle_part(self, hold_id: str, part_id: str, tokens: int) -> int:
        return self.paid.setdefault(f"{hold_id}/{part_id}", tokens)

    def charged(self, entry_id: str) -> int:
        return self.paid.get(entry_id, 0) + sum(cost for name, cost in self.paid.items() if name.startswith(f"{entry_id}/"))

    def release(self, hold_id: str) -> None:
        pass

    def debit(self, charge_id: str, tokens: int) -> bool:
        self.paid[charge_id] = tokens
        return True

    def keep(self, charge_id: str) -> bool:
        return charge_id in self.paid

    def refund(self, charge_id: str) -> bool:
        del self.paid[charge_id]
        return True

    def strained(self) -> bool:
        return False

    def saved(self, cached: int, deduplicated: int, hits: int = 0) -> None:
        pass


@dataclass
class BookedFreeMeter(FreeMeter):
    """Satisfies rag.types.BookedMeter by shape, for those whose amounts change with a charge."""

    database: Database | None = None
    scope: FakeScope | None = None

    def debit_with(self, charge_id: str, tokens: int, also: Callable[[Session], None]) -> bool:
        if charge_id in self.paid:
            return False
        assert self.database is not None
        assert self.scope is not None
        with self.database.write(self.scope) as session:
            also(session)
            self.debit(charge_id, tokens)
        return True


class BuildsCopies(BuildsHere):
    """Makes an empty shard once, and copies it: its many fsyncs take seconds where disks are slow."""

    _made: ClassVar[dict[int, Path]] = {}

    def create(self, path: Path, space: Space) -> None:
        if space.dimensions not in self._made:
            folder = tempfile.mkdtemp(prefix="carrel-empty-")
            atexit.register(shutil.rmtree, folder)
            self._made[space.dimensions] = Path(folder) / "shard"
            super().create(self._made[space.dimensions], space)
        copy_folder(self._made[space.dimensions], path)


@contextmanager
def served_engine(folder: Path) -> Iterator[EngineClient]:
    """The engine's real server in a thread, and a client of its socket."""
    path, loop, stop = folder / "e.sock", asyncio.new_event_loop(), asyncio.Event()
    server = EngineServer(EdgeStore(folder / "vectors", BuildsCopies()))
    thread = threading.Thread(target=lambda: loop.run_until_complete(server.serve(path, stop)))
    thread.start()
    client = EngineClient(path, patience_s=10, timeout_s=10)
    try:
        yield client
    finally:
        client.close()
        loop.call_soon_threadsafe(stop.set)
        thread.join(20)
        loop.close()


def environment(data_dir: Path, **settings: object) -> dict[str, str]:
    """The environment of a service under test. It shares the machine with other tests, so its worker takes its full share."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CARREL_")}
    chosen: dict[str, object] = {"data_dir": data_dir, "port": 0, "log_level": "warning", "worker_scheduling": "normal"}
    if models := os.environ.get("CARREL_MODELS_DIR"):  # prepared once for all tests: it takes seconds
        chosen["models_dir"] = models
    chosen |= {"cli_dir": data_dir / "cli", **settings}
    return kept | {f"CARREL_{name.upper()}": str(value) for name, value in chosen.items()}


def carrel_process(*arguments: str, env: dict[str, str], **options: object) -> subprocess.CompletedProcess[str]:
    """Run the `carrel` command to its end, in a process of its own, whose start takes 0.7 s of CPU."""
    command = [sys.executable, "-P", "-m", "api.cli.main", *arguments]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False, **options)  # type: ignore[call-overload, no-any-return]


def carrel(*arguments: str, env: dict[str, str], input: str = "") -> subprocess.CompletedProcess[str]:
    """Run the `carrel` command to its end, in this process."""
    from api.cli.main import run  # noqa: PLC0415  for those who use it only

    given, out, err = (io.TextIOWrapper(io.BytesIO(text), "utf-8", write_through=True) for text in (input.encode(), b"", b""))
    with patch.dict(os.environ, env, clear=True), patch.object(sys, "argv", ["carrel", *arguments]):
        with patch.object(sys, "stdin", given), redirect_stdout(out), redirect_stderr(err):
            try:
                run()
                code: object = 0
            except SystemExit as end:
                code = end.code or 0
    said = [stream.buffer.getvalue().decode() for stream in (out, err)]  # type: ignore[attr-defined]
    return subprocess.CompletedProcess(["carrel", *arguments], code if isinstance(code, int) else 1, *said)


def carrel_here(*arguments: str, env: dict[str, str]) -> str:
    """What the command prints; it must end well."""
    done = carrel(*arguments, env=env)
    assert done.returncode == 0, done.stderr
    return done.stdout


@dataclass
class Service:
    """A running `carrel serve`."""

    data_dir: Path
    env: dict[str, str]
    process: subprocess.Popen[str]
    url: str
    clients: list[Carrel] = field(default_factory=list)

    def client(self, key: str) -> Carrel:
        """A client that is closed with the test."""
        self.clients.append(Carrel(api_key=key, base_url=self.url))
        return self.clients[-1]

    def close_clients(self) -> None:
        while self.clients:
            self.clients.pop().close()

    @property
    def admin(self) -> Carrel:
        return Carrel(api_key=(self.data_dir / "operator.key").read_text().strip(), base_url=self.url)

    def key(self, tenant: str, *scopes: str, **bounds: list[str]) -> str:
        chosen = scopes or ("query", "converse", "ingest", "manage")
        with self.admin as admin:
            return admin.admin.keys.create(tenant=tenant, name="test", scopes=chosen, **bounds).secret

    def tenant(self, *, monthly_tokens: int | None = None) -> tuple[str, Carrel]:
        """A new tenant: its name and a client with all scopes."""
        name = f"t-{uuid.uuid4().hex[:12]}"
        with self.admin as admin:
            admin.admin.tenants.create(name=name, monthly_tokens=monthly_tokens)
        return name, self.client(self.key(name))

    def child(self, name: str) -> int | None:
        """Process id of the child that runs `carrel NAME`, if it lives."""
        return next((pid for pid, arguments in children(self.process.pid).items() if name in arguments), None)

    def kill(self, name: str) -> None:
        """SIGKILL a child and wait until another one has taken its place."""
        before = wait_for(lambda: self.child(name), what=f"a living {name}")
        os.kill(before, signal.SIGKILL)
        wait_for(lambda: self.child(name) not in (None, before), what=f"a new {name}")

    def stop(self) -> int:
        """Stop it if it runs, and release what this process holds of it."""
        self.close_clients()
        with self.process:
            self.process.terminate()
            return self.process.wait(60)


@contextmanager
def running_service(data_dir: Path, **settings: object) -> Iterator[Service]:
    env = environment(data_dir, **settings)
    service = start_service(data_dir, env)
    try:
        yield service
    finally:
        service.stop()


def start_service(data_dir: Path, env: dict[str, str], *, stderr: IO[str] | None = None) -> Service:
    """`stderr`: where its log goes, instead of this process's own."""
    command = [sys.executable, "-P", "-m", "api.cli.main", "serve", "--json", "--supervised"]
    process = subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, f"the service did not start (exit {process.wait()})"
    return Service(data_dir, env, process, json.loads(line)["url"])


def children(pid: int) -> dict[int, list[str]]:
    """Living children of a process with their arguments."""
    found = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in map(int, (task / "children").read_text().split()):
            try:
                found[child] = Path(f"/proc/{child}/cmdline").read_bytes().decode().split("\0")
            except FileNotFoundError:
                continue
    return {child: arguments for child, arguments in found.items() if arguments != [""]}


def hold_still(pid: int, data_dir: Path) -> None:
    """SIGSTOP between two of its transactions: inside one, everybody else's writes would wait for it."""

    def stopped() -> bool:
        os.kill(pid, signal.SIGSTOP)
        wait_for(lambda: all(_state(task) == "T" for task in Path(f"/proc/{pid}/task").iterdir()), what="it to stop")
        with closing(sqlite3.connect(data_dir / "carrel.db", timeout=0.2, isolation_level=None)) as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                os.kill(pid, signal.SIGCONT)
                return False
            return True

    wait_for(stopped, what="a moment between two transactions")


def _state(task: Path) -> str:
    return (task / "stat").read_text().rpartition(")")[2].split()[0]


def cpu_seconds(work: Callable[[], object]) -> float:
    """The least of three runs, without what collecting the garbage of other tests takes."""
    seconds = []
    gc.disable()
    try:
        for _ in range(3):
            began = time.process_time()
            work()
            seconds.append(time.process_time() - began)
    finally:
        gc.enable()
    return min(seconds)


def examples(count: int) -> int:
    """How many Hypothesis tries: a fifth of them everyday, all of them in the full suite."""
    return count // 5 if settings.get_current_profile_name() == "everyday" else count


def free_port() -> int:
    """One that stays free until it is bound: not of those that connections going out are given."""
    while True:
        port = random.SystemRandom().randrange(10_000, 30_000)
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def wait_for_turns(client: Carrel, session: str) -> None:
    """Until all that was said has its vector: what is recalled may be other turns then."""
    wait_for(lambda: not client.sessions.recall(session, "x", mode="lexical").waiting, what="vectors of all turns")


def wait_for(condition: Callable[[], T | None], *, what: str, timeout_s: float = 60.0) -> T:
    """Poll until the condition is truthy; fail saying what was waited for."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.02)
    raise AssertionError(f"waited {timeout_s} s for {what}")
