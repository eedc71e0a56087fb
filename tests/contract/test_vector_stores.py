"""Every vector store keeps the same promises: memory, Edge, Edge behind its socket, Qdrant's client, a real Qdrant."""

from __future__ import annotations

import os
import socket
import time
import uuid
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from qdrant_client import QdrantClient

from rag.store import wire
from rag.store.base import InvalidPoint, Placement, Point, Search, Space, SparseVector, TenantVectors, VectorStore
from rag.store.conditions import AllOf, AnyOf, Between, Condition, NoneOf, OnlyOf, SomeOf, holds
from rag.store.memory import MemoryStore
from rag.store.qdrant import QdrantStore
from rag.store.remote import EngineClient
from rag.store.shards import EdgeStore
from tests.support import BuildsCopies, FakeScope, served_engine, wait_for

SPACE = Space("sp_contract", 4)
ALICE, BOB = FakeScope("ten_alice"), FakeScope("ten_bob")
X, Y = np.array([1, 0, 0, 0], np.float32), np.array([0, 1, 0, 0], np.float32)


@pytest.fixture(params=["memory", "edge", "engine", "qdrant-local", "qdrant-server"])
def plain(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[VectorStore]:
    """As it is made: every collection is placed with the others."""
    kind = request.param
    if kind == "memory":
        yield MemoryStore()
    elif kind == "edge":
        yield from _closing(EdgeStore(tmp_path / "vectors", BuildsCopies()))
    elif kind == "engine":
        with served_engine(tmp_path) as client:
            yield client
    elif kind == "qdrant-local":
        yield from _closing(QdrantStore(QdrantClient(":memory:"), indexes=False))
    elif url := os.environ.get("CARREL_TEST_QDRANT_URL"):
        QdrantClient(url=url).delete_collection(SPACE.id)
        keys = os.environ.get("CARREL_TEST_QDRANT_SHARD_KEYS") == "1"  # of a server in distributed mode
        yield from _closing(QdrantStore.connect(url, None, shard_keys=keys))
    else:
        pytest.skip("set CARREL_TEST_QDRANT_URL to a Qdrant server to run this")


@pytest.fixture(params=["shared", "dedicated"])
def store(request: pytest.FixtureRequest, plain: VectorStore) -> VectorStore:
    if request.param == "dedicated" and isinstance(plain, QdrantStore) and not plain.shard_keys:
        pytest.skip("the client's in-memory double has no shard keys; tests/contract/test_qdrant_wire.py has what is sent")
    return plain if request.param == "shared" else Placed(plain)


class Placed:
    """A store in which the collection `col` of each tenant is placed by itself as soon as there is a handle."""

    def __init__(self, store: VectorStore) -> None:
        self._store, self._seen = store, set[tuple[str, Space]]()
        self.tenants, self.health, self.close = store.tenants, store.health, store.close
        self.dedicated, self.crowded = store.dedicated, store.crowded

    def for_tenant(self, scope: FakeScope, space: Space) -> TenantVectors:
        vectors = self._store.for_tenant(scope, space)
        if (scope.tenant_id, space) not in self._seen:
            settle(vectors, "dedicated")
            self._seen.add((scope.tenant_id, space))
        return vectors


def settle(vectors: TenantVectors, placement: Placement, collection: str = "col") -> None:
    wait_for(lambda: vectors.place(collection, placement), what=f"{collection} to be {placement}")


def _closing(store: VectorStore) -> Iterator[VectorStore]:
    yield store
    store.close()


def point(vector: np.ndarray = X, **fields: object) -> Point:
    base = Point(str(uuid.uuid4()), "col", "doc", np.asarray(vector, np.float32))
    return replace(base, **fields)  # type: ignore[arg-type]


def search(vectors: TenantVectors, query: np.ndarray | SparseVector = X, **options: object) -> list[str]:
    request = Search(query, 10, ("col",))
    return [hit.id for hit in vectors.search([replace(request, **options)])[0]]  # type: ignore[arg-type]


def test_nearest_come_first_and_ties_are_ordered_by_id(store: VectorStore) -> None:
    vectors = store.for_tenant(ALICE, SPACE)
    near, same, far = point(X), point(X), point(Y)
    vectors.upsert([far, near, same])
    hits = vectors.search([Search(X, 10, ("col",))])[0]
    assert [hit.id for hit in hits] == [*sorted([near.id, same.id]), far.id]
    assert [round(hit.score, 5) for hit in hits] == [1.0, 1.0, 0.0]


def test_a_tenant_sees_only_its_own_points(store: VectorStore) -> None:
    alice, bob = store.for_tenant(ALICE, SPACE), store.for_tenant(BOB, SPACE)
    mine, theirs = point(), point()
    alice.upsert([mine])
    bob.upsert([theirs])
    assert search(alice) == [mine.id] == alice.ids()
    assert search(bob) == [theirs.id] == bob.ids()
    everything = SomeOf((NoneOf((AnyOf("labels", ("none",)),)), AllOf(())))
    assert search(alice, condition=everything) == [mine.id]


def test_vectors_are_given_back_to_their_tenant_alone(store: VectorStore) -> None:
    alice, bob = store.for_tenant(ALICE, SPACE), store.for_tenant(BOB, SPACE)
    mine, other, theirs = point([0.6, 0.8, 0, 0]), point(Y), point(X)
    alice.upsert([mine, other])
    bob.upsert([theirs])
    found = alice.vectors([mine.id, theirs.id, str(uuid.uuid4())])
    assert [*found] == [mine.id]
    assert found[mine.id].dtype == np.float32
    assert np.allclose(found[mine.id], mine.dense, atol=1e-6)
    assert alice.vectors([]) == {}
    with pytest.raises(InvalidPoint):
        alice.vectors([mine.id] * 2001)


def test_a_tenant_can_neither_replace_nor_delete_a_point_of_another(store: VectorStore) -> None:
    alice, bob = store.for_tenant(ALICE, SPACE), store.for_tenant(BOB, SPACE)
    mine = point(X)
    alice.upsert([mine])
    bob.upsert([replace(mine, dense=Y)])
    bob.delete_points([mine.id])
    bob.delete_document(mine.document)
    assert [round(hit.score) for hit in alice.search([Search(X, 10, ("col",))])[0]] == [1]
    assert bob.ids() == []


def test_an_upsert_of_the_same_id_replaces(store: VectorStore) -> None:
    vectors = store.for_tenant(ALICE, SPACE)
    first = point(X, labels=("a",))
    vectors.upsert([first])
    vectors.upsert([replace(first, dense=Y, labels=("b",))])
    assert vectors.ids() == [first.id]
    assert search(vectors, condition=AnyOf("labels", ("a",))) == []
    assert search(vectors, Y, condition=AnyOf("labels", ("b",))) == [first.id]


def test_legs_of_one_call_are_independent_and_sparse_finds_only_shared_terms(store: VectorStore) -> None:
    vectors = store.for_tenant(ALICE, SPACE)
    rare = point(X, sparse=SparseVector((3, 4_000_000_000), (1.0, 2.0)))
    plain = point(Y)
    vectors.upsert([rare, plain])
    dense, sparse, none = vectors.search(
        [
            Search(Y, 1, ("col",)),
            Search(SparseVector((4_000_000_000,), (0.5,)), 10, ("col",)),
            Search(SparseVector((7,), (1.0,)), 10, ("col",)),
        ]
    )
    assert [hit.id for hit in dense] == [plain.id]
    assert [(hit.id, round(hit.score, 5)) for hit in sparse] == [(rare.id, 1.0)]
    assert none == []


def test_collections_and_documents_are_kept_apart(store: VectorStore) -> None:
    vectors = store.for_tenant(ALICE, SPACE)
    here, there = point(collection="col", document="d1"), point(collection="other", document="d2")
    vectors.upsert([here, there])
    assert search(vectors) == [here.id]
    assert set(search(vectors, collections=("col", "other"))) == {here.id, there.id}
    assert vectors.ids("d2") == [there.id]
    vectors.delete_document("d2")
    assert vectors.ids() == [here.id]


def test_delete_points_passes_over_unknown_ids(store: VectorStore) -> None:
    vectors = store.for_tenant(ALICE, SPACE)
    kept, gone = point(), point()
    vectors.upsert([kept, gone])
    vectors.delete_points([gone.id, str(uuid.uuid4())])
    vectors.delete_points([])
    assert vectors.ids() == [kept.id]


def _bad_points() -> list[Point]:
    nan = np.array([np.nan, 0, 0, 0], np.float32)
    return [
        point(nan),
        point(np.array([np.inf, 0, 0, 0], np.float32)),
        point(np.zeros(3, np.float32)),
        point(sparse=SparseVector((1, 1), (1.0, 1.0))),
        point(sparse=SparseVector((1,), (float("nan"),))),
        point(numbers=((99, 1.0),)),
        point(numbers=((0, float("inf")),)),
    ]


@pytest.mark.parametrize("bad", range(len(_bad_points())))
def test_a_batch_with_one_bad_point_is_refused_whole(store: VectorStore, bad: int) -> None:
    vectors = store.for_tenant(ALICE, SPACE)
    with pytest.raises(InvalidPoint):
        vectors.upsert([point(), _bad_points()[bad]])
    assert vectors.ids() == []


@pytest.mark.parametrize("limit", [0, -1, 10**9])
def test_a_limit_outside_its_bounds_is_refused(store: VectorStore, limit: int) -> None:
    with pytest.raises(InvalidPoint):
        store.for_tenant(ALICE, SPACE).search([Search(X, limit, ("col",))])


def test_the_same_space_with_another_width_is_refused(store: VectorStore) -> None:
    store.for_tenant(ALICE, SPACE).upsert([point()])
    wide = replace(point(), dense=np.ones(5, np.float32))
    with pytest.raises(InvalidPoint):
        store.for_tenant(ALICE, SPACE).upsert([wide])


def _ids(count: int) -> list[str]:
    return sorted(str(uuid.uuid4()) for _ in range(count))


def test_pages_hold_every_own_point_once_by_id(store: VectorStore) -> None:
    alice, bob = store.for_tenant(ALICE, SPACE), store.for_tenant(BOB, SPACE)
    ids = _ids(25)
    alice.upsert([point(id=own, document=f"doc-{number % 3}") for number, own in enumerate(ids)])
    bob.upsert([point() for _ in range(5)])
    pages, after = [], None
    while page := alice.page(after, 10):
        pages.append(page)
        after = page[-1][0]
    assert [len(page) for page in pages] == [10, 10, 5]
    assert [row for page in pages for row in page] == [(own, f"doc-{number % 3}") for number, own in enumerate(ids)]
    assert alice.count() == 25
    assert bob.count() == len(bob.page(None, 100)) == 5


def test_a_page_goes_on_behind_a_point_that_is_gone(store: VectorStore) -> None:
    vectors = store.for_tenant(ALICE, SPACE)
    ids = _ids(4)
    vectors.upsert([point(id=own) for own in ids])
    vectors.delete_points([ids[1]])
    assert [row[0] for row in vectors.page(ids[1], 10)] == ids[2:]


def test_existing_tells_own_points_from_foreign_and_unknown_ones(store: VectorStore) -> None:
    alice, bob = store.for_tenant(ALICE, SPACE), store.for_tenant(BOB, SPACE)
    mine, theirs = point(), point()
    alice.upsert([mine])
    bob.upsert([theirs])
    asked = [mine.id, theirs.id, str(uuid.uuid4())]
    assert alice.existing(asked) == {mine.id}
    assert bob.existing(asked) == {theirs.id}
    assert alice.existing([]) == set()


def test_tenants_are_those_with_points(store: VectorStore) -> None:
    names = [f"ten_{letter}" for letter in "cab"]
    handles = [store.for_tenant(FakeScope(name), SPACE) for name in names]
    for handle in handles:
        handle.upsert([point(), point()])
    assert store.tenants(SPACE, None, 2) == ["ten_a", "ten_b"]
    assert store.tenants(SPACE, "ten_b", 2) == ["ten_c"]
    handles[0].delete_document("doc")
    assert store.tenants(SPACE, None, 10) == ["ten_a", "ten_b"]
    assert store.tenants(Space("sp_unknown", 4), None, 10) == []
    assert "sp_unknown" not in store.health().spaces


@pytest.mark.parametrize("limit", [0, 10**6])
def test_what_has_no_bound_is_refused(store: VectorStore, limit: int) -> None:
    vectors = store.for_tenant(ALICE, SPACE)
    with pytest.raises(InvalidPoint):
        vectors.page(None, limit)
    with pytest.raises(InvalidPoint):
        store.tenants(SPACE, None, limit)
    with pytest.raises(InvalidPoint):
        vectors.existing(["6c7a4f2e-8a53-5d0b-9a5e-4d2f3f1c9b10"] * 3000)


def test_health_counts_points(store: VectorStore) -> None:
    store.for_tenant(ALICE, SPACE).upsert([point(), point()])
    health = store.health()
    assert health.ok
    assert health.spaces[SPACE.id] == 2


VALUES = st.sampled_from(["a", "b", "c"])
LEAVES = st.one_of(
    st.builds(AnyOf, st.sampled_from(["labels", "terms"]), st.lists(VALUES, max_size=3).map(tuple)),
    st.builds(OnlyOf, st.just("labels"), st.lists(VALUES, max_size=3).map(tuple)),
    st.builds(lambda slot, gte, lt: Between(slot, gte=gte, lt=lt), st.integers(0, 1), st.floats(0, 3), st.floats(0, 3)),
)
TREES: st.SearchStrategy[Condition] = st.recursive(
    LEAVES,
    lambda inner: st.one_of(*(st.builds(group, st.lists(inner, max_size=3).map(tuple)) for group in (AllOf, SomeOf, NoneOf))),
    max_leaves=6,
)
FIELDS = st.tuples(
    st.lists(VALUES, unique=True, max_size=3), st.lists(VALUES, unique=True, max_size=3), st.none() | st.integers(0, 3)
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(FIELDS, min_size=1, max_size=8), tree=TREES)
def test_any_condition_means_what_it_means_in_plain_python(store: VectorStore, rows: list, tree: Condition) -> None:
    """And never reaches the other tenant's points, which have every combination of fields as well."""
    points = [
        point(labels=tuple(labels), terms=tuple(terms), numbers=() if number is None else ((0, float(number)),))
        for labels, terms, number in rows
    ]
    vectors = store.for_tenant(ALICE, SPACE)
    vectors.delete_points(vectors.ids())
    vectors.upsert(points)
    store.for_tenant(BOB, SPACE).upsert([replace(p, id=str(uuid.uuid4())) for p in points])
    expected = {
        p.id for p in points if holds(tree, {"labels": p.labels, "terms": p.terms, "collection": ("col",)}, dict(p.numbers))
    }
    with warnings.catch_warnings():
        assert set(search(vectors, condition=tree)) == expected


def test_a_collection_goes_there_and_back_with_every_answer(plain: VectorStore) -> None:
    if isinstance(plain, QdrantStore):
        pytest.skip("a Qdrant server knows no way back, and the client's double no way there")
    alice, bob = plain.for_tenant(ALICE, SPACE), plain.for_tenant(BOB, SPACE)
    alice.upsert(
        [point(X * n + Y * (n * 67 % 151), document=f"d{n % 5}", collection=("col", "other")[n % 2]) for n in range(150)]
    )
    bob.upsert([point(X * n + Y * (n * 7 % 21)) for n in range(20)])

    def answers() -> list[object]:
        asked = [Search(X, 20, ("col", "other")), Search(Y, 200, ("col",)), Search(X, 7, ("other",))]
        return [
            (one.search(asked), one.ids(), one.ids("d1"), one.page(None, 33), one.page(one.ids()[9], 33), one.count())
            for one in (alice, bob)
        ]

    before = answers()
    for placement in ("dedicated", "dedicated", "shared", "shared", "dedicated"):
        settle(alice, placement)
        assert answers() == before
        assert plain.health().spaces[SPACE.id] == 170
        apart = [(one.tenant, one.collection, one.points) for one in plain.dedicated(SPACE)]
        assert apart == ([(ALICE.tenant_id, "col", 75)] if placement == "dedicated" else [])
        crowded = plain.crowded(SPACE, 60)
        assert set(crowded) == ({"other"} if placement == "dedicated" else {"col", "other"})
    alice.delete_document("d1")
    settle(alice, "shared")
    assert alice.ids("d1") == []
    assert alice.count() == 120
    assert bob.count() == 20


def test_a_placement_or_a_collection_that_is_none_is_refused(plain: VectorStore) -> None:
    vectors = plain.for_tenant(ALICE, SPACE)
    with pytest.raises(InvalidPoint):
        vectors.place("col", "elsewhere")  # type: ignore[arg-type]
    with pytest.raises(InvalidPoint):
        vectors.place("", "dedicated")


def test_what_was_acknowledged_is_there_after_opening_again(tmp_path: Path) -> None:
    written = [point() for _ in range(50)]
    with served_engine(tmp_path) as first:
        first.for_tenant(ALICE, SPACE).upsert(written)
    with served_engine(tmp_path) as second:
        assert second.for_tenant(ALICE, SPACE).ids() == sorted(p.id for p in written)
        assert second.for_tenant(BOB, SPACE).ids() == []


def test_a_frame_without_a_tenant_is_refused(tmp_path: Path) -> None:
    with served_engine(tmp_path) as client:
        nobody = client.for_tenant(FakeScope(""), SPACE)
        with pytest.raises(InvalidPoint, match="without a tenant"):
            nobody.ids()


def test_a_write_that_its_caller_gave_up_is_not_carried_out_later(tmp_path: Path) -> None:
    with served_engine(tmp_path) as client:
        header = {"op": "delete_document", "document": "doc", "tenant": ALICE.tenant_id, "space": SPACE.id}
        client.for_tenant(ALICE, SPACE).upsert([point()])
        late = wire.encode({**header, "dimensions": 4, "protocol": wire.PROTOCOL, "expires": time.monotonic() - 1})
        with socket.socket(socket.AF_UNIX) as raw:
            raw.settimeout(5)
            raw.connect(str(tmp_path / "e.sock"))
            raw.sendall(late)
            assert b"gave this write up" in raw.recv(4096)
        assert len(client.for_tenant(ALICE, SPACE).ids()) == 1


def test_a_restarted_engine_is_asked_again_at_once(tmp_path: Path) -> None:
    with served_engine(tmp_path) as first:
        first.for_tenant(ALICE, SPACE).upsert([point()])
        survivor = EngineClient(tmp_path / "e.sock", patience_s=0, timeout_s=5)
        assert survivor.health().ok
    with served_engine(tmp_path) as second:
        second.for_tenant(ALICE, SPACE).ids()  # waits until it listens
        assert survivor.health().ok  # its pooled connection belonged to the engine before
    survivor.close()


def test_garbage_on_the_socket_ends_that_connection_only(tmp_path: Path) -> None:
    with served_engine(tmp_path) as client:
        vectors = client.for_tenant(ALICE, SPACE)
        vectors.upsert([point()])
        for garbage in (b"\xff" * 64, b"\x05\0\0\0\0\0\0\0{nope", b"\x02\0\0\0\0\0\0\0[]"):
            with socket.socket(socket.AF_UNIX) as raw:
                raw.settimeout(5)
                raw.connect(str(tmp_path / "e.sock"))
                raw.sendall(garbage)
                assert raw.recv(1) == b""
        assert len(vectors.ids()) == 1
