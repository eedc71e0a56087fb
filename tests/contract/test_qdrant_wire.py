"""What the Qdrant adapter sends over HTTP, and what it makes of failures: against a stub that records and misbehaves.

The stub is no Qdrant: it proves our side of the wire only. The contract suite runs against a real server where there is one.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest

from config.errors import EngineUnavailable
from rag.store.base import Point, Search, Space
from rag.store.conditions import AnyOf
from rag.store.qdrant import QdrantStore
from tests.support import FakeScope

SPACE = Space("sp_wire", 2)
X = np.array([1, 0], np.float32)
POINT = Point("6c7a4f2e-8a53-5d0b-9a5e-4d2f3f1c9b10", "col", "doc", X, labels=("board",))


class Stub(ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[tuple[str, str, Any]] = []
        self.status = 200
        self.result: Any = True


class Handler(BaseHTTPRequestHandler):
    server: Stub

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        self.server.requests.append((self.command, self.path, json.loads(body) if body else None))
        result = {"exists": True} if self.path.endswith("/exists") else self.server.result
        answer = json.dumps({"result": result, "status": "ok", "time": 0}).encode()
        self.send_response(self.server.status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_GET = do_POST = do_PUT = _answer

    def log_message(self, format: str, *args: object) -> None:
        pass


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
