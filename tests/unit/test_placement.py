"""What SQL wishes and what the store has are brought together: by choice, by size, and after rows are gone."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from config.database import Database
from config.errors import NotFound
from ingestion.placement import Placements, Placer
from rag.corpus import Collection
from rag.store.base import InvalidPoint, Point
from rag.store.memory import MemoryStore, MemoryVectors
from tests.support import FakeScope
from tests.world import TENANTS, World

MINE, OTHERS = TENANTS
LIMIT = 10


@pytest.fixture
def world(database: Database, tmp_path: Path) -> Iterator[World]:
    world = World(database, MemoryStore(), tmp_path)
    for name in TENANTS:
        world.documents.collections.for_tenant(world.contexts[name]).create("shelves")
    yield world
    world.close()


def _id(world: World, name: str) -> str:
    return next(row.id for row in world.all(name, Collection) if row.name == "shelves")


def _fill(world: World, name: str, count: int) -> None:
    vector = np.ones(world.embedding.space.dimensions, np.float32)
    vectors = world.vectors(name)
    vectors.delete_points(vectors.ids())
    vectors.upsert([Point(str(uuid.uuid4()), _id(world, name), "doc", vector) for _ in range(count)])


def _placer(world: World, points: int = LIMIT) -> Placer:
    return Placer(world.database, world.store, world.embedding.space, dedicated_points=points)


def _placements(world: World) -> Placements:
    return Placements(world.database, world.documents.collections, world.store, world.embedding.space)


def _apart(world: World) -> set[str]:
    return {one.collection for one in world.store.dedicated(world.embedding.space)}


def test_a_collection_is_placed_by_its_size(world: World) -> None:
    placer, mine = _placer(world), _id(world, MINE)
    for points, apart in ((9, False), (10, True), (6, True), (5, True), (4, False), (9, False), (10, True), (0, False)):
        _fill(world, MINE, points)
        _fill(world, OTHERS, 9)
        placer.run_once()
        assert _apart(world) == ({mine} if apart else set())
        shown = _placements(world).show(world.contexts[MINE], "shelves")
        assert (shown.collection.placement == "dedicated", shown.settled) == (apart, True)


def test_with_a_limit_of_0_only_choices_count(world: World) -> None:
    _fill(world, MINE, 1000)
    _placements(world).choose(world.contexts[OTHERS], "shelves", "dedicated")
    _placer(world, 0).run_once()
    assert _apart(world) == {_id(world, OTHERS)}


def test_a_choice_stays_until_it_is_taken_back(world: World) -> None:
    placements, placer = _placements(world), _placer(world)
    context, mine = world.contexts[MINE], _id(world, MINE)
    _fill(world, MINE, 1000)
    assert placements.choose(context, "shelves", "shared").settled
    placer.run_once()
    assert _apart(world) == set()
    placements.choose(context, "shelves", "auto")
    placer.run_once()
    assert _apart(world) == {mine}
    _fill(world, MINE, 1)
    placed = placements.choose(context, "shelves", "dedicated")
    assert (placed.settled, placed.points) == (True, 1)
    placer.run_once()
    assert _apart(world) == {mine}
    assert not placements.choose(context, "shelves", "shared").settled
    placer.run_once()
    assert _apart(world) == set()


def test_a_collection_of_another_tenant_is_not_there(world: World) -> None:
    world.documents.collections.for_tenant(world.contexts[MINE]).create("mine")
    for call in (_placements(world).show, lambda context, name: _placements(world).choose(context, name, "dedicated")):
        with pytest.raises(NotFound):
            call(world.contexts[OTHERS], "mine")
    _placer(world).run_once()
    assert _apart(world) == set()


def test_what_sql_does_not_know_is_put_back(world: World) -> None:
    world.store.for_tenant(FakeScope("gone"), world.embedding.space).place("col_gone", "dedicated")
    _placer(world).run_once()
    assert _apart(world) == set()


def test_a_refusal_holds_up_no_other(world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """As of an engine that has all the shards it may have."""
    refused, place = _id(world, MINE), MemoryVectors.place
    for name in TENANTS:
        _placements(world).choose(world.contexts[name], "shelves", "dedicated")

    def full(self: MemoryVectors, collection: str, placement: str) -> bool:
        if collection == refused:
            raise InvalidPoint("full")
        return place(self, collection, placement)  # type: ignore[arg-type]

    monkeypatch.setattr(MemoryVectors, "place", full)
    with caplog.at_level(logging.WARNING):
        _placer(world).run_once()
    assert _apart(world) == {_id(world, OTHERS)}
    assert "cannot be placed" in caplog.text
