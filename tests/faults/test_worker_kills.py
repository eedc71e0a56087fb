"""SIGKILL of the worker again and again during ingest: nothing acknowledged is lost, doubled or left over."""

from __future__ import annotations

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import func
from sqlmodel import col, select

from carrel_client import Carrel
from config.clock import system_clock
from config.database import Database
from config.settings import Settings
from rag.corpus import Chunk, Document, DocumentVersion, SpaceRow, VersionChunk
from rag.store.base import Space
from rag.store.remote import EngineClient
from tenants.registry import TenantRegistry
from tenants.tables import BudgetWindow, LedgerEntry
from tests.support import Service, running_service, wait_for

IN_FLIGHT = 8  # documents that each tenant has on their way


def _text(number: int) -> str:
    return "\n\n".join(f"Shelf {number}, board {board}: " + f"word{number % 7} " * 60 for board in range(1 + number % 4))


def _ingest(client: Carrel, documents: int, disturbed: threading.Event) -> int:
    """Bring documents, a few at a time, until there are enough and the killing is over; return how many."""
    count = 0
    while count < documents or not disturbed.is_set():
        numbers = range(count, count + IN_FLIGHT)
        submitted = [client.documents.create(text=_text(n), external_id=f"doc-{n}") for n in numbers]
        for one in submitted:
            one.wait(timeout_s=240)
        count += IN_FLIGHT
    return count


def _kill(service: Service, name: str, kills: int, seed: int, disturbed: threading.Event) -> None:
    """Kill at seeded moments."""
    moments = random.Random(seed)
    try:
        for _ in range(kills):
            time.sleep(moments.uniform(0.05, 1.5))
            service.kill(name)
    finally:
        disturbed.set()


def _check_tenant(service: Service, database: Database, name: str, documents: int) -> None:
    """Every document live exactly once; live chunks in SQL = points in the engine; the ledger adds up."""
    engine = EngineClient(Settings(data_dir=service.data_dir).engine_socket, patience_s=10, timeout_s=10)
    registry = TenantRegistry(database, system_clock)
    context = registry.context_of_job(registry.get(name).id, "check")
    with database.read(context) as session:
        live = session.scalars(select(col(Document.external_id)).where(col(Document.live_version_id).is_not(None))).all()
        assert sorted(live) == sorted(f"doc-{n}" for n in range(documents))
        assert session.scalar(select(func.count()).select_from(DocumentVersion)) == documents
        chunks = sorted(session.scalars(select(col(Chunk.id))))
        assert sorted(session.scalars(select(col(VersionChunk.chunk_id)))) == chunks
        space = session.scalars(select(SpaceRow)).one()
        entries = session.scalars(select(LedgerEntry)).all()
        window = session.scalars(select(BudgetWindow)).one()
    assert engine.for_tenant(context, Space(space.id, space.dimensions)).ids() == chunks
    assert window.held == sum(entry.tokens for entry in entries if entry.state in ("held", "started")) == 0
    assert window.used == sum(entry.tokens for entry in entries)
    engine.close()


def _prove(folder: Path, *, documents: int, kills: int, child: str = "worker", seed: int = 1) -> None:
    # A short lease, so that what a killed worker held is swept within the test.
    with running_service(folder, hold_lease_seconds=5, sweep_seconds=0.5) as service:
        tenants = [service.tenant(), service.tenant()]
        disturbed = threading.Event()
        with ThreadPoolExecutor(3) as pool:
            killer = pool.submit(_kill, service, child, kills, seed, disturbed)
            ingests = [pool.submit(_ingest, client, documents // 2, disturbed) for _, client in tenants]
            killer.result(600)
            brought = [ingest.result(600) for ingest in ingests]
        clients = [client for _, client in tenants]
        wait_for(lambda: _nothing_held(clients), what="holds of killed workers to end", timeout_s=30)
        database = Database(f"sqlite:///{service.data_dir / 'carrel.db'}")
        for (name, _), count in zip(tenants, brought, strict=True):
            assert count >= documents // 2
            _check_tenant(service, database, name, count)
        database.close()


def _nothing_held(clients: list[Carrel]) -> bool:
    return all(client.usage().held == 0 for client in clients)


@pytest.mark.parametrize(("child", "seed"), [("worker", 1), ("engine", 2)])
def test_kills_during_ingest_lose_and_double_nothing(tmp_path: Path, child: str, seed: int) -> None:
    _prove(tmp_path, documents=30, kills=3, child=child, seed=seed)


@pytest.mark.full
def test_twenty_kills_of_the_worker_during_two_hundred_documents(tmp_path: Path) -> None:
    _prove(tmp_path, documents=200, kills=20, seed=3)


@pytest.mark.full
@pytest.mark.parametrize("child", ["engine", "api"])
def test_twenty_kills_of_the_others(tmp_path: Path, child: str) -> None:
    _prove(tmp_path, documents=200, kills=20, child=child, seed=4)
