"""Many writers against one budget, threads first and then processes that are killed in the middle of a call.

Without kills: charged ≤ limit, and charged is exactly what the model read. With kills: charged ≤ limit, charged covers
everything that was kept, calls that had started are charged and marked unsettled, and no hold outlives its lease.
"""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from sqlmodel import col, select

from config.clock import system_clock
from config.database import Database
from config.errors import BudgetExhausted
from rag.embedding.batcher import Batcher
from rag.embedding.cache import NullVectorCache
from rag.embedding.service import EmbeddingService
from tenants.context import TenantContext
from tenants.events import EventLog
from tenants.ledger.budget import Ledger
from tenants.registry import TenantRegistry
from tenants.tables import BudgetWindow, LedgerEntry, UsageDay
from tests.faults.budget_clients import CountingRuntime
from tests.faults.budget_writer import LEASE_S
from tests.support import wait_for
from tests.tables import make_tables

LIMIT = 20_000


def _database(url: str, limit: int = LIMIT) -> tuple[Database, list[TenantContext]]:
    database = Database(url)
    make_tables(database)
    registry = TenantRegistry(database, system_clock)
    tenants = [registry.create(name, monthly_tokens=limit) for name in ("spender", "neighbour")]
    return database, [registry.context_of_job(tenant.id, "test") for tenant in tenants]


def _books(database: Database, context: TenantContext) -> tuple[int, int, list[LedgerEntry]]:
    with database.read(context) as session:
        window = session.scalars(select(BudgetWindow).order_by(col(BudgetWindow.period))).first()
        entries = [*session.scalars(select(LedgerEntry))]
    return (window.used, window.held, entries) if window else (0, 0, entries)


def _ask(url: str, processes: int, clients: int, requests: int, limit: int) -> None:
    """Every request is charged what the model read for it, or refused; windows, ledger and usage agree to the picodollar."""
    database, (spender, neighbour) = _database(url, limit)
    command = [sys.executable, "-m", "tests.faults.budget_clients", url, spender.tenant_id]
    asking = [
        subprocess.Popen(
            [*command, str(n), str(clients // processes), str(requests)],
            cwd=Path(__file__).parents[2],
            stdout=subprocess.PIPE,
        )
        for n in range(processes)
    ]
    read = sum(int(process.communicate(timeout=900)[0]) for process in asking)
    assert {process.returncode for process in asking} == {0}
    with database.read(spender) as session:
        windows = session.scalars(select(BudgetWindow)).all()
        entries, days = session.scalars(select(LedgerEntry)).all(), session.scalars(select(UsageDay)).all()
    months = [window for window in windows if len(window.period) == 7]
    assert limit - 30 < read == sum(entry.tokens for entry in entries) == sum(window.used for window in months) <= limit
    assert sum(day.charged for day in days) == read
    assert {sum(row.cost for row in rows) for rows in (months, entries, days)} == {read * 7}
    assert {window.held for window in windows} == {0}
    warned = sorted(f"{window.kind}:{window.period}:{step}" for window in months for step in (50, 75, 90))
    told, _ = EventLog(database, system_clock).for_tenant(spender).list(type="budget.warned", limit=50)
    assert [event.subject for event in told if not event.subject.endswith(":100")] == warned  # once each, and in this order
    assert _books(database, neighbour) == (0, 0, [])
    database.close()


def test_clients_of_three_processes_are_charged_exactly_what_is_read(sql_url: str) -> None:
    _ask(sql_url, processes=3, clients=12, requests=40, limit=3_000)


@pytest.mark.full
@pytest.mark.parametrize("processes", [1, 3])
def test_64_clients_with_200_requests_each(sql_url: str, processes: int) -> None:
    _ask(sql_url, processes=processes, clients=66 if processes == 3 else 64, requests=200, limit=90_000)


def test_32_writers_charge_exactly_what_is_embedded_and_never_more_than_the_limit(sql_url: str) -> None:
    database, (spender, neighbour) = _database(sql_url)
    runtime = CountingRuntime()
    service = EmbeddingService(Batcher(runtime, batch_tokens=2048), NullVectorCache())
    ledger = Ledger(database, system_clock, lease_s=60)
    refused = []

    def write(writer: int) -> None:
        meter = ledger.for_tenant(spender, "ingest")
        for batch in range(12):
            texts = [f"writer {writer} batch {batch} text {n} " + "x" * (writer + n) for n in range(3)]
            try:
                service.embed_batch(spender, meter, texts, hold_id=f"{writer}:{batch}")
            except BudgetExhausted:
                refused.append((writer, batch))

    threads = [threading.Thread(target=write, args=(n,)) for n in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    service.close()
    used, held, entries = _books(database, spender)
    assert refused, "the budget was never reached"
    assert used == runtime.read == sum(entry.tokens for entry in entries) <= LIMIT
    assert held == 0
    assert used > LIMIT * 0.9
    assert _books(database, neighbour)[:2] == (0, 0)
    database.close()


def _kill_writers(url: str, folder: Path, kills: int, seed: int) -> None:
    database, (spender, neighbour) = _database(url)
    ledger, moments = Ledger(database, system_clock, lease_s=LEASE_S), random.Random(seed)
    command = [sys.executable, "-m", "tests.faults.budget_writer", url, str(folder), spender.tenant_id]
    writers = [subprocess.Popen([*command, str(n)], cwd=Path(__file__).parents[2]) for n in range(4)]
    wait_for(lambda: _books(database, spender)[2], what="the writers' first hold")
    for kill in range(kills):
        time.sleep(moments.uniform(0.02, 0.2))
        victim = kill % len(writers)
        writers[victim].kill()
        writers[victim].wait()
        writers[victim] = subprocess.Popen([*command, str(victim)], cwd=Path(__file__).parents[2])
        ledger.sweep()
    for writer in writers:
        assert writer.wait(120) == 0
    wait_for(lambda: ledger.sweep() is not None and _books(database, spender)[1] == 0, what="every hold to end")
    used, held, entries = _books(database, spender)
    kept = {path.name: int(path.read_text()) for path in folder.glob("kept-*")}
    charged = {f"kept-{entry.id}": entry.tokens for entry in entries if entry.state in ("settled", "unsettled")}
    assert used == sum(charged.values()) <= LIMIT
    assert held == 0
    assert all(charged.get(name, 0) >= tokens for name, tokens in kept.items()), "something was kept and not paid"
    assert {entry.state for entry in entries} <= {"settled", "unsettled", "released"}
    assert _books(database, neighbour)[:2] == (0, 0)
    database.close()


def test_killed_writers_never_overspend_and_what_is_kept_is_paid(sql_url: str, tmp_path: Path) -> None:
    _kill_writers(sql_url, tmp_path, kills=6, seed=5)


@pytest.mark.full
def test_a_hundred_kills_in_the_middle_of_calls(sql_url: str, tmp_path: Path) -> None:
    _kill_writers(sql_url, tmp_path, kills=100, seed=6)
