"""Filters mean what they say, are bounded, and compile to conditions that never leave out a document that matches."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.errors import InvalidInput
from rag.filters import (
    MAX_ATTRIBUTES,
    MAX_DEPTH,
    MAX_KEY_CHARS,
    MAX_NODES,
    MAX_VALUE_CHARS,
    MAX_VALUES,
    check_attributes,
    compile_filter,
    matches,
    parse,
    terms,
)
from rag.store.conditions import holds
from tests.support import examples

KEYS = ("a", "b", "c", "a b")
values = st.one_of(
    st.booleans(),
    st.integers(-3, 3),
    st.floats(-3, 3, allow_nan=False),
    st.sampled_from(["", "1", "True", "true", "1.0", "x", "ß", 0, -0.0, 2**53, -(2**53)]),
)
numbers = st.one_of(st.integers(-3, 3), st.sampled_from([0.5, -0.0, 2**53]))
attributes = st.dictionaries(st.sampled_from(KEYS), values, max_size=4)

_keys = st.sampled_from(KEYS)
_compares = st.one_of(
    st.fixed_dictionaries({"key": _keys, "op": st.sampled_from(["eq", "ne"]), "value": values}),
    st.fixed_dictionaries(
        {"key": _keys, "op": st.sampled_from(["in", "nin"]), "value": st.lists(values, min_size=1, max_size=4)}
    ),
    st.fixed_dictionaries({"key": _keys, "op": st.sampled_from(["gt", "gte", "lt", "lte"]), "value": numbers}),
    st.fixed_dictionaries({"key": _keys, "op": st.just("exists"), "value": st.booleans()}),
)
filters = st.recursive(
    _compares,
    lambda part: st.one_of(
        st.fixed_dictionaries({"op": st.sampled_from(["and", "or"]), "filters": st.lists(part, min_size=1, max_size=3)}),
        st.fixed_dictionaries({"op": st.just("not"), "filter": part}),
    ),
    max_leaves=6,
).filter(lambda data: _depth(data) <= MAX_DEPTH)


def _depth(data: Mapping[str, Any]) -> int:
    parts = data.get("filters", [data["filter"]] if "filter" in data else [])
    return 1 + max(map(_depth, parts), default=0)


def _lets_through(data: Mapping[str, Any], given_attributes: Mapping[str, Any], slots: Mapping[str, int]) -> tuple[bool, bool]:
    """(what the filter means, what its compiled condition says of the document's point)"""
    kept = check_attributes(given_attributes)
    stored = {slots[key]: float(value) for key, value in kept.items() if key in slots and isinstance(value, float)}
    condition = compile_filter(parse(data), slots)
    return matches(parse(data), kept), holds(condition, {"terms": terms(kept)}, stored)


@given(data=filters, attributes=attributes, slots=st.sets(st.sampled_from(KEYS)))
@settings(max_examples=examples(400), deadline=None)
def test_a_compiled_filter_never_leaves_out_a_match(data: Any, attributes: dict[str, Any], slots: set[str]) -> None:
    wanted, proposed = _lets_through(data, attributes, {key: slot for slot, key in enumerate(sorted(slots))})
    assert proposed or not wanted


@given(data=filters, attributes=attributes)
@settings(max_examples=examples(400), deadline=None)
def test_a_compiled_filter_is_exact_where_every_number_has_a_slot(data: Any, attributes: dict[str, Any]) -> None:
    wanted, proposed = _lets_through(data, attributes, {key: slot for slot, key in enumerate(KEYS)})
    assert proposed == wanted


@pytest.mark.parametrize(
    ("value", "equal", "different"),
    [
        (1, [1, 1.0], [True, "1", "1.0", 2]),
        (True, [True], [1, "True", "true", False]),
        ("1", ["1"], [1, True]),
        (0, [-0.0, 0], [False, "0"]),
    ],
)
def test_values_of_different_types_are_never_equal(value: Any, equal: list[Any], different: list[Any]) -> None:
    wanted = {"key": "k", "op": "eq", "value": value}
    assert all(_lets_through(wanted, {"k": other}, {}) == (True, True) for other in equal)
    assert all(_lets_through(wanted, {"k": other}, {}) == (False, False) for other in different)


@pytest.mark.parametrize("op", ["gt", "gte", "lt", "lte"])
@pytest.mark.parametrize("value", ["5", True])
def test_a_range_holds_for_numbers_only(op: str, value: Any) -> None:
    assert not matches(parse({"key": "k", "op": op, "value": 0}), {"k": value})


@pytest.mark.parametrize(("op", "value"), [("ne", 1), ("nin", [1]), ("exists", False)])
def test_negations_hold_where_the_key_is_absent(op: str, value: Any) -> None:
    assert matches(parse({"key": "k", "op": op, "value": value}), {})


def _nested(depth: int) -> dict[str, Any]:
    data: dict[str, Any] = {"key": "k", "op": "eq", "value": 1}
    for _ in range(depth - 1):
        data = {"op": "not", "filter": data}
    return data


def _wide(nodes: int) -> dict[str, Any]:
    return {"op": "or", "filters": [{"key": "k", "op": "eq", "value": 1}] * (nodes - 1)}


def test_the_caps_themselves_are_allowed() -> None:
    parse(_nested(MAX_DEPTH))
    parse(_wide(MAX_NODES))
    parse({"key": "k" * MAX_KEY_CHARS, "op": "in", "value": ["v" * MAX_VALUE_CHARS] * MAX_VALUES})
    parse({"key": "k", "op": "eq", "value": -(2**53)})


@pytest.mark.parametrize(
    ("data", "field"),
    [
        (None, "filter"),
        ([], "filter"),
        ("eq", "filter"),
        ({}, "filter.key"),
        ({"op": []}, "filter.key"),
        ({"op": ["and"], "key": "k"}, "filter.op"),
        ({"op": "like", "key": "k", "value": "x"}, "filter.op"),
        ({"op": "AND", "filters": []}, "filter.filters"),
        ({"op": "and"}, "filter.filters"),
        ({"op": "and", "filters": []}, "filter.filters"),
        ({"op": "and", "filters": {"op": "and"}}, "filter.filters"),
        ({"op": "or", "filters": [{"op": "not"}]}, "filter.filters[0].filter"),
        ({"op": "not", "filter": {"key": "k", "op": "eq", "value": 1}, "filters": []}, "filter.filters"),
        ({"op": "and", "filters": [{"key": "k", "op": "eq", "value": 1, "extra": 1}]}, "filter.filters[0].extra"),
        ({"key": "", "op": "eq", "value": 1}, "filter.key"),
        ({"key": 7, "op": "eq", "value": 1}, "filter.key"),
        ({"key": "k" * (MAX_KEY_CHARS + 1), "op": "eq", "value": 1}, "filter.key"),
        ({"key": "k\0bool\0True", "op": "exists", "value": True}, "filter.key"),
        ({"key": "\ud800", "op": "exists", "value": True}, "filter.key"),
        ({"key": "k", "op": "exists", "value": 1}, "filter.value"),
        ({"key": "k", "op": "eq"}, "filter.value"),
        ({"key": "k", "op": "eq", "value": None}, "filter.value"),
        ({"key": "k", "op": "eq", "value": [1]}, "filter.value"),
        ({"key": "k", "op": "eq", "value": "v" * (MAX_VALUE_CHARS + 1)}, "filter.value"),
        ({"key": "k", "op": "eq", "value": "\ud800"}, "filter.value"),
        ({"key": "k", "op": "eq", "value": math.nan}, "filter.value"),
        ({"key": "k", "op": "ne", "value": -math.inf}, "filter.value"),
        ({"key": "k", "op": "lt", "value": 10**400}, "filter.value"),
        ({"key": "k", "op": "lt", "value": 2**53 + 1}, "filter.value"),
        ({"key": "k", "op": "gt", "value": "5"}, "filter.value"),
        ({"key": "k", "op": "gt", "value": True}, "filter.value"),
        ({"key": "k", "op": "in", "value": 1}, "filter.value"),
        ({"key": "k", "op": "in", "value": []}, "filter.value"),
        ({"key": "k", "op": "nin", "value": [1, {}]}, "filter.value"),
        ({"key": "k", "op": "in", "value": [1] * (MAX_VALUES + 1)}, "filter.value"),
        (_wide(MAX_NODES + 1), "filter"),
        (_nested(MAX_DEPTH + 1), "filter" + ".filter" * MAX_DEPTH),
        (_nested(5000), "filter" + ".filter" * MAX_DEPTH),
    ],
)  # fmt: skip
def test_what_is_outside_the_language_is_refused_by_name(data: Any, field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse(data)
    assert refused.value.field == field


@pytest.mark.parametrize(
    ("given_attributes", "field"),
    [
        ({f"k{i}": i for i in range(MAX_ATTRIBUTES + 1)}, "attributes"),
        ({"": 1}, "attributes"),
        ({"k" * (MAX_KEY_CHARS + 1): 1}, "attributes"),
        ({"a\0b": 1}, "attributes"),
        ({"k": None}, "attributes.k"),
        ({"k": [1]}, "attributes.k"),
        ({"k": math.inf}, "attributes.k"),
        ({"k": 10**400}, "attributes.k"),
        ({"k": "\udfff"}, "attributes.k"),
    ],
)
def test_attributes_that_no_filter_could_meet_are_refused(given_attributes: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        check_attributes(given_attributes)
    assert refused.value.field == field


_NAMES = ["op", "key", "value", "filter", "filters", "and", "not", "eq", "in"]
_json = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5) | st.sampled_from(_NAMES),
    lambda part: st.lists(part, max_size=3) | st.dictionaries(st.sampled_from(_NAMES[:5]), part, max_size=4),
    max_leaves=12,
)


@given(_json)
@settings(max_examples=examples(200), deadline=None)
def test_any_json_is_parsed_or_refused_by_name(data: Any) -> None:
    field: str | None = "filter"
    try:
        matches(parse(data), {})
    except InvalidInput as refused:
        field = refused.field
    assert str(field).startswith("filter")
