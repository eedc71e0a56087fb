"""What a collection can be tuned by, and the search for the best of it: one coordinate after the other. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

DENSE_WEIGHTS = (0.0, 0.2, 0.35, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
RECENCY_WEIGHTS, HALF_LIVES = (0.02, 0.05, 0.1, 0.2), (7.0, 30.0, 180.0)
BOOST_WEIGHTS = (-0.2, -0.1, -0.05, 0.05, 0.1, 0.2)
MAX_BOOSTS, PASSES, LEAST_SEEN, LEAST_SHARE = 4, 2, 5, 0.1
Attribute = tuple[str, str | bool]  #: key and value


@dataclass(frozen=True, slots=True)
class Parameters:
    """How the legs of a search in a collection are weighed, and what is added to the scores of its passages."""

    dense_weight: float | None = None  #: of fusion; None: as the profile says
    boosts: tuple[tuple[Attribute, float], ...] = ()
    recency: tuple[float, float] | None = None  #: weight, half-life in days

    def as_fields(self) -> dict[str, Any]:
        """As a query takes them, and as a collection is tuned to them."""
        boosts = [
            {"filter": {"key": key, "op": "eq", "value": value}, "weight": weight} for (key, value), weight in self.boosts
        ]
        recency = None if self.recency is None else {"weight": self.recency[0], "half_life_days": self.recency[1]}
        return {"dense_weight": self.dense_weight, "boosts": boosts, "recency": recency}

    def boosting(self, attribute: Attribute, weight: float) -> Parameters:
        others = tuple(boost for boost in self.boosts if boost[0] != attribute)
        return replace(self, boosts=(*others, (attribute, weight)) if weight else others)


def telling(passages: Iterable[tuple[Mapping[str, Any], bool]]) -> list[Attribute]:
    """The few attributes that most part relevant passages from others. `passages`: attributes, and whether it is relevant."""
    seen: dict[bool, Counter[Attribute]] = {True: Counter(), False: Counter()}
    totals = Counter[bool]()
    for attributes, relevant in passages:
        totals[relevant] += 1
        seen[relevant].update((key, value) for key, value in attributes.items() if isinstance(value, str | bool))
    shares = {
        attribute: abs(seen[True][attribute] / max(1, totals[True]) - seen[False][attribute] / max(1, totals[False]))
        for attribute in seen[True].keys() | seen[False].keys()
        if seen[True][attribute] + seen[False][attribute] >= LEAST_SEEN
    }
    best = sorted(shares, key=lambda attribute: (-shares[attribute], repr(attribute)))
    return [attribute for attribute in best[:MAX_BOOSTS] if shares[attribute] >= LEAST_SHARE]


def fit(value_of: Callable[[Parameters], float], attributes: Iterable[Attribute]) -> Parameters:
    """The best that is found; of equally good ones the first, so that nothing is changed for nothing."""
    steps: list[Callable[[Parameters], list[Parameters]]] = [_weights, _recencies]
    steps += [lambda now, attribute=each: _boosts(now, attribute) for each in attributes]  # type: ignore[misc]
    known: dict[Parameters, float] = {}
    best = Parameters()
    known[best] = value_of(best)
    for _ in range(PASSES):
        before = best
        for step in steps:
            for tried in step(best):
                if tried not in known:
                    known[tried] = value_of(tried)
                if known[tried] > known[best] + 1e-9:
                    best = tried
        if best == before:
            break
    return best


def _weights(now: Parameters) -> list[Parameters]:
    return [replace(now, dense_weight=weight) for weight in (None, *DENSE_WEIGHTS)]


def _recencies(now: Parameters) -> list[Parameters]:
    each = [(weight, days) for weight in RECENCY_WEIGHTS for days in HALF_LIVES]
    return [replace(now, recency=None), *(replace(now, recency=one) for one in each)]


def _boosts(now: Parameters, attribute: Attribute) -> list[Parameters]:
    return [now.boosting(attribute, weight) for weight in (0.0, *BOOST_WEIGHTS)]
