"""Files and vector stores below HTTP: what expires, what was interrupted, what is counted; each beside another tenant."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import pytest

from config.clock import system_clock
from config.database import Database
from config.errors import (
    BudgetExhausted,
    Forbidden,
    InvalidInput,
    NotFound,
    QueueFull,
    StoreExpired,
    Unavailable,
    UnreadableDocument,
)
from ingestion.intake.bulk import BulkDocuments, TenantBulk
from ingestion.jobs.jobs import Jobs
from ingestion.removal.collections import Removal
from ingestion.repair.blobs import check_blobs
from ingestion.repair.quotas import check_quotas
from ingestion.stores import members, upkeep
from ingestion.stores.files import BATCH_MS, Upload
from ingestion.stores.paging import PageWish
from ingestion.stores.parts import DAY_MS, StoreParts, WantedFile
from ingestion.stores.services import StoreServices
from ingestion.stores.settling import Settling
from ingestion.stores.stores import StoreWish
from ingestion.stores.tables import BROUGHT, FileBatch, StoredFile, StoreFile, VectorStore
from ingestion.stores.upkeep import StoreUpkeep
from rag.corpus import Collection, Document
from rag.retrieval.question import Question
from rag.store.memory import MemoryStore
from tenants.limits.quotas import used_of
from tests.support import FreeMeter
from tests.unit.conftest import SetClock
from tests.world import TENANTS, World

POSTGRESQL_DAILY = False
ASH, ELM = TENANTS
TEXT = b"Books may be kept for four weeks."


class Shelf(World):
    """A world with stores, whose clock can be set."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.clock = SetClock(system_clock())
        of_documents = {name: getattr(self.documents, name) for name in self.documents.__dataclass_fields__}
        documents = BulkDocuments(**of_documents)
        jobs, removal = Jobs(self.database, self.clock, self.queue), Removal(self.database, documents.collections)
        self.store_parts = StoreParts(self.database, self.clock, self.blobs, documents, jobs, removal)
        self.services = StoreServices.of(self.store_parts)
        self.upkeep = StoreUpkeep(self.store_parts, Settling(self.store_parts), self.registry.context_of_job)

    def file(self, name: str, content: bytes = TEXT, **more: Any) -> str:
        upload = Upload("rules.txt", more.pop("purpose", "user_data"), content, **more)
        return self.services.uploads.for_tenant(self.contexts[name]).create(upload).id

    def store_of(self, name: str, *file_ids: str, **wish: Any) -> str:
        handle = self.services.stores.for_tenant(self.contexts[name])
        shown = handle.create(StoreWish(**wish), [WantedFile(file_id) for file_id in file_ids])
        self.run_jobs()
        return shown.row.id

    def found(self, name: str, store_id: str) -> int:
        question = Question("books weeks", (store_id,))
        return len(self.retriever.for_tenant(self.contexts[name], FreeMeter()).query(question, charge_id="q").passages)

    def keep_house(self) -> None:
        for _ in range(3):
            self.clock.now += upkeep.QUIET_MS + 1
            self.upkeep.run_once()
            self.run_jobs()

    def bytes_of(self, name: str) -> int:
        with self.database.read(self.contexts[name]) as session:
            return used_of(session, self.contexts[name].tenant_id).bytes


@pytest.fixture
def shelf(database: Database, tmp_path: Path) -> Iterator[Shelf]:
    shelf = Shelf(database, MemoryStore(), tmp_path)
    yield shelf
    shelf.close()


def test_a_store_expires_so_many_days_after_it_was_last_active(shelf: Shelf) -> None:
    stores = {name: shelf.store_of(name, shelf.file(name), expires_days=2) for name in TENANTS}
    mine, theirs = (shelf.services.stores.for_tenant(shelf.contexts[name]) for name in TENANTS)
    shelf.clock.now += DAY_MS
    theirs.require_searchable(stores[ELM])
    shelf.clock.now += DAY_MS
    assert mine.get(stores[ASH]).status == "expired"
    for refused in (lambda: mine.require_searchable(stores[ASH]), lambda: mine.update(stores[ASH], {"expires_days": 9})):
        with pytest.raises(StoreExpired):
            refused()
    with pytest.raises(StoreExpired):
        shelf.services.files.for_tenant(shelf.contexts[ASH]).attach(stores[ASH], WantedFile(shelf.file(ASH)))
    shelf.keep_house()
    assert shelf.found(ASH, stores[ASH]) == 0
    assert shelf.vectors(ASH).ids() == []
    assert (mine.get(stores[ASH]).status, mine.get(stores[ASH]).counts["completed"]) == ("expired", 0)
    assert shelf.found(ELM, stores[ELM]) == 1
    assert theirs.get(stores[ELM]).status == "completed"
    mine.delete(stores[ASH])
    shelf.keep_house()
    assert (shelf.all(ASH, VectorStore), shelf.all(ASH, Collection)) == ([], [])


