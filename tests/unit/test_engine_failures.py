"""What an engine does whose disk is full, or whose caller has gone: nothing is lost, and it goes on by itself."""

from __future__ import annotations

import asyncio
import errno
import shutil
import uuid
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from config.errors import EngineUnavailable
from rag.store import engine, files
from rag.store.base import Placement, Point, Space
from rag.store.edge import SLOTS_FILE, Shard
from rag.store.engine import EngineServer
from rag.store.files import CONFIG_FILE
from rag.store.remote import EngineClient
from rag.store.shards import EdgeStore
from rag.store.upkeep import Rules, Upkeep
from tests.support import BuildsCopies, FakeScope, served_engine

SPACE = Space("sp_failures", 4)
ASH, ELM = FakeScope("ash"), FakeScope("elm")


def _fill(store: EdgeStore | EngineClient) -> None:
    for scope in (ASH, ELM):
        ids = (str(uuid.uuid5(uuid.NAMESPACE_URL, f"{scope.tenant_id} {number}")) for number in range(60))
        store.for_tenant(scope, SPACE).upsert([Point(one, "col", "doc", np.ones(4, np.float32)) for one in ids])


def _full(*_arguments: object, **_named: object) -> None:
    raise OSError(errno.ENOSPC, "no space left on device")


async def _until(done: object) -> None:
    for _ in range(500):
        if done():  # type: ignore[operator]
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come to that")


@pytest.mark.parametrize("placement", ["dedicated", "shared"])
def test_a_move_that_finds_the_disk_full_takes_no_points_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, placement: Placement
) -> None:
    store = EdgeStore(tmp_path / "vectors", BuildsCopies())
    _fill(store)
    if placement == "shared":
        store.for_tenant(ASH, SPACE).place("col", "dedicated")
    with monkeypatch.context() as broken:
        broken.setattr(files, "establish" if placement == "dedicated" else "disestablish", _full)
        with pytest.raises(OSError, match="no space"):
            store.for_tenant(ASH, SPACE).place("col", placement)

    async def look_after() -> None:
        upkeep = Upkeep(store, Rules(idle_s=0.01))
        task = asyncio.create_task(upkeep.run())
        await asyncio.sleep(0.1)
        task.cancel()

    asyncio.run(look_after())
    assert [store.for_tenant(scope, SPACE).count() for scope in (ASH, ELM)] == [60, 60]
    assert store.for_tenant(ASH, SPACE).place("col", placement)
    store.close()
    again = EdgeStore(tmp_path / "vectors", BuildsCopies())
    assert [again.for_tenant(scope, SPACE).count() for scope in (ASH, ELM)] == [60, 60]
    again.close()


@pytest.mark.parametrize("placement", ["dedicated", "shared"])
def test_after_a_move_that_was_not_synced_a_start_finds_what_was_written_since(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, placement: Placement
) -> None:
    store, sync = EdgeStore(tmp_path / "vectors", BuildsCopies()), files.sync_files
    _fill(store)
    if placement == "shared":
        store.for_tenant(ASH, SPACE).place("col", "dedicated")

    def broken_for_folders(paths: Iterable[Path]) -> None:
        paths = [*paths]
        if any((path / CONFIG_FILE).exists() for path in paths):
            _full()
        sync(paths)

    with monkeypatch.context() as broken:
        broken.setattr(files, "sync_files", broken_for_folders)
        with pytest.raises(OSError, match="no space"):
            store.for_tenant(ASH, SPACE).place("col", placement)
    store.for_tenant(ASH, SPACE).upsert([Point(str(uuid.uuid4()), "col", "new", np.ones(4, np.float32))])
    assert [store.for_tenant(scope, SPACE).count() for scope in (ASH, ELM)] == [61, 60]
    shutil.copytree(tmp_path / "vectors", tmp_path / "after", copy_function=files._copy_data)  # with the holes of its files
    started = EdgeStore(tmp_path / "after", BuildsCopies())
    assert [started.for_tenant(scope, SPACE).count() for scope in (ASH, ELM)] == [61, 60]
    started.close()
    store.close()


def test_upkeep_goes_on_after_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = EdgeStore(tmp_path / "vectors", BuildsCopies())
    _fill(store)

    async def look_after() -> None:
        upkeep = Upkeep(store, Rules(idle_s=0.01))
        task = asyncio.create_task(upkeep.run())
        with monkeypatch.context() as broken:
            broken.setattr(Shard, "flush", _full)
            upkeep.place(ASH.tenant_id, SPACE, "col", "dedicated")
            await _until(lambda: store.dedicated_of(ASH.tenant_id, SPACE))
            upkeep.place(ASH.tenant_id, SPACE, "col", "shared")  # its shard is closed then, which writes to the disk
            await _until(lambda: not store.dedicated_of(ASH.tenant_id, SPACE) and not store.retired())
        upkeep.place(ASH.tenant_id, SPACE, "col", "dedicated")
        await _until(lambda: store.dedicated_of(ASH.tenant_id, SPACE))
        assert not task.done()
        task.cancel()

    asyncio.run(look_after())
    assert [store.for_tenant(scope, SPACE).count() for scope in (ASH, ELM)] == [60, 60]
    store.close()


def test_segments_that_could_not_be_written_are_written_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "IDLE_FLUSH_S", 0.01)
    store, stop, tried = EdgeStore(tmp_path / "vectors", BuildsCopies()), asyncio.Event(), [0]

    def flush() -> None:
        tried[0] += 1
        if tried[0] == 1:
            _full()

    monkeypatch.setattr(store, "flush", flush)

    async def serve() -> None:
        server = EngineServer(store)
        served = asyncio.create_task(server.serve(tmp_path / "e.sock", stop))
        server._written = True
        await _until(lambda: tried[0] >= 2)
        stop.set()
        await served

    asyncio.run(serve())


@pytest.mark.parametrize("left", [b"", b"\0\0"])
def test_a_shard_opens_whose_last_figures_were_cut_off(tmp_path: Path, left: bytes) -> None:
    store = EdgeStore(tmp_path / "vectors", BuildsCopies())
    _fill(store)
    path = store.shared(SPACE).path
    store.close()
    (path / SLOTS_FILE).write_bytes(left)
    again = EdgeStore(tmp_path / "vectors", BuildsCopies())
    assert [again.for_tenant(scope, SPACE).count() for scope in (ASH, ELM)] == [60, 60]
    assert again.shared(SPACE).slots == 120
    again.close()


def test_a_write_for_which_there_was_no_time_can_be_tried_again(tmp_path: Path) -> None:
    with served_engine(tmp_path) as client:
        _fill(client)
        hurried = EngineClient(tmp_path / "e.sock", patience_s=0, timeout_s=5)
        with pytest.MonkeyPatch.context() as late:  # as if it had waited for a connection, and its frame with it
            late.setattr(hurried, "_timeout_s", -1.0)
            late.setattr(hurried, "_connect", client._connect)
            late.setattr(hurried._idle, "get", lambda timeout: None)
            with pytest.raises(EngineUnavailable):
                hurried.for_tenant(ASH, SPACE).delete_document("doc")
        hurried.close()
        assert [client.for_tenant(scope, SPACE).count() for scope in (ASH, ELM)] == [60, 60]
