"""What kind of values the attributes of a collection have: declared with it, or inferred from what documents bring. Pure.

A declared kind is a promise: values and filters of another are refused, by name. An inferred one is what the first document
brought: it catches filters that could match nothing, and ends with the first document that brings another kind.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, get_args

from config.clock import instant, isoformat
from config.errors import InvalidInput
from rag.filters import RANGES, Compare, Filter, Group, Value, check_key

Kind = Literal["string", "number", "bool", "datetime"]
KINDS: tuple[str, ...] = get_args(Kind)
DATETIME, MIXED, INFERRED = "datetime", "mixed", "inferred"
MAX_DECLARED = 64
MAX_KNOWN = 128  # keys of a collection whose kind is known; what comes after has none
#: By key, as a collection keeps it: {"year": {"kind": "number", "declared": true}}.
Stored = Mapping[str, Mapping[str, Any]]


def declared(stored: Stored, given: Mapping[str, str], *, empty: bool) -> dict[str, dict[str, Any]]:
    """With what is given for some keys. `empty`: whether no document is there, whose values could be of another kind.

    INFERRED takes a declaration back. Raises InvalidInput.
    """
    known = {key: dict(one) for key, one in stored.items()}
    for key, kind in given.items():
        at = f"attributes.{key}"
        check_key(key, at)
        if kind not in (*KINDS, INFERRED):
            raise InvalidInput(f"An attribute is {', '.join(KINDS)}, or {INFERRED}.", field=at)
        before = known.get(key, {}).get("kind")
        if DATETIME in (before, kind) and before != kind and not empty:
            raise InvalidInput("Whether an attribute is a datetime is settled before the first document.", field=at)
        if kind == INFERRED:
            known.pop(key, None)
        else:
            known[key] = {"kind": kind, "declared": True}
    if sum(one["declared"] for one in known.values()) > MAX_DECLARED:
        raise InvalidInput(f"At most {MAX_DECLARED} attributes are declared.", field="attributes", limit=MAX_DECLARED)
    return known


def conformed(stored: Stored, attributes: Mapping[str, Value]) -> dict[str, Value]:
    """The values as they are kept: a datetime in UTC. Raises InvalidInput for one that is not as declared."""
    kept = dict(attributes)
    for key, value in attributes.items():
        one = stored.get(key)
        if one is not None and one["declared"]:
            kept[key] = _conformed(value, one["kind"], f"attributes.{key}", key)
    return kept


def _conformed(value: Value, kind: str, at: str, key: str) -> Value:
    if kind == DATETIME:
        unix_ms = instant(value) if isinstance(value, str) else None
        if unix_ms is None:
            raise InvalidInput(f"{key!r} is a datetime: a time in ISO 8601 with its zone.", field=at)
        return isoformat(unix_ms)
    if kind_of(value) != kind:
        raise InvalidInput(f"{key!r} is a {kind} in this collection, not a {kind_of(value)}.", field=at)
    return value


def kind_of(value: Value) -> str:
    if isinstance(value, bool):
        return "bool"
    return "string" if isinstance(value, str) else "number"


def learned(stored: Stored, attributes: Mapping[str, Value]) -> dict[str, dict[str, Any]] | None:
    """With the kinds of these values; None if nothing is new."""
    known = {key: dict(one) for key, one in stored.items()}
    for key in sorted(attributes):
        kind, one = kind_of(attributes[key]), known.get(key)
        if one is None and len(known) < MAX_KNOWN:
            known[key] = {"kind": kind, "declared": False}
        elif one is not None and not one["declared"] and one["kind"] != kind:
            one["kind"] = MIXED
    return None if known == stored else known


def typed(filter_: Filter, collections: Sequence[Stored]) -> Filter:
    """The filter with its values as they are kept. Raises InvalidInput, naming the place, where a value could match in none."""
    return _typed(filter_, collections, "filter")


def _typed(filter_: Filter, collections: Sequence[Stored], at: str) -> Filter:
    if isinstance(filter_, Group):
        places = [f"{at}.filter"] if filter_.op == "not" else [f"{at}.filters[{number}]" for number in range(len(filter_.of))]
        return replace(
            filter_, of=tuple(_typed(part, collections, place) for part, place in zip(filter_.of, places, strict=True))
        )
    return filter_ if filter_.op == "exists" else _compared(filter_, collections, f"{at}.value")


def _compared(compare: Compare, collections: Sequence[Stored], at: str) -> Compare:
    known = {stored[compare.key]["kind"] for stored in collections if compare.key in stored}
    if DATETIME in known:
        if len(known) > 1:
            raise InvalidInput(f"{compare.key!r} is a datetime in some of these collections only: ask them apart.", field=at)
        return replace(compare, values=tuple(_conformed(value, DATETIME, at, compare.key) for value in compare.values))
    for value in compare.values:
        kind = kind_of(value)
        if kind == "string" and compare.op in RANGES:
            raise InvalidInput(f"`{compare.op}` compares numbers; {compare.key!r} is not declared as a datetime.", field=at)
        if known and not known & {kind, MIXED}:
            raise InvalidInput(f"{compare.key!r} is a {' or '.join(sorted(known))} here, not a {kind}.", field=at)
    return compare


def numeric(stored: Stored) -> Iterator[tuple[str, str]]:
    """Keys and kinds that were declared and can be compared as numbers."""
    return ((key, one["kind"]) for key, one in stored.items() if one["declared"] and one["kind"] in ("number", DATETIME))
