"""Frames carry points and searches exactly; a frame that lies about its size is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rag.store import wire
from rag.store.base import Point, Search, SparseVector
from rag.store.conditions import AllOf, AnyOf, Between

_f32 = st.floats(width=32, allow_nan=False, allow_infinity=False)
dense = hnp.arrays(np.float32, st.integers(0, 6), elements=_f32)
sparse = st.dictionaries(st.integers(0, 2**32 - 1), _f32, max_size=4).map(
    lambda weights: SparseVector(tuple(weights), tuple(weights.values()))
)
_names = st.lists(st.text(max_size=4), max_size=3).map(tuple)
points = st.builds(
    Point,
    id=st.uuids().map(str),
    collection=st.text(max_size=5),
    document=st.text(max_size=5),
    dense=dense,
    sparse=st.none() | sparse,
    labels=_names,
    terms=_names,
    numbers=st.lists(st.tuples(st.integers(0, 7), st.floats(allow_nan=False, allow_infinity=False)), max_size=3).map(tuple),
)
searches = st.builds(
    Search,
    query=dense | sparse,
    limit=st.integers(1, 10_000),
    collections=_names,
    condition=st.sampled_from([None, AllOf((AnyOf("labels", ("x",)), Between(3, gte=0.5)))]),
)


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else value


def _fields(item: Point | Search) -> dict[str, Any]:
    return {name: _plain(getattr(item, name)) for name in item.__slots__}


def _through_json(header: Any) -> Any:
    return orjson.loads(orjson.dumps(header))


@given(st.lists(points, max_size=4))
@settings(deadline=None)
def test_points_arrive_as_they_were_sent(sent: list[Point]) -> None:
    header, body = wire.pack_points(sent)
    assert list(map(_fields, wire.unpack_points(_through_json(header), body))) == list(map(_fields, sent))


@given(st.lists(searches, max_size=4))
@settings(deadline=None)
def test_searches_arrive_as_they_were_sent(sent: list[Search]) -> None:
    header, body = wire.pack_searches(sent)
    assert list(map(_fields, wire.unpack_searches(_through_json(header), body))) == list(map(_fields, sent))


@given(sent=st.lists(points, min_size=1, max_size=4), data=st.data())
@settings(deadline=None)
def test_a_body_that_was_cut_is_refused(sent: list[Point], data: st.DataObject) -> None:
    header, body = wire.pack_points(sent)
    if body:
        with pytest.raises(wire.WireError):
            wire.unpack_points(header, body[: data.draw(st.integers(0, len(body) - 1))])


@pytest.mark.parametrize("width", [-1, 3, 2**40, 2**62])
def test_a_width_that_the_body_does_not_have_is_refused(width: int) -> None:
    header = [{"kind": "dense", "width": width, "limit": 1, "collections": [], "condition": None}]
    with pytest.raises(wire.WireError):
        wire.unpack_searches(header, bytes(8))


def test_a_frame_states_its_sizes() -> None:
    frame = wire.encode({"op": "x"}, b"body")
    head, body = wire.sizes(frame[: wire.PREFIX.size])
    assert wire.decode_header(frame[wire.PREFIX.size : wire.PREFIX.size + head]) == {"op": "x"}
    assert frame[-body:] == b"body"
    assert len(frame) == wire.PREFIX.size + head + body


@pytest.mark.parametrize(("head", "body"), [(wire.MAX_FRAME, 1), (2**32 - 1, 2**32 - 1), (0, wire.MAX_FRAME + 1)])
def test_an_oversized_frame_is_refused_before_it_is_read(head: int, body: int) -> None:
    with pytest.raises(wire.WireError):
        wire.sizes(wire.PREFIX.pack(head, body))


def test_an_oversized_frame_is_never_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MAX_FRAME", 100)
    with pytest.raises(wire.WireError):
        wire.encode({"op": "x"}, bytes(100))


@pytest.mark.parametrize("raw", [b"[]", b"null", b'"x"', b"1"])
def test_a_header_that_is_no_object_is_refused(raw: bytes) -> None:
    with pytest.raises(wire.WireError):
        wire.decode_header(raw)
