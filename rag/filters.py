"""The closed language of filters over document attributes: parsed with caps, evaluated exactly, compiled to a superset.

    {"key": "year", "op": "gte", "value": 2020}
    {"op": "and", "filters": [..., {"op": "not", "filter": ...}]}

The engine narrows by hashed terms and numeric slots; hydration evaluates the filter itself on the stored attributes. So a
compiled filter may let too much through (a number without a slot), never too little, but for a collision of 64-bit hashes.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from config.clock import instant
from config.errors import InvalidInput
from rag.store.conditions import AllOf, AnyOf, Between, Condition, NoneOf, SomeOf

Value = str | float | bool
Attributes = Mapping[str, Value]

MAX_DEPTH, MAX_NODES, MAX_VALUES = 8, 64, 100
MAX_ATTRIBUTES, MAX_KEY_CHARS, MAX_VALUE_CHARS = 16, 64, 512
RANGES = ("gt", "gte", "lt", "lte")
_EQUALITIES = ("eq", "ne", "in", "nin")


@dataclass(frozen=True, slots=True)
class Compare:
    key: str
    op: str  #: eq, ne, in, nin, exists, gt, gte, lt, lte
    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Group:
    op: str  #: and, or, not
    of: tuple[Filter, ...]


Filter = Compare | Group


def parse(data: Any) -> Filter:
    """Raise InvalidInput, naming the place, for anything outside the language or its caps."""
    return _Parser().parse(data, "filter", 1)


class _Parser:
    def __init__(self) -> None:
        self._nodes = 0

    def parse(self, data: Any, at: str, depth: int) -> Filter:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise InvalidInput(f"A filter has at most {MAX_NODES} conditions.", field="filter", limit=MAX_NODES)
        if depth > MAX_DEPTH:
            raise InvalidInput(f"A filter nests at most {MAX_DEPTH} deep.", field=at, limit=MAX_DEPTH)
        if not isinstance(data, Mapping):
            raise InvalidInput("A filter is an object with `op`.", field=at)
        op = data.get("op")
        if op in ("and", "or"):
            return self._group(data, str(op), at, depth)
        if op == "not":
            _only(data, ("op", "filter"), at)
            return Group("not", (self.parse(data.get("filter"), f"{at}.filter", depth + 1),))
        return _compare(data, at)

    def _group(self, data: Mapping[str, Any], op: str, at: str, depth: int) -> Filter:
        _only(data, ("op", "filters"), at)
        parts = data.get("filters")
        if not isinstance(parts, list) or not parts:
            raise InvalidInput(f"`{op}` needs a list of at least one filter.", field=f"{at}.filters")
        return Group(op, tuple(self.parse(part, f"{at}.filters[{i}]", depth + 1) for i, part in enumerate(parts)))


def _compare(data: Mapping[str, Any], at: str) -> Compare:
    _only(data, ("key", "op", "value"), at)
    key, op, value = data.get("key"), data.get("op"), data.get("value")
    if not isinstance(key, str) or not 1 <= len(key) <= MAX_KEY_CHARS:
        raise InvalidInput(f"`key` is 1 to {MAX_KEY_CHARS} characters.", field=f"{at}.key", limit=MAX_KEY_CHARS)
    _check_text(key, f"{at}.key")
    if op == "exists":
        if not isinstance(value, bool):
            raise InvalidInput("`exists` takes true or false.", field=f"{at}.value")
        return Compare(key, "exists", (value,))
    if op in ("in", "nin"):
        if not isinstance(value, list) or not 1 <= len(value) <= MAX_VALUES:
            raise InvalidInput(f"`{op}` takes 1 to {MAX_VALUES} values.", field=f"{at}.value", limit=MAX_VALUES)
        return Compare(key, op, tuple(check_value(item, f"{at}.value") for item in value))
    if op in ("eq", "ne"):
        return Compare(key, op, (check_value(value, f"{at}.value"),))
    if op in RANGES:
        bound = check_value(value, f"{at}.value")
        if isinstance(bound, bool) or (isinstance(bound, str) and instant(bound) is None):
            raise InvalidInput(f"`{op}` compares numbers, or times in ISO 8601 with their zone.", field=f"{at}.value")
        return Compare(key, op, (bound,))
    known = ", ".join((*_EQUALITIES, *RANGES, "exists", "and", "or", "not"))
    raise InvalidInput(f"`op` is one of {known}.", field=f"{at}.op")


def _only(data: Mapping[str, Any], allowed: tuple[str, ...], at: str) -> None:
    if unknown := sorted(str(key) for key in data if key not in allowed):
        raise InvalidInput(f"Unknown field {unknown[0]!r}; here are {', '.join(allowed)}.", field=f"{at}.{unknown[0]}")


def check_value(value: Any, at: str) -> Value:
    if isinstance(value, bool):
        return value
    if isinstance(value, (int, float)):
        number = float(value) if abs(value) <= 2**53 else math.inf
        if not math.isfinite(number):
            raise InvalidInput("A number must be finite and within ±2^53.", field=at, limit=2**53)
        return number
    if not isinstance(value, str):
        raise InvalidInput("A value is a text, a number, or true or false.", field=at)
    if len(value) > MAX_VALUE_CHARS:
        raise InvalidInput(f"A text value has at most {MAX_VALUE_CHARS} characters.", field=at, limit=MAX_VALUE_CHARS)
    _check_text(value, at)
    return value


def _check_text(text: str, at: str) -> None:
    """NUL separates what is hashed, and lone surrogates have no bytes to hash."""
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise InvalidInput("NUL and lone surrogates are not allowed.", field=at)


def check_attributes(attributes: Mapping[str, Any], at: str = "attributes") -> dict[str, Value]:
    if len(attributes) > MAX_ATTRIBUTES:
        raise InvalidInput(f"At most {MAX_ATTRIBUTES} attributes.", field=at, limit=MAX_ATTRIBUTES)
    for key in attributes:
        check_key(key, at)
    return {key: check_value(value, f"{at}.{key}") for key, value in attributes.items()}


def check_key(key: str, at: str) -> None:
    if not 1 <= len(key) <= MAX_KEY_CHARS:
        raise InvalidInput(f"A key is 1 to {MAX_KEY_CHARS} characters.", field=at, limit=MAX_KEY_CHARS)
    _check_text(key, at)


def matches(filter_: Filter, attributes: Attributes) -> bool:
    """The meaning of a filter. Types differ ("1" is not 1); `ne`, `nin` and `not` hold where the key is absent."""
    if isinstance(filter_, Group):
        if filter_.op == "not":
            return not matches(filter_.of[0], attributes)
        results = (matches(part, attributes) for part in filter_.of)
        return all(results) if filter_.op == "and" else any(results)
    value, op = attributes.get(filter_.key), filter_.op
    if op == "exists":
        return (value is not None) == filter_.values[0]
    if op in ("eq", "in"):
        return value is not None and _kind(value) in map(_kind, filter_.values)
    if op in ("ne", "nin"):
        return value is None or _kind(value) not in map(_kind, filter_.values)
    place, bound = _on_line(value), _on_line(filter_.values[0])
    if place is None or bound is None or isinstance(value, str) != isinstance(filter_.values[0], str):
        return False
    return {"gt": place > bound, "gte": place >= bound, "lt": place < bound, "lte": place <= bound}[op]


def _on_line(value: Value | None) -> float | None:
    """A number, or a time in milliseconds; None for what has no order."""
    if isinstance(value, str):
        return instant(value)
    return None if value is None or isinstance(value, bool) else value


def slot_name(key: str, kind: str) -> str:
    """By which a numeric slot is known: times have others than numbers. No key contains NUL."""
    return f"{key}\0datetime" if kind == "datetime" else key


def _slot_of(slots: Mapping[str, int], key: str, value: Value) -> int | None:
    return slots.get(slot_name(key, "datetime" if isinstance(value, str) else "number"))


def ordered(attributes: Attributes) -> bool:
    """Whether any of them could fill a numeric slot; of most documents none, and then nobody has to ask for slots."""
    return any(_on_line(value) is not None for value in attributes.values())


def numbers(attributes: Attributes, slots: Mapping[str, int]) -> tuple[tuple[int, float], ...]:
    """What the slots of a point are filled with. `slots`: by `slot_name`."""
    named = ((_slot_of(slots, key, value), _on_line(value)) for key, value in attributes.items())
    return tuple(sorted((slot, float(number)) for slot, number in named if slot is not None and number is not None))


def _kind(value: Value) -> tuple[str, Value]:
    """Value with its type: in Python True equals 1 and 1 equals 1.0; here only the latter do."""
    if isinstance(value, bool):
        return "bool", value
    return ("text", value) if isinstance(value, str) else ("number", float(value) + 0.0)


def term(key: str, value: Value | None = None) -> str:
    """The hashed keyword that a point carries for `key` (existence) or `key=value` (equality)."""
    text = key if value is None else "{}\0{}\0{}".format(key, *_kind(value))
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def terms(attributes: Attributes) -> tuple[str, ...]:
    return tuple(sorted({term(key) for key in attributes} | {term(key, value) for key, value in attributes.items()}))


def compile_filter(filter_: Filter, slots: Mapping[str, int], *, negated: bool = False) -> Condition:
    """A condition that every matching document's points meet. `slots`: numeric slots by `slot_name`."""
    if isinstance(filter_, Group):
        if filter_.op == "not":
            return compile_filter(filter_.of[0], slots, negated=not negated)
        parts = tuple(compile_filter(part, slots, negated=negated) for part in filter_.of)
        return AllOf(parts) if (filter_.op == "and") != negated else SomeOf(parts)
    return _compile_compare(filter_, slots, negated)


def _compile_compare(compare: Compare, slots: Mapping[str, int], negated: bool) -> Condition:
    if compare.op in RANGES:
        return _compile_range(compare, slots, negated)
    if compare.op == "exists":
        wanted = AnyOf("terms", (term(compare.key),))
        positive = bool(compare.values[0])
    else:
        wanted = AnyOf("terms", tuple(term(compare.key, value) for value in compare.values))
        positive = compare.op in ("eq", "in")
    if positive != negated:
        return wanted
    return NoneOf((wanted,))


def _compile_range(compare: Compare, slots: Mapping[str, int], negated: bool) -> Condition:
    slot, bound = _slot_of(slots, compare.key, compare.values[0]), _on_line(compare.values[0])
    if slot is None or bound is None:
        return AllOf(()) if negated else AnyOf("terms", (term(compare.key),))
    inside = Between(slot, **{compare.op: float(bound)})
    return NoneOf((inside,)) if negated else inside
