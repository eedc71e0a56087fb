"""What conversations cost: a turn's way to its acknowledgement, sessions that are open, and thousands that expire at once."""

from __future__ import annotations

import sqlite3
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from api.local import LocalService, local_service
from benchmarks.corpus import Writer
from benchmarks.harness import BenchmarkError, in_parallel, median, percentile, shown
from benchmarks.process_memory import PROC, pss_mb, tree
from benchmarks.report import Figures, Report
from benchmarks.workload import SERVICE, ask, fill, tokenizer_of
from carrel_client import Carrel

WARM_UP, AT_ONCE = 30, 4
TURNS = 10  #: of each session that expires
DOCUMENTS, CHUNKS = 20, 20
LONGEST_S = 600.0
WORDS = "What was it that you said about the old library by the river last week, and who was there with you?"


@dataclass(frozen=True)
class Plan:
    appends: int
    sessions: int
    queries: int
    runtime: str
    seed: int


def run(plan: Plan) -> Report:
    with _service(plan) as (service, client):
        figures = _appends(plan, service, client) | _open(plan, service, client) | _sweep(plan, service, client)
    return Report("sessions", {**figures, "sessions": plan.sessions})


@contextmanager
def _service(plan: Plan) -> Iterator[tuple[LocalService, Carrel]]:
    chosen = {**SERVICE, "embedding_runtime": plan.runtime}
    with tempfile.TemporaryDirectory(prefix="carrel-sessions-") as data, local_service(Path(data), **chosen) as service:
        with service.tenant("one") as client:
            fill(client, Writer(plan.seed, tokenizer_of(plan.runtime)).documents(DOCUMENTS, CHUNKS, prefix="text"))
            yield service, client


# --- appending


def _appends(plan: Plan, service: LocalService, client: Carrel) -> Figures:
    """One client, one turn a call; beside it rows of the same size, each committed alone by the driver."""
    made = client.sessions.create(subject="ann")
    times = []
    for number in shown(range(WARM_UP + plan.appends), "appends", WARM_UP + plan.appends):
        began = time.perf_counter()
        client.sessions.say(made.id, "user", f"{number} {WORDS}")
        times.append((time.perf_counter() - began) * 1000)
    bare = _bare_inserts(service.data_dir / "bare.db", plan.appends)
    p50 = percentile(times[WARM_UP:], 50)
    return {
        "append_p50_ms": p50,
        "append_p99_ms": percentile(times[WARM_UP:], 99),
        "append_p10_ms": percentile(times[WARM_UP:], 10),
        "bare_insert_p50_ms": bare,
        "append_ratio_to_bare_insert": p50 / bare,
    }


def _bare_inserts(path: Path, count: int) -> float:
    times = []
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=normal", "CREATE TABLE t (id INTEGER PRIMARY KEY, x)"):
            connection.execute(statement)
        for number in range(count):
            began = time.perf_counter()
            connection.execute("INSERT INTO t (x) VALUES (?)", (f"{number} {WORDS}",))
            times.append((time.perf_counter() - began) * 1000)
    return percentile(times, 50)


# --- sessions that are open


def _open(plan: Plan, service: LocalService, client: Carrel) -> Figures:
    """What the service holds more with so many sessions open, each with one turn, than with a tenth of them."""
    before = _make(client, plan.sessions // 10)
    handles, pss = _handles(service.pid), pss_mb(service.pid)
    after = _make(client, plan.sessions - len(before))
    if len({*before, *after}) != plan.sessions:
        raise BenchmarkError("Not every session was made.")
    return {"handles_growth": _handles(service.pid) - handles, "pss_growth_mb": pss_mb(service.pid) - pss}


def _make(client: Carrel, count: int, *, turns: int = 1, ttl_s: int | None = None) -> list[str]:
    said = [{"role": "user", "content": f"{number} {WORDS}"} for number in range(turns)]

    def make(number: int) -> str:
        session_id = client.sessions.create(subject=f"user {number % 100}", absolute_ttl_seconds=ttl_s).id
        client.sessions.append(session_id, said)
        return session_id

    return in_parallel(make, range(count), threads=AT_ONCE, label="sessions")


def _handles(pid: int) -> int:
    """Open files of all processes of the service, without sockets, which are its callers'."""
    return sum(
        not str(handle.readlink()).startswith("socket:")
        for process in tree(pid)
        for handle in (PROC / str(process) / "fd").iterdir()
        if handle.is_symlink()
    )


# --- a sweep


def _sweep(plan: Plan, service: LocalService, client: Carrel) -> Figures:
    """Questions while nothing expires, and while so many sessions do, that were let expire at one moment."""
    ids = _make(client, plan.sessions, turns=TURNS, ttl_s=10**6)
    writer = Writer(plan.seed + 1, tokenizer_of(plan.runtime))

    def asked(count: int) -> list[float]:
        return [ask(client, question).wall_ms for question in writer.questions(count)]

    _wait_for_vectors(service)
    asked(WARM_UP)
    quiet = asked(plan.queries)
    _let_expire(service)
    began, swept = time.monotonic(), []
    while (left := _left(service, ids)) and time.monotonic() < began + LONGEST_S:
        swept += asked(plan.queries // 4)
    if left:
        raise BenchmarkError(f"{left} expired sessions were still there after {LONGEST_S:g} s.")
    took = time.monotonic() - began
    return {
        "query_p95_ratio_in_sweep": percentile(swept, 95) / percentile(quiet, 95),
        "query_p95_ms": percentile(quiet, 95),
        "queries_in_sweep": len(swept),
        "sweep_s": took,
        "query_p50_ratio_in_sweep": median(swept) / median(quiet),
    }


def _database(service: LocalService) -> sqlite3.Connection:
    return sqlite3.connect(service.data_dir / "carrel.db", timeout=60)


def _let_expire(service: LocalService) -> None:
    with closing(_database(service)) as connection, connection:
        connection.execute("UPDATE sessions SET expires_at = 1 WHERE absolute_ttl_s = ?", (10**6,))


def _wait_for_vectors(service: LocalService) -> None:
    """Else turns would be embedded beside the questions that are to be quiet."""
    until = time.monotonic() + LONGEST_S
    while time.monotonic() < until:
        with closing(_database(service)) as connection:
            if connection.execute("SELECT count(*) FROM sessions WHERE turns > embedded_turns").fetchone() == (0,):
                return
        time.sleep(1.0)
    raise BenchmarkError(f"Turns were without vectors after {LONGEST_S:g} s.")


def _left(service: LocalService, ids: Sequence[str]) -> int:
    with closing(_database(service)) as connection:
        (count,) = connection.execute("SELECT count(*) FROM sessions WHERE absolute_ttl_s = ?", (10**6,)).fetchone()
    assert 0 <= count <= len(ids)
    return int(count)
