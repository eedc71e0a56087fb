"""With a document its vectors leave the embedding cache, whenever it is deleted; an edit alone takes none away."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from config.database import Database
from rag.corpus import Document, FormerText
from rag.embedding.cache import DiskVectorCache
from rag.store.memory import MemoryStore
from tests.world import World, text_of


@pytest.fixture
def world(sql_url: str, tmp_path: Path) -> Iterator[World]:
    database = Database(sql_url)
    world = World(database, MemoryStore(), tmp_path, cache=DiskVectorCache(tmp_path / "cache", max_bytes=1 << 24))
    yield world
    world.close()
    database.close()


def held(world: World, name: str) -> int:
    return world.cache.stats(world.contexts[name]).vectors


def test_what_an_edit_removed_is_kept_for_taking_it_back_and_goes_with_the_document(world: World) -> None:
    for name in ("ash", "elm"):
        for number in (1, 2, 1):  # the third is the first again
            world.bring(name, "one", text_of(name, number, 4))
            world.run_jobs()
            world.bring(name, "other", text_of(name, 9, 2))
            world.run_jobs()
    before = held(world, "ash")
    assert before > 2
    assert world.all("ash", FormerText) != []
    elm = held(world, "elm")
    world.of("ash").delete(_document(world, "ash", "one").id)
    world.run_jobs()
    left = held(world, "ash")
    assert 0 < left < before
    assert world.all("ash", FormerText) == []
    world.of("ash").delete(_document(world, "ash", "other").id)
    world.run_jobs()
    assert held(world, "ash") == 0
    assert held(world, "elm") == elm > 0


def _document(world: World, name: str, external_id: str) -> Any:
    return next(row for row in world.all(name, Document) if row.external_id == external_id)


def test_what_is_embedded_while_its_document_is_deleted_is_not_kept(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    document = world.bring("ash", "one", text_of("ash", 1, 3))
    embed = world.embedding.embed_batch

    def deleted_meanwhile(*given: Any, **named: Any) -> Any:
        embedded = embed(*given, **named)
        monkeypatch.undo()
        world.of("ash").delete(document)
        with world.database.read(world.contexts["ash"]) as session:
            collection = session.get_one(Document, document).collection_id
        world.collector.collect(world.contexts["ash"], collection, document, None)
        assert held(world, "ash") == 0
        world.cache.put(world.contexts["ash"], world.embedding.space, dict(zip(given[2], embedded.vectors, strict=True)))
        return embedded

    monkeypatch.setattr(world.embedding, "embed_batch", deleted_meanwhile)
    world.run_jobs()
    assert held(world, "ash") == 0