def test_a_file_whose_time_is_over_leaves_its_stores(shelf: Shelf) -> None:
    hour = 3_600_000
    files = {name: shelf.file(name, lifetime_ms=hour if name == ASH else None) for name in TENANTS}
    stores = {name: shelf.store_of(name, files[name]) for name in TENANTS}
    assert shelf.services.uploads.for_tenant(shelf.contexts[ASH]).get(files[ASH]).expires_at == shelf.clock.now + hour
    shelf.clock.now += hour
    with pytest.raises(NotFound):
        shelf.services.uploads.for_tenant(shelf.contexts[ASH]).content(files[ASH])
    assert shelf.services.uploads.for_tenant(shelf.contexts[ASH]).list(None, PageWish()) == ([], False)
    shelf.keep_house()
    assert (shelf.found(ASH, stores[ASH]), shelf.found(ELM, stores[ELM])) == (0, 1)
    assert (shelf.all(ASH, StoredFile), shelf.all(ASH, StoreFile)) == ([], [])
    assert shelf.bytes_of(ASH) == 0
    batch = shelf.file(ASH, purpose="batch")
    assert shelf.services.uploads.for_tenant(shelf.contexts[ASH]).get(batch).expires_at == shelf.clock.now + BATCH_MS


def test_files_count_until_they_are_deleted_and_no_repair_takes_them(shelf: Shelf) -> None:
    file, other = shelf.file(ASH), shelf.file(ELM, b"other")
    store = shelf.store_of(ASH, file)
    assert (shelf.bytes_of(ASH), shelf.bytes_of(ELM)) == (2 * len(TEXT), len(b"other"))
    shelf.age()
    for name in shelf.files():
        assert [*check_blobs(shelf.parts(shelf.store), name[:2], True, shelf.clock.now)] == []
    assert [*check_quotas(shelf.parts(shelf.store), shelf.contexts[ASH], repair=False)] == []
    uploads = shelf.services.uploads.for_tenant(shelf.contexts[ASH])
    assert uploads.content(file)[1] == TEXT
    uploads.delete(file)
    shelf.keep_house()
    assert shelf.bytes_of(ASH) == 0
    assert shelf.found(ASH, store) == 0
    assert [*check_quotas(shelf.parts(shelf.store), shelf.contexts[ASH], repair=False)] == []
    assert shelf.files() == {shelf.services.uploads.for_tenant(shelf.contexts[ELM]).get(other).blob}


