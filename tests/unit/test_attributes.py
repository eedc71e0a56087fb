"""Kinds of attributes: what is declared is kept to, what is inferred is learned, and filters that do not fit are told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from config.clock import instant, isoformat
from config.database import Database
from config.errors import InvalidInput
from ingestion.intake.submission import Submission
from rag.attributes import MAX_DECLARED, MAX_KNOWN, conformed, declared, learned, typed
from rag.collections import TenantCollections
from rag.corpus import Collection, NumericSlot
from rag.filters import matches, parse
from rag.retrieval.question import Question
from rag.store.conditions import NUMBER_SLOTS
from rag.store.memory import MemoryStore
from tests.support import FreeMeter
from tests.world import TENANTS, World

MINE, OTHERS = TENANTS
TYPES = declared({}, {"year": "number", "kind": "string", "open": "bool", "on": "datetime"}, empty=True)
NOON = "2026-03-01T12:00:00.000Z"
YEAR = {"key": "year", "op": "eq", "value": 1}


@pytest.mark.parametrize(
    ("text", "unix_ms"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T01:00+01:00", 0),
        ("1969-12-31T23:59:59.999000-00:00", -1),
        ("2026-03-01 12:00:00.1239Z", 1_772_366_400_123),
        ("2026-03-01T12:00:00", None),  # of which zone
        ("2026-03-01", None),
        ("2026-02-30T00:00Z", None),
        ("0001-01-01T00:00+14:00", None),
        ("2026-W09-7T00:00Z", None),
        ("٢٠٢٦-03-01T12:00Z", None),
        ("", None),
    ],
)
def test_a_time_is_iso_8601_with_its_zone(text: str, unix_ms: int | None) -> None:
    assert instant(text) == unix_ms
    if unix_ms is not None:
        assert instant(isoformat(unix_ms)) == unix_ms


def test_declared_values_are_kept_to_and_times_are_kept_in_utc() -> None:
    given = {"year": 2026.0, "kind": "2026", "open": True, "on": "2026-03-01T13:00+01:00", "other": "anything"}
    assert conformed(TYPES, given) == {**given, "on": NOON}
    for key, value in (("year", "2026"), ("year", True), ("kind", 1.0), ("open", "true"), ("on", "2026-03-01"), ("on", 5.0)):
        with pytest.raises(InvalidInput) as refused:
            conformed(TYPES, {key: value})
        assert refused.value.field == f"attributes.{key}"


def test_what_is_inferred_ends_with_a_value_of_another_kind() -> None:
    once = learned({}, {"a": 1.0, "b": "x", "c": True})
    assert once == {key: {"kind": kind, "declared": False} for key, kind in (("a", "number"), ("b", "string"), ("c", "bool"))}
    assert learned(once, {"a": 2.0}) is None
    mixed = learned(once, {"a": "two", "d": "2026-03-01T12:00Z"})
    assert mixed is not None
    assert (mixed["a"]["kind"], mixed["d"]["kind"]) == ("mixed", "string")
    assert learned(mixed, {"a": True}) is None
    assert learned(TYPES, {"on": NOON, "year": 1.0}) is None


def test_what_is_known_is_bounded() -> None:
    many = learned({}, {f"k{number}": 1.0 for number in range(MAX_KNOWN + 9)})
    assert many is not None
    assert len(many) == MAX_KNOWN
    with pytest.raises(InvalidInput):
        declared({}, {f"k{number}": "bool" for number in range(MAX_DECLARED + 1)}, empty=True)


@pytest.mark.parametrize(
    ("given", "empty", "field"),
    [
        ({"a": "integer"}, True, "attributes.a"),
        ({"a" * 65: "bool"}, True, "attributes." + "a" * 65),
        ({"": "bool"}, True, "attributes."),
        ({"late": "datetime"}, False, "attributes.late"),
        ({"on": "string"}, False, "attributes.on"),
        ({"on": "inferred"}, False, "attributes.on"),
    ],
)
def test_a_declaration_that_cannot_be_kept_is_refused_by_name(given: dict[str, str], empty: bool, field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        declared(TYPES, given, empty=empty)
    assert refused.value.field == field


def test_a_declaration_can_be_changed_and_taken_back() -> None:
    changed = declared(TYPES, {"year": "string", "kind": "inferred"}, empty=False)
    assert (changed["year"]["kind"], "kind" in changed) == ("string", False)
    assert declared(TYPES, {"on": "inferred"}, empty=True).keys() == {"year", "kind", "open"}


@pytest.mark.parametrize(
    ("condition", "field"),
    [
        ({"key": "year", "op": "eq", "value": "2026"}, "filter.value"),
        ({"key": "year", "op": "nin", "value": [2026, "2026"]}, "filter.value"),
        ({"key": "kind", "op": "gt", "value": 5}, "filter.value"),
        ({"key": "on", "op": "gt", "value": 5}, "filter.value"),
        ({"key": "on", "op": "eq", "value": "yesterday"}, "filter.value"),
        ({"key": "unknown", "op": "lt", "value": NOON}, "filter.value"),
        (
            {"op": "or", "filters": [YEAR, {"op": "not", "filter": {"key": "open", "op": "eq", "value": 1}}]},
            "filter.filters[1].filter.value",
        ),
    ],
)  # fmt: skip
def test_a_filter_of_another_kind_is_refused_by_its_place(condition: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        typed(parse(condition), [TYPES])
    assert refused.value.field == field


def test_a_filter_may_fit_one_of_several_collections() -> None:
    condition = parse({"key": "year", "op": "eq", "value": "2026"})
    assert typed(condition, [TYPES, learned({}, {"year": "2026"}) or {}]) == condition
    assert typed(parse({"key": "unknown", "op": "eq", "value": "x"}), [TYPES, {}])
    with pytest.raises(InvalidInput, match="apart"):
        typed(parse({"key": "on", "op": "eq", "value": NOON}), [TYPES, learned({}, {"on": "x"}) or {}])


def test_times_are_compared_as_times() -> None:
    later = typed(parse({"key": "on", "op": "gte", "value": "2026-03-01T13:00:00+01:00"}), [TYPES])
    same = typed(parse({"key": "on", "op": "eq", "value": "2026-03-01T13:00:00+01:00"}), [TYPES])
    assert matches(later, {"on": NOON})
    assert matches(same, {"on": NOON})
    assert not matches(later, {"on": "2026-03-01T11:59:59.999Z"})
    assert not any(matches(later, {"on": value}) for value in ("soon", 5.0, True))


@pytest.fixture
def world(database: Database, tmp_path: Path) -> Iterator[World]:
    made = World(database, MemoryStore(), tmp_path)
    yield made
    made.close()


def _collections(world: World, name: str) -> TenantCollections:
    return world.documents.collections.for_tenant(world.contexts[name])


def _found(world: World, name: str, **condition: Any) -> set[str]:
    question = Question("shelf", ("shelves",), top_k=100, mode="dense", filter=parse(condition))
    answer = world.retriever.for_tenant(world.contexts[name], FreeMeter()).query(question, charge_id="q")
    return {passage.external_id for passage in answer.passages}


def _slots(world: World, name: str) -> list[tuple[str, str]]:
    return [(row.key, row.kind) for row in sorted(world.all(name, NumericSlot), key=lambda row: row.slot)]


def test_a_declared_collection_from_document_to_filter(world: World) -> None:
    """And its neighbour's collection of the same name has kinds of its own."""
    _collections(world, MINE).create("shelves", attributes={"on": "datetime", "year": "number"})
    _collections(world, OTHERS).create("shelves")
    for hour in range(4):
        on = f"2026-03-01T{hour + 10:02}:00:00+01:00"
        world.bring(MINE, f"d{hour}", f"shelf {hour}", collection="shelves", attributes={"on": on, "year": hour})
        world.bring(OTHERS, f"e{hour}", f"shelf {hour}", collection="shelves", attributes={"on": hour, "year": on})
    world.run_jobs()
    assert _slots(world, MINE) == [("on", "datetime"), ("year", "number")]
    assert _slots(world, OTHERS) == [("on", "number")]
    assert _found(world, MINE, key="on", op="gte", value="2026-03-01T11:00Z") == {"d2", "d3"}
    assert _found(world, MINE, key="on", op="eq", value="2026-03-01T06:00:00-04:00") == {"d1"}
    assert _found(world, MINE, op="not", filter={"key": "on", "op": "lt", "value": "2026-03-01T11:00Z"}) == {"d2", "d3"}
    assert _found(world, OTHERS, key="on", op="gte", value=3) == {"e3"}
    for name, value in ((MINE, 3), (OTHERS, "2026-03-01T11:00Z")):
        with pytest.raises(InvalidInput):
            _found(world, name, key="on", op="gte", value=value)
    with pytest.raises(InvalidInput) as refused:
        world.bring(MINE, "bad", "shelf", collection="shelves", attributes={"on": "tomorrow"})
    assert refused.value.field == "attributes.on"
    repeated = Submission(
        b"shelf 0",
        external_id="d0",
        media_type="text/plain",
        collection="shelves",
        attributes={"on": "2026-03-01T09:00Z", "year": 0},
    )
    assert world.of(MINE).submit(repeated).job is None  # the same moment in another zone is no change


