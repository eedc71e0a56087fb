"""Files and vector stores where two do something at once, one dies in between, or the other database counts otherwise."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from config.database import Database
from config.errors import NotFound, Unavailable
from ingestion.intake.bulk import TenantBulk
from ingestion.stores import files, members, upkeep
from ingestion.stores.parts import DAY_MS
from ingestion.stores.settling import Settling
from ingestion.stores.tables import WAITING, StoredFile, StoreFile, VectorStore
from rag.corpus import Document
from rag.store.memory import MemoryStore
from tenants.context import TenantContext
from tests.unit.test_stores import Shelf
from tests.world import TENANTS

ASH, ELM = TENANTS


@pytest.fixture
def shelf(database: Database, tmp_path: Path) -> Iterator[Shelf]:
    shelf = Shelf(database, MemoryStore(), tmp_path)
    yield shelf
    shelf.close()


def test_a_store_may_live_longer_than_32_bits_of_milliseconds(shelf: Shelf) -> None:
    stores = {name: shelf.store_of(name, shelf.file(name), expires_days=365) for name in TENANTS}
    shelf.keep_house()
    assert [shelf.found(name, stores[name]) for name in TENANTS] == [1, 1]


def test_a_death_between_two_stores_of_one_file_loses_neither(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    file, theirs = shelf.file(ASH), shelf.store_of(ELM, shelf.file(ELM))
    with monkeypatch.context() as quiet:
        quiet.setattr(Settling, "bring", lambda *_arguments, **_named: None)
        stores = [shelf.store_of(ASH, file) for _ in range(2)]
    take, taken = TenantBulk.take, list[int]()

    def dying(self: TenantBulk, *arguments: Any, **named: Any) -> Any:
        taken.append(1)
        if len(taken) == 2:
            raise KeyboardInterrupt
        return take(self, *arguments, **named)

    with monkeypatch.context() as death:
        death.setattr(TenantBulk, "take", dying)
        with pytest.raises(KeyboardInterrupt):
            Settling(shelf.store_parts).bring(shelf.contexts[ASH])
    assert sorted(row.state for row in shelf.all(ASH, StoreFile)).count(WAITING) == 1
    shelf.keep_house()
    assert [shelf.found(ASH, store) for store in stores] == [1, 1]
    assert shelf.found(ELM, theirs) == 1


def test_a_file_that_is_deleted_while_it_changes_in_a_store_is_gone(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    file = {name: shelf.file(name) for name in TENANTS}
    store = {name: shelf.store_of(name, file[name]) for name in TENANTS}
    handle = shelf.services.uploads.for_tenant(shelf.contexts[ASH])
    deleting = threading.Thread(target=handle.delete, args=[file[ASH]])
    check = members.check_attributes

    def meanwhile(given: Any) -> Any:
        deleting.start()
        deleting.join(0.3)
        return check(given)

    monkeypatch.setattr(members, "check_attributes", meanwhile)
    with suppress(NotFound):
        shelf.services.files.for_tenant(shelf.contexts[ASH]).update(store[ASH], file[ASH], {"shelf": "a"})
    deleting.join(20)
    shelf.keep_house()
    assert (shelf.all(ASH, StoredFile), shelf.all(ASH, StoreFile), shelf.vectors(ASH).ids()) == ([], [], [])
    assert (shelf.found(ASH, store[ASH]), shelf.found(ELM, store[ELM])) == (0, 1)


def test_one_of_two_who_delete_a_file_does_it(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    file, other = shelf.file(ASH), shelf.file(ELM)
    give_up, both, told = files.give_up, threading.Barrier(2), list[str]()

    def at_once(*arguments: Any) -> None:
        with suppress(threading.BrokenBarrierError):
            both.wait(0.3)
        give_up(*arguments)

    def delete() -> None:
        try:
            shelf.services.uploads.for_tenant(shelf.contexts[ASH]).delete(file)
            told.append("done")
        except NotFound:
            told.append("not found")

    monkeypatch.setattr(files, "give_up", at_once)
    threads = [threading.Thread(target=delete) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(told) == ["done", "not found"]
    assert shelf.bytes_of(ASH) == 0
    assert [row.id for row in shelf.all(ELM, StoredFile) if row.deleted_at is None] == [other]


def test_tenants_who_are_stuck_keep_no_other_waiting(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    stuck, waits = sorted(TENANTS, key=lambda name: shelf.contexts[name].tenant_id)
    with monkeypatch.context() as quiet:
        quiet.setattr(Settling, "bring", lambda *_arguments, **_named: None)
        stores = {name: shelf.store_of(name, shelf.file(name)) for name in TENANTS}
    settle = Settling.settle

    def refused(self: Settling, context: TenantContext, **named: Any) -> None:
        if context.tenant_id == shelf.contexts[stuck].tenant_id:
            raise Unavailable("not for this one")
        settle(self, context, **named)

    monkeypatch.setattr(Settling, "settle", refused)
    monkeypatch.setattr(upkeep, "TENANTS", 1)
    shelf.keep_house()
    assert (shelf.found(stuck, stores[stuck]), shelf.found(waits, stores[waits])) == (0, 1)


@pytest.mark.parametrize("which", ["brought before", "brought after"])
def test_a_file_that_is_brought_while_an_expired_store_is_cleared_leaves_no_document(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch, which: str
) -> None:
    with monkeypatch.context() as quiet:
        quiet.setattr(Settling, "bring", lambda *_arguments, **_named: None)
        stores = {name: shelf.store_of(name, shelf.file(name), expires_days=1 if name == ASH else 9) for name in TENANTS}
    shelf.clock.now += 2 * DAY_MS
    settling, context = Settling(shelf.store_parts), shelf.contexts[ASH]
    clear, keep, cleared = Settling._clear, TenantBulk._keep_all, list[str]()

    def clear_late(self: Settling, *arguments: Any) -> None:
        if not cleared:
            cleared.append("once")
            settling.bring(context)
        clear(self, *arguments)

    def bring_late(self: TenantBulk, *arguments: Any) -> Any:
        if not cleared and self._context.tenant_id == context.tenant_id:
            cleared.append("once")
            settling._empty_stores(context)
        return keep(self, *arguments)

    if which == "brought before":
        monkeypatch.setattr(Settling, "_clear", clear_late)
        settling._empty_stores(context)
    else:
        monkeypatch.setattr(TenantBulk, "_keep_all", bring_late)
        settling.bring(context)
    assert cleared
    shelf.keep_house()
    [row] = shelf.all(ASH, VectorStore)
    assert row.cleared_at is not None
    assert ([one for one in shelf.all(ASH, Document) if one.deleted_at is None], shelf.all(ASH, StoreFile)) == ([], [])
    assert (shelf.vectors(ASH).ids(), shelf.found(ELM, stores[ELM])) == ([], 1)
