"""What the Qdrant adapter sends over HTTP, and what it makes of failures: against a stub that records and misbehaves.

The stub is no Qdrant: it proves our side of the wire only. The contract suite runs against a real server where there is one.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest

from config.errors import EngineUnavailable
from rag.store.base import Dedicated, InvalidPoint, Point, Search, Space
from rag.store.conditions import KEYWORD_FIELDS, NUMBER_SLOTS, AnyOf
from rag.store.qdrant import QdrantStore
from tests.support import FakeScope

SPACE = Space("sp_wire", 2)
X = np.array([1, 0], np.float32)
POINT = Point("6c7a4f2e-8a53-5d0b-9a5e-4d2f3f1c9b10", "col", "doc", X, labels=("board",))


HNSW = {"m": 0, "ef_construct": 100, "full_scan_threshold": 10_000}
OPTIMIZER = {"deleted_threshold": 0.2, "vacuum_min_vector_number": 1_000, "default_segment_number": 0, "flush_interval_sec": 5}
CONFIG = {"params": {}, "hnsw_config": HNSW, "optimizer_config": OPTIMIZER}


def described(*indexed: str) -> dict[str, Any]:
    """A collection with indexes of these fields."""
    schema = {name: {"data_type": "keyword", "points": 0} for name in indexed}
    return {"status": "green", "optimizer_status": "ok", "segments_count": 1, "config": CONFIG, "payload_schema": schema}


#: A space that was made whole; by the end of "METHOD path".
MADE = {
    "GET /exists": {"exists": True},
    "GET /collections/sp_wire": described("tenant", *KEYWORD_FIELDS, *(f"number_{slot}" for slot in range(NUMBER_SLOTS))),
    "GET /shards": {"shard_keys": [{"key": "shared"}]},
}


class Stub(ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[tuple[str, str, Any]] = []
        self.status = 200
        self.result: Any = True
        self.results: dict[str, Any] = {}  #: by the end of "METHOD path", before `result`


class Handler(BaseHTTPRequestHandler):
    server: Stub

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        self.server.requests.append((self.command, self.path, json.loads(body) if body else None))
        called = f"{self.command} {self.path.partition('?')[0]}"
        known = [value for end, value in (MADE | self.server.results).items() if _ends(called, end)]
        result = known[0] if known else self.server.result
        answer = json.dumps({"result": result, "status": "ok", "time": 0}).encode()
        self.send_response(self.server.status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_GET = do_POST = do_PUT = _answer

    def log_message(self, format: str, *args: object) -> None:
        pass


def _ends(called: str, end: str) -> bool:
    method, _, path = end.rpartition(" ")
    return called.startswith(method) and called.endswith(path)


@pytest.fixture
def stub() -> Iterator[Stub]:
    server = Stub()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def store(stub: Stub) -> Iterator[QdrantStore]:
    opened = QdrantStore.connect(f"http://127.0.0.1:{stub.server_port}", None)
    yield opened
    opened.close()


def test_an_upsert_waits_and_is_confined_to_the_tenant(store: QdrantStore, stub: Stub) -> None:
    stub.result = {"operation_id": 1, "status": "completed"}
    store.for_tenant(FakeScope("ten_a"), SPACE).upsert([POINT])
    method, path, body = stub.requests[-1]
    assert (method, path) == ("PUT", "/collections/sp_wire/points?wait=true")
    assert body["update_filter"]["must"][0] == {"key": "tenant", "match": {"value": "ten_a"}}
    assert body["points"][0]["payload"]["tenant"] == "ten_a"


def test_a_search_puts_the_tenant_before_every_other_condition(store: QdrantStore, stub: Stub) -> None:
    stub.result = [{"points": []}]
    handle = store.for_tenant(FakeScope("ten_a"), SPACE)
    assert handle.search([Search(X, 5, ("col",), AnyOf("labels", ("board",)))]) == [[]]
    must = stub.requests[-1][2]["searches"][0]["filter"]["must"]
    assert must[0] == {"key": "tenant", "match": {"value": "ten_a"}}
    assert [condition["key"] for condition in must] == ["tenant", "collection", "labels"]


def test_a_point_of_another_tenant_in_an_answer_stops_it(store: QdrantStore, stub: Stub) -> None:
    foreign = {"id": POINT.id, "version": 1, "score": 1.0, "payload": {"tenant": "ten_b", "document": "doc"}}
    stub.result = [{"points": [foreign]}]
    with pytest.raises(RuntimeError, match="another tenant"):
        store.for_tenant(FakeScope("ten_a"), SPACE).search([Search(X, 5, ("col",))])


def test_pages_counts_and_look_ups_are_confined_to_the_tenant(store: QdrantStore, stub: Stub) -> None:
    handle = store.for_tenant(FakeScope("ten_a"), SPACE)
    stub.result = {"points": [{"id": POINT.id, "payload": {"tenant": "ten_a", "document": "doc"}}], "next_page_offset": None}
    assert handle.page(None, 7) == [(POINT.id, "doc")]
    assert handle.page(POINT.id, 7) == [(POINT.id, "doc")]
    assert handle.existing([POINT.id]) == {POINT.id}
    stub.result = {"count": 3}
    assert handle.count() == 3
    sent = [body for _, _, body in stub.requests[-4:]]
    assert [body["filter"]["must"][0] for body in sent] == [{"key": "tenant", "match": {"value": "ten_a"}}] * 4
    assert (sent[0]["limit"], sent[0].get("offset")) == (7, None)
    assert sent[1]["offset"] == "6c7a4f2e-8a53-5d0b-9a5e-4d2f3f1c9b11"
    assert sent[2]["filter"]["must"][1] == {"has_id": [POINT.id]}


def test_a_page_with_a_point_of_another_tenant_stops(store: QdrantStore, stub: Stub) -> None:
    foreign = {"id": POINT.id, "payload": {"tenant": "ten_b", "document": "doc"}}
    handle = store.for_tenant(FakeScope("ten_a"), SPACE)
    stub.result = {"points": [foreign], "next_page_offset": None}
    with pytest.raises(RuntimeError, match="another tenant"):
        handle.page(None, 7)


def test_tenants_are_asked_for_as_a_facet(store: QdrantStore, stub: Stub) -> None:
    stub.result = {"hits": [{"value": "ten_b", "count": 2}, {"value": "ten_a", "count": 1}]}
    assert store.tenants(SPACE, None, 10) == ["ten_a", "ten_b"]
    method, path, body = stub.requests[-1]
    assert (method, path.partition("?")[0]) == ("POST", "/collections/sp_wire/facet")
    assert (body["key"], body["exact"]) == ("tenant", True)


def test_a_failing_server_is_unavailable_and_says_nothing_of_its_inside(store: QdrantStore, stub: Stub) -> None:
    handle = store.for_tenant(FakeScope("ten_a"), SPACE)
    stub.status = 500
    with pytest.raises(EngineUnavailable) as refused:
        handle.upsert([POINT])
    assert refused.value.retryable
    assert not store.health().ok


def test_an_absent_server_is_unavailable() -> None:
    store = QdrantStore.connect("http://127.0.0.1:1", None)
    assert not store.health().ok
    with pytest.raises(EngineUnavailable):
        store.for_tenant(FakeScope("ten_a"), SPACE)
    store.close()


@pytest.fixture
def keyed(stub: Stub) -> Iterator[QdrantStore]:
    opened = QdrantStore.connect(f"http://127.0.0.1:{stub.server_port}", None, shard_keys=True)
    yield opened
    opened.close()


WITH_FALLBACK = {"target": "ten_a/col", "fallback": "shared"}


def test_with_shard_keys_every_call_of_a_collection_names_its_own_and_the_shared_one(keyed: QdrantStore, stub: Stub) -> None:
    handle = keyed.for_tenant(FakeScope("ten_a"), SPACE)
    stub.result = {"operation_id": 1, "status": "completed"}
    handle.upsert([POINT, replace(POINT, collection="other")])
    sent = [body for _, path, body in stub.requests if path.startswith("/collections/sp_wire/points?")]
    assert [body["shard_key"] for body in sent] == [WITH_FALLBACK, {"target": "ten_a/other", "fallback": "shared"}]
    handle.delete_points([POINT.id])
    assert "shard_key" not in stub.requests[-1][2]  # wherever it lies
    stub.result = [{"points": []}, {"points": []}, {"points": []}]
    handle.search([Search(X, 5, ("col", "other")), Search(X, 5, ("col",))])
    searches = stub.requests[-1][2]["searches"]
    assert [one["shard_key"]["target"] for one in searches] == ["ten_a/col", "ten_a/other", "ten_a/col"]
    assert [one["filter"]["must"][1]["match"]["any"] for one in searches] == [["col"], ["other"], ["col"]]


def test_legs_of_several_shard_keys_become_one_answer(keyed: QdrantStore, stub: Stub) -> None:
    def leg(point_id: str, score: float) -> dict[str, Any]:
        payload = {"tenant": "ten_a", "document": "doc"}
        return {"points": [{"id": point_id, "version": 1, "score": score, "payload": payload}]}

    handle = keyed.for_tenant(FakeScope("ten_a"), SPACE)
    other = POINT.id[:-1] + "1"
    stub.result = [leg(POINT.id, 0.25), leg(other, 0.5), leg(other, 0.5)]
    found = handle.search([Search(X, 1, ("col", "other")), Search(X, 5, ("col",))])
    assert [[hit.id for hit in hits] for hits in found] == [[other], [other]]


def _shards(state: str, *transfers: dict[str, Any]) -> dict[str, Any]:
    own = {"shard_id": 2, "shard_key": "ten_a/col", "points_count": 3, "state": state}
    shared = {"shard_id": 1, "shard_key": "shared", "points_count": 9, "state": "Active"}
    counts = {"peer_id": 1, "shard_count": 2, "remote_shards": []}
    return {**counts, "local_shards": [shared, own], "shard_transfers": [*transfers]}


def test_a_promotion_makes_a_key_replicates_and_only_then_deletes(keyed: QdrantStore, stub: Stub) -> None:
    handle = keyed.for_tenant(FakeScope("ten_a"), SPACE)
    stub.results = {"GET /shards": {"shard_keys": [{"key": "shared"}]}, "GET /cluster": _shards("Partial")}
    assert not handle.place("col", "dedicated")
    made, replicated = [body for method, path, body in stub.requests if (method, path[-8:]) == ("POST", "/cluster")]
    assert made == {"create_sharding_key": {"shard_key": "ten_a/col", "initial_state": "Partial"}}
    move = replicated["replicate_points"]
    assert (move["from_shard_key"], move["to_shard_key"]) == ("shared", "ten_a/col")
    assert [condition["key"] for condition in move["filter"]["must"]] == ["tenant", "collection"]

    stub.results["GET /shards"] = {"shard_keys": [{"key": "shared"}, {"key": "ten_a/col"}]}
    moving = {"shard_id": 1, "from": 1, "to": 1, "sync": True}
    stub.results["GET /cluster"] = _shards("Partial", moving)
    stub.requests.clear()
    assert not handle.place("col", "dedicated")
    assert {method for method, _, _ in stub.requests} == {"GET"}

    stub.results["GET /cluster"] = _shards("Active")
    stub.results["/delete"] = {"operation_id": 1, "status": "completed"}
    assert handle.place("col", "dedicated")
    method, path, body = stub.requests[-1]
    assert (method, path.partition("?")[0]) == ("POST", "/collections/sp_wire/points/delete")
    assert body["shard_key"] == "shared"
    assert [condition["key"] for condition in body["filter"]["must"]] == ["tenant", "collection"]


def test_a_promotion_that_was_cut_off_is_begun_again_and_deletes_nothing(keyed: QdrantStore, stub: Stub) -> None:
    handle = keyed.for_tenant(FakeScope("ten_a"), SPACE)
    stub.results = {"GET /shards": {"shard_keys": [{"key": "ten_a/col"}]}, "GET /cluster": _shards("Partial")}
    stub.requests.clear()
    assert not handle.place("col", "dedicated")
    assert [*stub.requests[-1][2]] == ["replicate_points"]
    assert not [path for _, path, _ in stub.requests if "delete" in path]


def test_what_a_qdrant_server_cannot_do_is_refused(store: QdrantStore, keyed: QdrantStore, stub: Stub) -> None:
    plain = store.for_tenant(FakeScope("ten_a"), SPACE)
    assert plain.place("col", "shared")
    with pytest.raises(InvalidPoint, match="without shard keys"):
        plain.place("col", "dedicated")
    assert store.dedicated(SPACE) == store.crowded(SPACE, 1) == []
    stub.results = {"GET /shards": {"shard_keys": [{"key": "shared"}, {"key": "ten_a/col"}]}}
    with pytest.raises(InvalidPoint, match="back"):
        keyed.for_tenant(FakeScope("ten_a"), SPACE).place("col", "shared")


def test_dedicated_collections_are_the_shard_keys_and_crowded_ones_the_shared_key_s(keyed: QdrantStore, stub: Stub) -> None:
    stub.results = {
        "GET /shards": {"shard_keys": [{"key": "shared"}, {"key": "ten_a/col"}]},
        "/count": {"count": 7},
        "/facet": {"hits": [{"value": "big", "count": 90}, {"value": "small", "count": 9}]},
    }
    assert keyed.dedicated(SPACE) == [Dedicated("ten_a", "col", 7)]
    assert stub.requests[-1][2]["shard_key"] == "ten_a/col"
    assert keyed.crowded(SPACE, 50) == ["big"]
    assert stub.requests[-1][2]["shard_key"] == "shared"


def test_what_a_death_left_out_of_a_space_is_made_by_whoever_comes_next(keyed: QdrantStore, stub: Stub) -> None:
    def changes() -> list[Any]:
        return [body.get("shard_key", body.get("field_name")) for method, _, body in stub.requests if method == "PUT"]

    keyed.for_tenant(FakeScope("ten_b"), Space("sp_wire", 2))
    assert changes() == []
    half = QdrantStore(keyed._client, shard_keys=True)
    stub.results = {"GET /shards": {"shard_keys": []}, "GET /collections/sp_wire": described("tenant", *KEYWORD_FIELDS)}
    stub.results["PUT /index"] = {"operation_id": 1, "status": "completed"}
    half.for_tenant(FakeScope("ten_a"), SPACE)
    assert changes() == ["shared", *(f"number_{slot}" for slot in range(NUMBER_SLOTS))]
    stub.requests.clear()
    half.for_tenant(FakeScope("ten_b"), SPACE)
    assert stub.requests == []