def test_kinds_are_learned_and_declared_later(world: World) -> None:
    handle = _collections(world, MINE)
    handle.create("shelves")
    world.bring(MINE, "one", "shelf", collection="shelves", attributes={"size": 1, "wing": "north"})
    world.run_jobs()
    [row] = world.all(MINE, Collection)
    assert row.attribute_types == {"size": {"kind": "number", "declared": False}, "wing": {"kind": "string", "declared": False}}
    with pytest.raises(InvalidInput):
        _found(world, MINE, key="size", op="eq", value="1")
    world.bring(MINE, "two", "shelf", collection="shelves", attributes={"size": "1"})
    world.run_jobs()
    assert _found(world, MINE, key="size", op="eq", value="1") == {"two"}
    changed, _ = handle.update("shelves", attributes={"size": "number", "depth": "number"})
    assert changed.attribute_types["size"] == {"kind": "number", "declared": True}
    assert _slots(world, MINE) == [("size", "number"), ("depth", "number")]
    with pytest.raises(InvalidInput):
        world.bring(MINE, "three", "shelf", collection="shelves", attributes={"size": "1"})
    with pytest.raises(InvalidInput):
        handle.update("shelves", attributes={"wing": "datetime"})
    assert _found(world, MINE, key="size", op="gte", value=1) == {"one"}
    assert world.all(OTHERS, NumericSlot) == []


def test_more_numbers_than_slots_are_declared(world: World) -> None:
    _collections(world, MINE).create("shelves", attributes={f"n{number}": "number" for number in range(NUMBER_SLOTS + 2)})
    for number in range(3):
        attributes = {f"n{slot}": number for slot in range(NUMBER_SLOTS + 2)}
        world.bring(MINE, f"d{number}", f"shelf {number}", collection="shelves", attributes=attributes)
    world.run_jobs()
    assert _slots(world, MINE) == [(f"n{slot}", "number") for slot in range(NUMBER_SLOTS)]
    assert _found(world, MINE, key=f"n{NUMBER_SLOTS + 1}", op="gt", value=0) == {"d1", "d2"}
