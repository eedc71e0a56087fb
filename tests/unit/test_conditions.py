"""Conditions survive the wire, and nothing but the fixed fields and slots can be named on it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag.store.conditions import (
    KEYWORD_FIELDS,
    NUMBER_SLOTS,
    AllOf,
    AnyOf,
    Between,
    Condition,
    NoneOf,
    OnlyOf,
    SomeOf,
    from_json,
    holds,
    to_json,
)

_fields = st.sampled_from(KEYWORD_FIELDS)
_values = st.lists(st.text(max_size=3), max_size=3).map(tuple)
_bound = st.none() | st.floats(allow_nan=False, allow_infinity=False)
conditions: st.SearchStrategy[Condition] = st.recursive(
    st.builds(AnyOf, _fields, _values)
    | st.builds(OnlyOf, _fields, _values)
    | st.builds(Between, st.integers(0, NUMBER_SLOTS - 1), _bound, _bound, _bound, _bound),
    lambda part: st.builds(
        lambda kind, of: kind(tuple(of)), st.sampled_from([AllOf, SomeOf, NoneOf]), st.lists(part, max_size=3)
    ),
    max_leaves=8,
)


@given(conditions)
@settings(deadline=None)
def test_a_condition_survives_json(condition: Condition) -> None:
    assert from_json(json.loads(json.dumps(to_json(condition)))) == condition


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"all_": []},
        {"any": "tenant", "values": ["other"]},
        {"only": "tenant", "values": []},
        {"any": "number_0", "values": []},
        {"slot": -1, "gt": 0, "gte": None, "lt": None, "lte": None},
        {"slot": NUMBER_SLOTS, "gt": 0, "gte": None, "lt": None, "lte": None},
        {"all": [{"none": [{"any": "tenant", "values": ["other"]}]}]},
    ],
)
def test_unknown_fields_and_slots_are_refused(data: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"unknown|outside"):
        from_json(data)


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (AnyOf("labels", ()), False),
        (AnyOf("labels", ("x", "red")), True),
        (OnlyOf("labels", ("red",)), False),
        (OnlyOf("labels", ("red", "blue", "x")), True),
        (OnlyOf("terms", ()), True),
        (Between(0, gt=1.0), False),
        (Between(0, gte=1.0, lte=1.0), True),
        (Between(0, lt=1.0), False),
        (Between(1, gt=0.0), False),
        (AllOf(()), True),
        (SomeOf(()), False),
        (NoneOf(()), True),
    ],
)
def test_conditions_hold_as_documented(condition: Condition, expected: bool) -> None:
    assert holds(condition, {"labels": ("red", "blue")}, {0: 1.0}) is expected
