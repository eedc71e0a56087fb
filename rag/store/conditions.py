"""Conditions on a point's filter fields, as every store understands them. Pure: no engine, no wire, no user syntax.

A point's fields are few and fixed, because in a shared shard one tenant's attribute index slows every other's filter
(0.13 → 12–17 ms measured): `collection`, `document`, `labels`, `terms` (hashed attributes) and `NUMBER_SLOTS` numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

NUMBER_SLOTS = 8
KEYWORD_FIELDS = ("collection", "document", "labels", "terms")


@dataclass(frozen=True, slots=True)
class AnyOf:
    """The field holds at least one of the values."""

    field: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class OnlyOf:
    """The field holds nothing but these values; an empty field passes."""

    field: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Between:
    """The numeric slot holds a number within the bounds."""

    slot: int
    gt: float | None = None
    gte: float | None = None
    lt: float | None = None
    lte: float | None = None


@dataclass(frozen=True, slots=True)
class AllOf:
    of: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class SomeOf:
    of: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class NoneOf:
    of: tuple[Condition, ...]


Condition = AnyOf | OnlyOf | Between | AllOf | SomeOf | NoneOf
_GROUPS: dict[str, type[AllOf | SomeOf | NoneOf]] = {"all": AllOf, "some": SomeOf, "none": NoneOf}


def to_json(condition: Condition) -> dict[str, Any]:
    match condition:
        case AnyOf(field, values):
            return {"any": field, "values": list(values)}
        case OnlyOf(field, values):
            return {"only": field, "values": list(values)}
        case Between(slot, gt, gte, lt, lte):
            return {"slot": slot, "gt": gt, "gte": gte, "lt": lt, "lte": lte}
        case AllOf(of):
            return {"all": [to_json(part) for part in of]}
        case SomeOf(of):
            return {"some": [to_json(part) for part in of]}
        case NoneOf(of):
            return {"none": [to_json(part) for part in of]}


def from_json(data: Mapping[str, Any]) -> Condition:
    if "any" in data:
        return AnyOf(_keyword(data["any"]), tuple(map(str, data["values"])))
    if "only" in data:
        return OnlyOf(_keyword(data["only"]), tuple(map(str, data["values"])))
    if "slot" in data:
        slot = int(data["slot"])
        if not 0 <= slot < NUMBER_SLOTS:
            raise ValueError(f"slot {slot} is outside 0..{NUMBER_SLOTS - 1}")
        return Between(slot, data["gt"], data["gte"], data["lt"], data["lte"])
    for name, group in _GROUPS.items():
        if name in data:
            return group(tuple(from_json(part) for part in data[name]))
    raise ValueError(f"unknown condition {sorted(data)}")


def _keyword(field: str) -> str:
    if field not in KEYWORD_FIELDS:
        raise ValueError(f"unknown field {field!r}")
    return field


def holds(condition: Condition, keywords: Mapping[str, tuple[str, ...]], numbers: Mapping[int, float]) -> bool:
    """Evaluate in plain Python: the memory store's filter and the oracle for the others."""
    match condition:
        case AnyOf(field, values):
            return not set(values).isdisjoint(keywords.get(field, ()))
        case OnlyOf(field, values):
            return set(values).issuperset(keywords.get(field, ()))
        case Between(slot, gt, gte, lt, lte):
            number = numbers.get(slot)
            return number is not None and (
                (gt is None or number > gt)
                and (gte is None or number >= gte)
                and (lt is None or number < lt)
                and (lte is None or number <= lte)
            )
        case AllOf(of):
            return all(holds(part, keywords, numbers) for part in of)
        case SomeOf(of):
            return any(holds(part, keywords, numbers) for part in of)
        case NoneOf(of):
            return not any(holds(part, keywords, numbers) for part in of)
