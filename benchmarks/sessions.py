"""What conversations cost: a turn's way to its acknowledgement, sessions that are open, and thousands that expire at once."""

from __future__ import annotations

import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from api.processes.local import LocalService, local_service
from api.wiring.core import build_core
from benchmarks.corpus import Writer
from benchmarks.expiring import Expiring
from benchmarks.harness import BenchmarkError, in_parallel, median, percentile, shown
from benchmarks.process_memory import PROC, pss_mb, tree
from benchmarks.report import Figures, Report
from benchmarks.workload import SERVICE, ask, fill, tokenizer_of
from carrel_client import Carrel
from config.settings import Settings

TENANT = "one"
WARM_UP, AT_ONCE = 30, 4
BLOCK = 20  #: questions between two looks at what is left
DOCUMENTS, CHUNKS = 20, 20
SWEEP_S = 1.0  #: between two slices of a sweep; the default is 5, which makes it longer and easier on questions
MEASURED_S = 120.0  #: at most, of each part of a sweep: a busy machine takes long, and ratios are known before
LONGEST_S = 300.0
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
    chosen = {**SERVICE, "embedding_runtime": plan.runtime, "sweep_seconds": SWEEP_S}
    with tempfile.TemporaryDirectory(prefix="carrel-sessions-") as data, local_service(Path(data), **chosen) as service:
        with service.tenant(TENANT) as client:
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
        "append_p95_ms": percentile(times[WARM_UP:], 95),
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
    """What the service holds with more and more sessions open, each made and given a turn by a call of its own."""
    figures: Figures = {}
    made, began = set[str](), time.monotonic()
    for part, count in (("tenth", plan.sessions // 10), ("half", plan.sessions // 2), ("all", plan.sessions)):
        made |= {*_make(client, count - len(made))}
        figures |= {f"pss_mb_{part}": pss_mb(service.pid), f"handles_{part}": _handles(service.pid)}
    if len(made) != plan.sessions:
        raise BenchmarkError("Not every session was made.")
    return figures | {
        "pss_growth_mb": figures["pss_mb_all"] - figures["pss_mb_tenth"],
        "handles_growth": figures["handles_all"] - figures["handles_tenth"],
        "sessions_per_s": plan.sessions / (time.monotonic() - began),
    }


def _make(client: Carrel, count: int) -> list[str]:
    def make(number: int) -> str:
        session_id = client.sessions.create(subject=f"user {number % 100}").id
        client.sessions.say(session_id, "user", f"{number} {WORDS}")
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
    """Questions while nothing expires, before and (if all are erased) after; and while so many sessions do, all at once."""
    writer = Writer(plan.seed + 1, tokenizer_of(plan.runtime))

    def asked(count: int) -> list[float]:
        return [ask(client, question).wall_ms for question in writer.questions(count)]

    with _expiring(plan, service) as expiring:
        _wait_until(expiring.are_embedded)
        asked(WARM_UP)
        quiet = asked(plan.queries // 2)
        began = time.monotonic()
        expiring.let_expire()
        ending = _until(lambda: expiring.living() == 0, lambda: asked(BLOCK))
        ended, living = time.monotonic(), expiring.living()
        erasing = _until(lambda: expiring.left() == 0, lambda: asked(BLOCK))
        erased, left = time.monotonic(), expiring.left()
        if not left:  # else it is not quiet yet
            quiet += asked(plan.queries // 2)
    swept, p95 = ending + erasing, percentile(quiet, 95)
    return {
        "query_p95_ms": p95,
        "query_p95_ratio_in_sweep": percentile(swept, 95) / p95,
        "query_p50_ratio_in_sweep": median(swept) / median(quiet),
        "query_p95_ratio_while_ended": percentile(ending, 95) / p95,
        "query_p95_ratio_while_erased": percentile(erasing, 95) / p95,
        "queries_in_sweep": len(swept),
        "sweep_s": ended - began,
        "erase_s": erased - ended,
        "swept_sessions": plan.sessions - living,
        "erased_sessions": plan.sessions - left,
    }


def _until(is_over: Callable[[], bool], ask_some: Callable[[], list[float]]) -> list[float]:
    """Waits of questions that are asked until then, some at least, and for MEASURED_S at most."""
    waits, until = ask_some(), time.monotonic() + MEASURED_S
    while time.monotonic() < until and not is_over():
        waits += ask_some()
    return waits


def _wait_until(done: Callable[[], bool]) -> None:
    until = time.monotonic() + LONGEST_S
    while not done():
        if time.monotonic() > until:
            raise BenchmarkError(f"Turns were without vectors after {LONGEST_S:g} s.")
        time.sleep(0.5)


@contextmanager
def _expiring(plan: Plan, service: LocalService) -> Iterator[Expiring]:
    core = build_core(Settings.model_construct(data_dir=service.data_dir))
    try:
        yield Expiring.made(core, core.registry.get(TENANT).id, plan.sessions)
    finally:
        core.database.close()
