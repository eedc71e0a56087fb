"""Frames between the engine process and its clients: a length, a JSON header, then raw little-endian vectors.

    u32 header length | u32 body length | header (JSON) | body (float32 dense rows, then u32/float32 sparse pairs)

No pickle: a frame can only ever become JSON values and numbers.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import orjson

from rag.store.base import Point, Search, SparseVector, Vector
from rag.store.conditions import from_json, to_json

PROTOCOL = 1
PREFIX = struct.Struct("<II")
MAX_FRAME = 64 * 1024 * 1024


class WireError(ValueError):
    """A frame that breaks the protocol; the connection that sent it is closed."""


def encode(header: dict[str, Any], body: bytes = b"") -> bytes:
    head = orjson.dumps(header)
    if len(head) + len(body) > MAX_FRAME:
        raise WireError(f"a frame of {len(head) + len(body)} bytes, at most {MAX_FRAME}")
    return PREFIX.pack(len(head), len(body)) + head + body


def sizes(prefix: bytes) -> tuple[int, int]:
    head, body = PREFIX.unpack(prefix)
    if head + body > MAX_FRAME:
        raise WireError(f"a frame of {head + body} bytes, at most {MAX_FRAME}")
    return head, body


def decode_header(raw: bytes) -> dict[str, Any]:
    header = orjson.loads(raw)
    if not isinstance(header, dict):
        raise WireError("a header must be an object")
    return header


def _pack(vectors: Iterable[Vector | SparseVector]) -> bytes:
    parts: list[bytes] = []
    for vector in vectors:
        if isinstance(vector, SparseVector):
            parts += (np.asarray(vector.indices, "<u4").tobytes(), np.asarray(vector.values, "<f4").tobytes())
        else:
            parts.append(np.asarray(vector, "<f4").tobytes())
    return b"".join(parts)


class _Body:
    """Reads vectors off a body in the order they were packed."""

    def __init__(self, raw: bytes) -> None:
        self._raw, self._at = raw, 0

    def _take(self, dtype: str, count: int) -> Any:
        end = self._at + 4 * count
        if count < 0 or end > len(self._raw):
            raise WireError("the body is shorter than its header says")
        values = np.frombuffer(self._raw, dtype, count, self._at)
        self._at = end
        return values

    def dense(self, width: int) -> Vector:
        return np.asarray(self._take("<f4", width), np.float32)

    def sparse(self, width: int) -> SparseVector:
        indices, values = self._take("<u4", width), self._take("<f4", width)
        return SparseVector(tuple(indices.tolist()), tuple(values.tolist()))


def pack_points(points: Sequence[Point]) -> tuple[list[dict[str, Any]], bytes]:
    header = [
        {
            "id": point.id,
            "collection": point.collection,
            "document": point.document,
            "labels": point.labels,
            "terms": point.terms,
            "numbers": point.numbers,
            "dense": len(point.dense),
            "sparse": None if point.sparse is None else len(point.sparse.indices),
        }
        for point in points
    ]
    vectors = [vector for point in points for vector in (point.dense, point.sparse) if vector is not None]
    return header, _pack(vectors)


def unpack_points(header: list[dict[str, Any]], raw: bytes) -> list[Point]:
    body = _Body(raw)
    return [
        Point(
            id=item["id"],
            collection=item["collection"],
            document=item["document"],
            labels=tuple(item["labels"]),
            terms=tuple(item["terms"]),
            numbers=tuple((int(slot), float(value)) for slot, value in item["numbers"]),
            dense=body.dense(item["dense"]),
            sparse=None if item["sparse"] is None else body.sparse(item["sparse"]),
        )
        for item in header
    ]


def pack_searches(searches: Sequence[Search]) -> tuple[list[dict[str, Any]], bytes]:
    header = [
        {
            "kind": "sparse" if isinstance(search.query, SparseVector) else "dense",
            "width": len(search.query.indices) if isinstance(search.query, SparseVector) else len(search.query),
            "limit": search.limit,
            "collections": search.collections,
            "condition": None if search.condition is None else to_json(search.condition),
        }
        for search in searches
    ]
    return header, _pack(search.query for search in searches)


def pack_named(vectors: Mapping[str, Vector]) -> dict[str, str]:
    """For an answer, which has no body: base64 is a quarter of what the numbers would be as JSON."""
    return {name: base64.b64encode(np.asarray(vector, "<f4").tobytes()).decode() for name, vector in vectors.items()}


def unpack_named(packed: Mapping[str, str]) -> dict[str, Vector]:
    return {name: np.frombuffer(base64.b64decode(raw), "<f4").astype(np.float32) for name, raw in packed.items()}


def unpack_searches(header: list[dict[str, Any]], raw: bytes) -> list[Search]:
    body = _Body(raw)
    return [
        Search(
            query=body.sparse(item["width"]) if item["kind"] == "sparse" else body.dense(item["width"]),
            limit=int(item["limit"]),
            collections=tuple(map(str, item["collections"])),
            condition=None if item["condition"] is None else from_json(item["condition"]),
        )
        for item in header
    ]
