"""What changed between two states of the interface, and what of it breaks clients, by docs/versioning.md."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from api.contract.snapshot import LEAST, MOST, Lines


@dataclass(frozen=True, order=True, slots=True)
class Change:
    breaking: bool
    place: str
    told: str

    def __str__(self) -> str:
        return f"{'BREAKING' if self.breaking else 'addition'}  {self.place}: {self.told}"


def changes(before: Lines, after: Lines) -> list[Change]:
    """Breaking ones first."""
    found: list[Change] = []
    for section in before.keys() | after.keys():
        if section not in after:
            found.append(Change(True, section, "is gone"))
        elif section not in before:
            found.append(Change(False, section, "is new"))
        else:
            found += _within(section, before[section], after[section])
    return sorted(found, key=lambda change: (not change.breaking, change.place))


def _within(section: str, before: dict[str, str], after: dict[str, str]) -> Iterator[Change]:
    for name in before.keys() | after.keys():
        old, new = before.get(name), after.get(name)
        place = f"{section} {name}".rstrip()
        if old == new:
            continue
        if old is None:
            yield Change(_is_taken(section, name) and str(new).startswith("required "), place, f"is new: {new}")
        elif new is None:
            yield Change(True, place, f"is gone: {old}")
        else:
            yield Change(_breaks(section, name, old, new), place, f"{old}  ->  {new}")


def _breaks(section: str, name: str, old: str, new: str) -> bool:
    if name == "refuses":  # clients take an unknown status for its class
        return False
    if section.startswith("operation") and not name:
        return True
    if _is_taken(section, name):
        stricter = (_word(old), _word(new)) == ("optional", "required")
        return stricter or not covers(_type(new), _type(old))
    rarer = (_word(old), _word(new)) == ("always", "sometimes")
    return rarer or not covers(_type(old), _without_new_values(_type(old), _type(new)))


def covers(wide: str, narrow: str) -> bool:
    """Whether whatever is of the one type is of the other."""
    return all(any(_covers(each, alternative) for each in wide.split(" | ")) for alternative in narrow.split(" | "))


def _covers(wide: str, narrow: str) -> bool:
    if wide == narrow or wide == "any":
        return True
    (kind, bounds), (other, others) = _parsed(wide), _parsed(narrow)
    if kind == "string" and not bounds and other.startswith('"'):
        return True
    if kind != other and (kind, other) != ("number", "integer"):
        return False
    return all(name in others and _looser(name, value, others[name]) for name, value in bounds.items())


def _looser(name: str, value: str, other: str) -> bool:
    if name in LEAST:
        return float(value) <= float(other)
    return float(value) >= float(other) if name in MOST else value == other


def _parsed(alternative: str) -> tuple[str, dict[str, str]]:
    if not alternative.endswith("]") or alternative.startswith('"'):
        return alternative, {}
    kind, _, bounds = alternative[:-1].partition("[")
    return kind, dict(bound.split("=", 1) for bound in bounds.split(";"))


def _without_new_values(old: str, new: str) -> str:
    """Of an enumeration that grew: its new values, which clients have to expect, do not count."""
    known = old.split(" | ")
    kept = [each for each in new.split(" | ") if each in known or not each.startswith('"')]
    grew = any(each.startswith('"') for each in known)
    return " | ".join(kept or known) if grew else new


def _is_taken(section: str, name: str) -> bool:
    """Whether it is something that callers send."""
    return section.startswith("input ") or (section.startswith("operation ") and not name.startswith("answer"))


def _word(value: str) -> str:
    return value.partition(" ")[0] if value.startswith(("required ", "optional ", "always ", "sometimes ")) else ""


def _type(value: str) -> str:
    return value.removeprefix(f"{_word(value)} ") if _word(value) else value
