"""Random filters over random attributes mean in the engine and behind it what a plain reading of them means, and reach no
neighbour's points. The reading here shares nothing with the product's."""

from __future__ import annotations

import datetime as dt
import random
import uuid
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rag.attributes import conformed, declared, typed
from rag.filters import MAX_DEPTH, MAX_NODES, compile_filter, matches, numbers, parse, slot_name, terms
from rag.store.base import Point, Search, Space
from rag.store.shards import EdgeStore
from tests.support import BuildsCopies, FakeScope

SPACE = Space("sp_filters", 4)
ASH, ELM = FakeScope("ten_ash"), FakeScope("ten_elm")
DOCUMENTS, TOGETHER = 120, 50
DECLARED = {"on": "datetime", "due": "datetime", **{f"n{number}": "number" for number in range(8)}}
TYPES = declared({}, DECLARED, empty=True)
#: Six of eight slots; the times of `due` and the last numbers have none.
SLOTS = {slot_name("on", "datetime"): 0, **{f"n{number}": number + 1 for number in range(5)}}
MIXED = ("a", "b", "a b")  # any kind of value
LOOSE = ["", "1", "True", "x", "ß", "2026-03-01T00:00:00.000Z", 0, 1, 1.5, -0.0, 2**53, True, False]
OPS = ("eq", "ne", "in", "nin", "exists", "gt", "gte", "lt", "lte")


def _time(rng: random.Random) -> str:
    zone = dt.timezone(dt.timedelta(hours=rng.randint(-3, 3)))
    moment = dt.datetime(2026, 3, 1, tzinfo=dt.UTC) + dt.timedelta(minutes=rng.randint(0, 12))
    return moment.astimezone(zone).isoformat(timespec=rng.choice(["minutes", "seconds", "milliseconds"]))


def _value(rng: random.Random, key: str, *, bound: bool = False) -> Any:
    if DECLARED.get(key) == "datetime":
        return _time(rng)
    if key in DECLARED or bound:
        return rng.choice([rng.randint(-3, 3), rng.uniform(-3, 3)])
    return rng.choice(LOOSE)


def _attributes(rng: random.Random) -> dict[str, Any]:
    return {key: _value(rng, key) for key in (*DECLARED, *MIXED) if rng.random() < 0.6}


def _tree(rng: random.Random, depth: int, room: list[int]) -> dict[str, Any]:
    """Within the caps; `room`: conditions that may still be made."""
    room[0] -= 1
    if depth > 1 and room[0] > 1 and rng.random() < 0.45:
        if rng.random() < 0.3:
            return {"op": "not", "filter": _tree(rng, depth - 1, room)}
        count = rng.randint(1, 4)
        return {
            "op": rng.choice(["and", "or"]),
            "filters": [_tree(rng, depth - 1, room) for _ in range(min(count, max(1, room[0])))],
        }
    key, op = rng.choice([*DECLARED, *MIXED]), rng.choice(OPS)
    if op == "exists":
        return {"key": key, "op": op, "value": rng.random() < 0.5}
    if op in ("in", "nin"):
        return {"key": key, "op": op, "value": [_value(rng, key) for _ in range(rng.randint(1, 5))]}
    return {"key": key, "op": op, "value": _value(rng, key, bound=op not in ("eq", "ne"))}


def _nodes(tree: dict[str, Any]) -> int:
    return 1 + sum(map(_nodes, tree.get("filters", [tree["filter"]] if "filter" in tree else [])))


def _trees(seed: int) -> Iterator[dict[str, Any]]:
    rng = random.Random(seed)
    while True:
        tree = _tree(rng, rng.randint(1, MAX_DEPTH), [rng.choice([4, 12, MAX_NODES - 6])])
        if _nodes(tree) <= MAX_NODES:
            yield tree


def _plain(key: str, value: Any) -> tuple[str, Any]:
    """Kind and value: times as times, 1 as 1.0, and True as neither."""
    if DECLARED.get(key) == "datetime":
        return "time", dt.datetime.fromisoformat(value)
    return type(value).__name__ if isinstance(value, (bool, str)) else "number", value


def _holds(tree: dict[str, Any], given: dict[str, Any]) -> bool:
    match tree["op"]:
        case "and":
            return all(_holds(part, given) for part in tree["filters"])
        case "or":
            return any(_holds(part, given) for part in tree["filters"])
        case "not":
            return not _holds(tree["filter"], given)
        case "exists":
            return (tree["key"] in given) is tree["value"]
    key, wanted = tree["key"], tree["value"]
    own = _plain(key, given[key]) if key in given else None
    match tree["op"]:
        case "eq" | "ne":
            return (own == _plain(key, wanted)) is (tree["op"] == "eq")
        case "in" | "nin":
            return (own in [_plain(key, one) for one in wanted]) is (tree["op"] == "in")
    kind, bound = _plain(key, wanted)
    if own is None or own[0] != kind:
        return False
    return {"gt": own[1] > bound, "gte": own[1] >= bound, "lt": own[1] < bound, "lte": own[1] <= bound}[tree["op"]]


@pytest.mark.parametrize("count", [5_000, pytest.param(50_000, marks=[pytest.mark.full, pytest.mark.timeout(1_200)])])
def test_random_filters_mean_what_they_say(tmp_path: Path, count: int) -> None:
    rng = random.Random(count)
    given = {str(uuid.UUID(int=rng.getrandbits(128), version=4)): _attributes(rng) for _ in range(DOCUMENTS)}
    kept = {point: conformed(TYPES, attributes) for point, attributes in given.items()}
    store, vector = EdgeStore(tmp_path / "vectors", BuildsCopies()), np.ones(SPACE.dimensions, np.float32)
    for scope in (ASH, ELM):  # the neighbour has the same, under ids of its own
        ids = kept if scope is ASH else {str(uuid.uuid4()): attributes for attributes in kept.values()}
        store.for_tenant(scope, SPACE).upsert(
            [Point(one, "col", "doc", vector, terms=terms(own), numbers=numbers(own, SLOTS)) for one, own in ids.items()]
        )
    handle, trees, answered = store.for_tenant(ASH, SPACE), _trees(count), 0
    for _ in range(count // TOGETHER):
        some = [*islice(trees, TOGETHER)]
        filters = [typed(parse(tree), [TYPES]) for tree in some]
        searches = [Search(vector, 2 * DOCUMENTS, ("col",), compile_filter(one, SLOTS)) for one in filters]
        for tree, filter_, hits in zip(some, filters, handle.search(searches), strict=True):
            found = {hit.id for hit in hits}
            assert found <= kept.keys(), tree  # nobody else's
            expected = {point for point, attributes in given.items() if _holds(tree, attributes)}
            assert {point for point in found if matches(filter_, kept[point])} == expected, tree
            answered += 0 < len(expected) < DOCUMENTS
    assert answered > count / 2  # neither all nor nothing
    store.close()
