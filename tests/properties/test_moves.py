"""Between any two steps of a move, whatever is written or deleted: every answer is that of a store that never moved anything;
and so it is after a death there, which leaves the files as they are."""

from __future__ import annotations

import random
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from rag.store import files, moves
from rag.store.base import Point, Search, Space, SparseVector
from rag.store.edge import Layout
from rag.store.memory import MemoryStore
from rag.store.moves import Step
from rag.store.shards import EdgeStore
from tests.support import BuildsCopies, FakeScope

SPACE = Space("sp_moves", 8)
ASH, ELM = FakeScope("ash"), FakeScope("elm")
COLLECTIONS = ("one", "two")


class Twins:
    """An Edge store and a memory store that are told the same."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.edge, self.memory, self.chance = EdgeStore(folder, BuildsCopies()), MemoryStore(), random.Random(seed)
        self.values = np.random.default_rng(seed)

    def both(self, scope: FakeScope) -> list:  # type: ignore[type-arg]
        return [self.edge.for_tenant(scope, SPACE), self.memory.for_tenant(scope, SPACE)]

    def point(self, scope: FakeScope) -> Point:
        number, collection = self.chance.randrange(400), self.chance.choice(COLLECTIONS)
        point_id = str(uuid.uuid5(uuid.NAMESPACE_URL, f"{scope.tenant_id} {collection} {number}"))
        return Point(point_id, collection, f"{collection}-{number % 20}", self.values.standard_normal(8).astype(np.float32))

    def disturb(self) -> None:
        for scope in (ASH, ELM):
            points = [self.point(scope) for _ in range(5)]
            ids = self.chance.sample(self.both(scope)[1].ids() or ["none"], 1) + [self.point(scope).id for _ in range(5)]
            document = self.point(scope).document
            for vectors in self.both(scope):
                vectors.upsert(points)
                vectors.delete_points([one for one in ids if one != "none"])
                if document.endswith("-7"):
                    vectors.delete_document(document)

    def compare(self, edge: EdgeStore | None = None) -> None:
        query = self.values.standard_normal(8).astype(np.float32)
        for scope in (ASH, ELM):
            found, expected = (edge or self.edge).for_tenant(scope, SPACE), self.memory.for_tenant(scope, SPACE)
            assert found.ids() == expected.ids()
            assert found.page(None, 50) == expected.page(None, 50)
            assert found.count() == expected.count()
            for collections in (("one",), ("two",), COLLECTIONS):
                pair = [each.search([Search(query, 30, collections)])[0] for each in (found, expected)]
                assert [hit.id for hit in pair[0]] == [hit.id for hit in pair[1]]
        total = sum(self.memory.for_tenant(scope, SPACE).count() for scope in (ASH, ELM))
        assert (edge or self.edge).health().spaces[SPACE.id] == total

    def after_a_death(self, folder: Path) -> None:
        """What a process finds that starts on a copy of the files."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for path in self.edge.folder.iterdir():
            files.copy_folder(path, folder / path.name)
            if (path / files.HOME_FILE).exists():
                shutil.copy(path / files.HOME_FILE, folder / path.name)
        again = EdgeStore(folder)
        try:
            self.compare(again)
        finally:
            again.close()


def _shard(twins: Twins, collection: str) -> Iterator[Step]:
    shards = {home.collection: shard for shard, home in twins.edge.homes()}
    return moves.rebuild(twins.edge, shards[collection], Layout(graph=bool(collection)))


MOVES: list[Callable[[Twins], Iterator[Step]]] = [
    lambda twins: moves.place(twins.edge, "ash", SPACE, "one", "dedicated"),
    lambda twins: moves.place(twins.edge, "elm", SPACE, "two", "dedicated"),
    lambda twins: _shard(twins, "one"),
    lambda twins: _shard(twins, ""),
    lambda twins: moves.place(twins.edge, "ash", SPACE, "one", "shared"),
    lambda twins: moves.place(twins.edge, "ash", SPACE, "one", "dedicated"),
]


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.full) for seed in range(2, 12))])
def test_no_answer_changes_while_points_move(tmp_path: Path, seed: int) -> None:
    twins = Twins(tmp_path / "vectors", seed)
    for _ in range(25):
        twins.disturb()
    steps = 0
    for move in MOVES:
        for step in move(twins):
            if not step.frozen:
                twins.disturb()
                twins.compare()
                if seed > 1 or steps % 12 == 0:
                    twins.after_a_death(tmp_path / "dead")
            step.run()
            twins.compare()
            steps += 1
        twins.after_a_death(tmp_path / "dead")
        for path in twins.edge.close_retired():
            shutil.rmtree(path)
    assert steps > len(MOVES) * 3
    twins.edge.close()


def test_a_move_that_is_given_up_leaves_what_was(tmp_path: Path) -> None:
    twins = Twins(tmp_path / "vectors", 3)
    for _ in range(25):
        twins.disturb()
    for move in MOVES:
        for stop_after in (1, 3):
            steps = move(twins)
            for _ in range(stop_after):
                if (step := next(steps, None)) is not None:
                    step.run()
                    twins.disturb()
            steps.close()  # type: ignore[attr-defined]
            twins.compare()
        for step in move(twins):
            step.run()
        twins.compare()
    for path in twins.edge.close_retired():
        shutil.rmtree(path, ignore_errors=True)
    assert len([*twins.edge.folder.iterdir()]) == len(twins.edge.homes())
    twins.edge.close()


def test_what_a_graph_leads_to_is_told_without_sparse_vectors(tmp_path: Path) -> None:
    """Else points that came after the graph would seem to be in it, and it would never be built anew."""
    wide, chance = Space("sp_graph", 128), np.random.default_rng(1)

    def points(collection: str, count: int) -> list[Point]:
        values = chance.standard_normal((count, wide.dimensions)).astype(np.float32)
        sparse = SparseVector((1, 2), (1.0, 0.5))
        return [Point(str(uuid.uuid4()), collection, "doc", value, sparse=sparse) for value in values]

    store = EdgeStore(tmp_path / "edge", BuildsCopies())
    vectors = store.for_tenant(ASH, wide)
    vectors.upsert(points("one", 500))
    store.for_tenant(ELM, wide).upsert(points("two", 50))
    vectors.place("one", "dedicated")
    assert [(one.points, one.indexed) for one in store.dedicated(wide)] == [(500, 0)]
    for step in moves.rebuild(store, store.dedicated_of(ASH.tenant_id, wide)["one"], Layout(graph=True)):
        step.run()
    assert [(one.points, one.indexed) for one in store.dedicated(wide)] == [(500, 500)]
    vectors.upsert(points("one", 200))
    assert [(one.points, one.indexed) for one in store.dedicated(wide)] == [(700, 500)]
    store.close()
