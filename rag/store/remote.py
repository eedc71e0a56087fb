"""The engine's client: a few pooled connections that any thread may use. Waits out a restart of the engine."""

from __future__ import annotations

import queue
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from config.errors import EngineUnavailable
from rag.store import wire
from rag.store.base import (
    Dedicated,
    Hit,
    InvalidPoint,
    Placement,
    Point,
    Search,
    Space,
    StoreHealth,
    Vector,
    check_points,
)
from rag.types import Scope

CONNECTIONS = 8
RETRY_PAUSE_S = 0.05


class _StaleConnection(Exception):
    """A pooled connection whose engine is gone."""


class EngineClient:
    """`patience_s`: how long a call waits for an engine that is not there, `timeout_s` for one that does not answer.

    Every operation may be repeated safely, and none is carried out after its caller gave it up (`expires`).
    """

    def __init__(self, path: Path, *, patience_s: float, timeout_s: float) -> None:
        self._path, self._patience_s, self._timeout_s = path, patience_s, timeout_s
        self._idle: queue.LifoQueue[socket.socket | None] = queue.LifoQueue()
        for _ in range(CONNECTIONS):
            self._idle.put(None)

    def for_tenant(self, scope: Scope, space: Space) -> EngineVectors:
        return EngineVectors(self, scope.tenant_id, space)

    def tenants(self, space: Space, after: str | None, limit: int) -> list[str]:
        found: list[str] = self._of_space("tenants", space, after=after, limit=limit)
        return found

    def dedicated(self, space: Space) -> list[Dedicated]:
        return [Dedicated(**one) for one in self._of_space("dedicated", space)]

    def crowded(self, space: Space, at_least: int) -> list[str]:
        found: list[str] = self._of_space("crowded", space, at_least=at_least)
        return found

    def _of_space(self, operation: str, space: Space, **options: Any) -> Any:
        return self.call({"op": operation, "space": space.id, "dimensions": space.dimensions, **options})

    def health(self) -> StoreHealth:
        try:
            return StoreHealth(**self.call({"op": "health"}, patience_s=0))
        except EngineUnavailable as error:
            return StoreHealth(False, error.detail)

    def close(self) -> None:
        while not self._idle.empty():
            connection = self._idle.get_nowait()
            if connection is not None:
                connection.close()

    def call(self, header: dict[str, Any], body: bytes = b"", *, patience_s: float | None = None) -> Any:
        deadline = time.monotonic() + (self._patience_s if patience_s is None else patience_s)
        while True:
            expires = time.monotonic() + self._timeout_s
            frame = wire.encode({**header, "protocol": wire.PROTOCOL, "expires": expires}, body)
            try:
                return _result(self._exchange(frame))
            except _StaleConnection:
                self._drop_idle()  # the engine was restarted since these were opened: ask the new one at once
            except (OSError, EOFError) as error:
                if time.monotonic() >= deadline:
                    raise EngineUnavailable(
                        "The vector engine does not answer; `carrel doctor` shows its state.", retry_after_s=2
                    ) from error
                time.sleep(RETRY_PAUSE_S)

    def _exchange(self, frame: bytes) -> dict[str, Any]:
        try:
            connection = self._idle.get(timeout=self._timeout_s)
        except queue.Empty as error:
            raise EngineUnavailable("All connections to the vector engine are busy.", retry_after_s=1) from error
        reused = connection is not None
        try:
            if connection is None:
                connection = self._connect()
            connection.sendall(frame)
            answer = _read(connection)
        except BaseException as error:
            if connection is not None:
                connection.close()
            self._idle.put(None)
            if reused and isinstance(error, (ConnectionError, EOFError)):
                raise _StaleConnection from error
            raise
        self._idle.put(connection)
        return answer

    def _drop_idle(self) -> None:
        for _ in range(CONNECTIONS):
            try:
                connection = self._idle.get_nowait()
            except queue.Empty:
                return
            if connection is not None:
                connection.close()
            self._idle.put(None)

    def _connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(self._timeout_s)
        try:
            connection.connect(str(self._path))
        except OSError:
            connection.close()
            raise
        return connection


def _read(connection: socket.socket) -> dict[str, Any]:
    head, body = wire.sizes(_exactly(connection, wire.PREFIX.size))
    header = wire.decode_header(_exactly(connection, head))
    _exactly(connection, body)
    return header


def _exactly(connection: socket.socket, count: int) -> bytes:
    parts = bytearray()
    while len(parts) < count:
        part = connection.recv(count - len(parts))
        if not part:
            raise EOFError("the engine closed the connection")
        parts += part
    return bytes(parts)


def _result(answer: dict[str, Any]) -> Any:
    if answer["ok"]:
        return answer["result"]
    if answer["kind"] == "invalid":
        raise InvalidPoint(answer["detail"])
    if answer["kind"] == "late":  # nothing was done, and nothing is wrong with it
        raise EngineUnavailable("The vector engine had no time for this write.", retry_after_s=2)
    raise EngineUnavailable(f"The vector engine failed ({answer['detail']}); its log has the reason.")


class EngineVectors:
    def __init__(self, client: EngineClient, tenant: str, space: Space) -> None:
        self._client, self._space = client, space
        self._address = {"tenant": tenant, "space": space.id, "dimensions": space.dimensions}

    def upsert(self, points: Sequence[Point]) -> None:
        check_points(points, self._space)
        header, body = wire.pack_points(points)
        self._client.call({**self._address, "op": "upsert", "points": header}, body)

    def search(self, searches: Sequence[Search]) -> list[list[Hit]]:
        header, body = wire.pack_searches(searches)
        legs = self._client.call({**self._address, "op": "search", "searches": header}, body)
        return [[Hit(*hit) for hit in leg] for leg in legs]

    def delete_points(self, ids: Sequence[str]) -> None:
        self._client.call({**self._address, "op": "delete_points", "ids": list(ids)})

    def delete_document(self, document: str) -> None:
        self._client.call({**self._address, "op": "delete_document", "document": document})

    def ids(self, document: str | None = None) -> list[str]:
        found: list[str] = self._client.call({**self._address, "op": "ids", "document": document})
        return found

    def page(self, after: str | None, limit: int) -> list[tuple[str, str]]:
        rows = self._client.call({**self._address, "op": "page", "after": after, "limit": limit})
        return [(str(point_id), str(document)) for point_id, document in rows]

    def existing(self, ids: Sequence[str]) -> set[str]:
        return set(self._client.call({**self._address, "op": "existing", "ids": list(ids)}))

    def vectors(self, ids: Sequence[str]) -> dict[str, Vector]:
        return wire.unpack_named(self._client.call({**self._address, "op": "vectors", "ids": list(ids)}))

    def count(self) -> int:
        return int(self._client.call({**self._address, "op": "count"}))

    def place(self, collection: str, placement: Placement) -> bool:
        header = {**self._address, "op": "place", "collection": collection, "placement": placement}
        return bool(self._client.call(header))
