"""Two looks at one conversation side by side: which turns, pins, recaps and memories came, went, or stand otherwise. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal

from rag.traces.difference import Change, Difference, Place, difference

Part = Literal["pinned", "recap", "recent", "memory", "recalled"]
ItemChange = Literal["same", "moved", "changed", "came", "gone"]
#: Why something is not there any more; None: it is, and was not chosen.
Why = Literal["erased", "archived", "superseded", "forgotten"]
AsOf = Literal["then", "now"] | int
Side = Mapping[str, Any]  #: `rag.traces.conversed`
_PLAIN: Mapping[Change, ItemChange] = {"same": "same", "moved": "moved", "came": "came", "gone": "gone", "overlaps": "changed"}


@dataclass(frozen=True, slots=True)
class Stood:
    """Where something was. Pins, recaps and turns of the window have no rank."""

    rank: int | None = None
    score: float | None = None
    version: int | None = None  #: of a memory
    shown: bool = True  #: it was found and had room


@dataclass(frozen=True, slots=True)
class Item:
    """`id`: of the turn or memory; of a recap its turns, of a pin and a turn of the window its `seq`."""

    part: Part
    id: str
    change: ItemChange
    then: Stood | None
    now: Stood | None


@dataclass(frozen=True, slots=True)
class Told:
    """What is known of an item where it is shown."""

    session_id: str | None = None
    seq: int | None = None
    snippet: str | None = None  #: the beginning of its text, if that is still there
    why: Why | None = None


@dataclass(frozen=True, slots=True)
class ConversationDifference:
    as_of: AsOf  #: what was compared with then: the moment itself again, today, or a time (Unix milliseconds)
    turns_then: int | None  #: the last turn; None: of several sessions
    turns_now: int | None
    items: tuple[tuple[Item, Told], ...]  #: of the window those that are not in both
    rankings: tuple[Difference, ...]  #: recalled turns and memories, those of which there are any
    spent: Mapping[str, tuple[int, int]]  #: tokens of each part, then and now

    @property
    def is_empty(self) -> bool:
        return all(item.change == "same" for item, _ in self.items) and all(each.is_empty for each in self.rankings)

    def count(self, change: ItemChange) -> int:
        return sum(item.change == change for item, _ in self.items)


Recalled = Sequence[Sequence[Any]]  #: id and score


@dataclass(frozen=True, slots=True)
class Compared:
    items: tuple[Item, ...]
    rankings: tuple[Difference, ...]
    spent: Mapping[str, tuple[int, int]]


def compared(then: Side, recalled_then: Recalled, now: Side, recalled_now: Recalled) -> Compared:
    turns = difference(_places(recalled_then), _places(recalled_now))
    memories = difference(_places(_scores(then)), _places(_scores(now)))
    items = chain(
        _pins(then, now),
        _recaps(then, now),
        _recent(then, now),
        _ranked("memory", memories, _versions(then), _versions(now), _shown(then, "memories"), _shown(now, "memories")),
        _ranked("recalled", turns, {}, {}, _shown(then, "recalled"), _shown(now, "recalled")),
    )
    spent = [side.get("spent", {}) for side in (then, now)]
    parts = dict.fromkeys(chain(*spent))
    return Compared(
        tuple(items),
        tuple(each for each in (turns, memories) if each.rows),
        {part: (spent[0].get(part, 0), spent[1].get(part, 0)) for part in parts},
    )


def _places(found: Recalled) -> list[Place]:
    return [Place(each[0], "", 0, 0, each[1], rank) for rank, each in enumerate(found, 1)]


def _scores(side: Side) -> list[tuple[str, float]]:
    return [(memory_id, score) for memory_id, _, score in side.get("memories", ())]


def _versions(side: Side) -> dict[str, int]:
    return {memory_id: number for memory_id, number, _ in side.get("memories", ())}


def _shown(side: Side, part: str) -> frozenset[str] | None:
    """None: all that was found."""
    return frozenset(side["shown"][part]) if "shown" in side else None


def _ranked(
    part: Part,
    found: Difference,
    then: Mapping[str, int],
    now: Mapping[str, int],
    shown_then: frozenset[str] | None,
    shown_now: frozenset[str] | None,
) -> Iterator[Item]:
    for row in found.rows:
        was, stands = _stood(row.then, then, shown_then), _stood(row.now, now, shown_now)
        change = _PLAIN[row.change]
        if was and stands and was.version != stands.version:
            change = "changed"
        yield Item(part, (row.now or row.then).id, change, was, stands)  # type: ignore[union-attr]  # one is there


def _stood(place: Place | None, versions: Mapping[str, int], shown: frozenset[str] | None) -> Stood | None:
    if place is None:
        return None
    return Stood(place.rank, place.score, versions.get(place.id), shown is None or place.id in shown)


def _pins(then: Side, now: Side) -> Iterator[Item]:
    return _kept("pinned", dict.fromkeys(then.get("pins", ())), dict.fromkeys(now.get("pins", ())))


def _recent(then: Side, now: Side) -> Iterator[Item]:
    windows = [dict.fromkeys(_window(side)) for side in (then, now)]
    return (item for item in _kept("recent", *windows) if item.change != "same")


def _window(side: Side) -> Iterator[int]:
    return chain.from_iterable(range(first, last + 1) for first, last in side.get("recent", ()))


def _recaps(then: Side, now: Side) -> Iterator[Item]:
    sides = [{f"{first}-{last}": digest for first, last, digest in side.get("recaps", ())} for side in (then, now)]
    return _kept("recap", *sides)


def _kept(part: Part, then: Mapping[Any, str | None], now: Mapping[Any, str | None]) -> Iterator[Item]:
    """In the order of both together, by what each is known by again."""
    for key in dict.fromkeys(chain(then, now)):
        was, stands = (Stood() if key in side else None for side in (then, now))
        if was is None:
            yield Item(part, str(key), "came", None, stands)
        elif stands is None:
            yield Item(part, str(key), "gone", was, None)
        else:
            yield Item(part, str(key), "same" if then[key] == now[key] else "changed", was, stands)