def test_what_a_request_left_waiting_is_brought_by_who_keeps_house(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    file, take = shelf.file(ASH), TenantBulk.take

    def full(_self: TenantBulk, *_args: Any, **_options: Any) -> list[Any]:
        return [QueueFull("full", retry_after_s=1)]

    monkeypatch.setattr(TenantBulk, "take", full)
    store = shelf.store_of(ASH, file)
    handle = shelf.services.stores.for_tenant(shelf.contexts[ASH])
    assert handle.get(store).status == "in_progress"
    monkeypatch.setattr(TenantBulk, "take", take)
    shelf.upkeep.run_once()  # a request may be at it
    assert handle.get(store).status == "in_progress"
    shelf.keep_house()
    assert (handle.get(store).status, shelf.found(ASH, store)) == ("completed", 1)
    assert shelf.services.stores.for_tenant(shelf.contexts[ELM]).list(PageWish()) == ([], False)


@pytest.mark.parametrize("settles", [True, False])
def test_a_file_that_leaves_while_it_is_brought_leaves_no_document(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch, settles: bool
) -> None:
    """Whether who takes it out ends that, or dies with its note."""
    file, files = shelf.file(ASH), shelf.services.files.for_tenant(shelf.contexts[ASH])
    store, take = shelf.store_of(ASH), TenantBulk.take
    removed: list[str] = []

    def meanwhile(self: TenantBulk, *args: Any, **options: Any) -> Any:
        if not removed:
            removed.append(file)
            if not settles:
                monkeypatch.setattr(Settling, "settle", lambda *_args, **_options: None)
            files.remove(store, file)
        return take(self, *args, **options)

    monkeypatch.setattr(TenantBulk, "take", meanwhile)
    with pytest.raises(NotFound):
        files.attach(store, WantedFile(file))
    assert [row for row in shelf.all(ASH, Document) if row.deleted_at is None] == []
    monkeypatch.undo()
    shelf.keep_house()
    assert shelf.all(ASH, StoreFile) == []


def test_a_batch_ends_what_has_not_ended(shelf: Shelf) -> None:
    store, ids = shelf.store_of(ASH), [shelf.file(ASH, TEXT + bytes([48 + n])) for n in range(3)]
    batches = shelf.services.batches.for_tenant(shelf.contexts[ASH])
    batch = batches.create(store, [WantedFile(file_id) for file_id in ids]).row.id
    assert batches.get(store, batch).status == "in_progress"
    cancelled = batches.cancel(store, batch)
    assert (cancelled.status, dict(cancelled.counts)) == ("cancelled", {"cancelled": 3})
    shelf.run_jobs()
    assert shelf.found(ASH, store) == 0
    again = batches.create(store, [WantedFile(ids[0])]).row.id
    shelf.run_jobs()
    assert (batches.get(store, again).status, shelf.found(ASH, store)) == ("completed", 1)
    with pytest.raises(NotFound):
        shelf.services.batches.for_tenant(shelf.contexts[ELM]).get(store, batch)
    with pytest.raises(InvalidInput):
        batches.create(store, [])


def test_a_file_is_refused_by_its_kind_and_tried_again_when_put_there_again(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_args: object) -> NoReturn:
        raise UnreadableDocument("It is damaged.")

    monkeypatch.setattr(shelf.reader, "read", fails)
    store, broken = shelf.store_of(ASH), shelf.file(ASH, b"\0\1\2" * 50)
    files = shelf.services.files.for_tenant(shelf.contexts[ASH])
    shown = files.attach(store, WantedFile(broken))
    assert (shown.status, shown.error and shown.error[0]) == ("failed", "unsupported_file")
    unreadable = shelf.file(ASH, b"%PDF-1.4 broken")
    files.attach(store, WantedFile(unreadable))
    shelf.run_jobs()
    shown = files.get(store, unreadable)
    assert (shown.status, shown.error and shown.error[0]) == ("failed", "invalid_file")
    assert [one.row.file_id for one in files.list(store, PageWish(), status="failed")[0]] == [unreadable, broken]
    assert files.attach(store, WantedFile(unreadable)).status == "in_progress"


def test_sizes_are_kept_to_as_far_as_the_window_reaches(shelf: Shelf) -> None:
    store, file = shelf.store_of(ASH), shelf.file(ASH)
    files = shelf.services.files.for_tenant(shelf.contexts[ASH])
    used = files.attach(store, WantedFile(file, sizes=(4096, 2048))).chunking
    standard = shelf.documents.collections.profiles.get("standard").chunking
    assert used.chunk_tokens + used.context_tokens <= 256
    assert used.chunk_tokens >= standard.chunk_tokens
    assert used.overlap_tokens == used.chunk_tokens // 2
    assert files.attach(store, WantedFile(file, sizes=(100, 7))).chunking == replace(
        standard, chunk_tokens=100, overlap_tokens=7
    )
    assert files.attach(store, WantedFile(file)).chunking == standard


def test_bounds_of_a_key_keep_it_from_files(shelf: Shelf) -> None:
    for bounds in ({"collections": frozenset({"vs_x"})}, {"labels": frozenset({"red"})}):
        context = replace(shelf.contexts[ASH], **bounds)
        for refused in (
            lambda context=context: shelf.services.uploads.for_tenant(context),
            lambda context=context: shelf.services.stores.for_tenant(context).create(StoreWish()),
        ):
            with pytest.raises(Forbidden):
                refused()


def test_too_many_waiting_files_are_refused(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(members, "MAX_WAITING", 1)
    files = [WantedFile(shelf.file(ASH)) for _ in range(2)]
    with pytest.raises(QueueFull):
        shelf.services.stores.for_tenant(shelf.contexts[ASH]).create(StoreWish(), files)
    assert shelf.all(ASH, VectorStore) == shelf.all(ASH, StoreFile) == shelf.all(ASH, FileBatch) == []
    shelf.store_of(ASH, files[0].file_id)
    assert [row.state for row in shelf.all(ASH, StoreFile)] == [BROUGHT]


def test_an_empty_budget_takes_no_file_into_a_store(shelf: Shelf) -> None:
    poor = shelf.registry.context_of_job(shelf.registry.create("poor", monthly_tokens=0).id, "test")
    upload = Upload("a.txt", "user_data", TEXT)
    file = shelf.services.uploads.for_tenant(poor).create(upload).id
    with pytest.raises(BudgetExhausted):
        shelf.services.stores.for_tenant(poor).create(StoreWish(), [WantedFile(file)])


def test_a_content_that_vanished_with_its_request_is_not_promised(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelf.blobs, "put", lambda _owner, _content: "ab" * 16 + "-" + "cd" * 32)
    with pytest.raises(Unavailable):
        shelf.file(ASH)
    assert shelf.all(ASH, StoredFile) == []
