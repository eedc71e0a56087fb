"""The ways of searching for a question, in one call of the engine: by its vector, and by its words in each collection.

Words weigh by what a collection's own documents say, so there is a search for each collection; their scores are comparable,
and together they are one leg.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rag.ranking import Leg
from rag.retrieval.explanation import ExplainedLeg
from rag.store.base import Hit, Search, SparseVector, TenantVectors, Vector, in_order
from rag.store.conditions import Condition


@dataclass(frozen=True, slots=True)
class Legs:
    names: Mapping[str, str]  #: of the collections, by id
    condition: Condition | None
    vector: Vector | None  #: None: without the dense leg
    words: Mapping[str, SparseVector] = field(default_factory=dict)  #: by collection; without the lexical leg there are none

    def search(self, vectors: TenantVectors, limit: int) -> list[Leg]:
        """Those that there are, dense first; the best `limit` of each."""
        found = vectors.search(self._searches(limit))
        legs = []
        if self.vector is not None:
            hits, *found = found
            legs.append(Leg("dense", hits, cut_off=len(hits) == limit))
        if self.words:
            hits = in_order([hit for part in found for hit in part])[:limit]
            legs.append(Leg("lexical", hits, cut_off=len(hits) == limit))
        return legs

    def _searches(self, limit: int) -> list[Search]:
        dense = [] if self.vector is None else [Search(self.vector, limit, tuple(self.names), self.condition)]
        return dense + [Search(query, limit, (collection,), self.condition) for collection, query in self.words.items()]

    def explained(self, legs: Sequence[Leg], limit: int) -> tuple[ExplainedLeg, ...]:
        found: dict[str, Sequence[Hit]] = {leg.name: leg.hits for leg in legs}
        parts = []
        if self.vector is not None:
            dense = found.get("dense", ())
            parts.append(ExplainedLeg("dense", tuple(self.names.values()), len(self.vector), limit, len(dense)))
        if self.words:
            names = tuple(self.names[collection] for collection in self.words)
            features = len({index for query in self.words.values() for index in query.indices})
            parts.append(ExplainedLeg("lexical", names, features, limit, len(found.get("lexical", ()))))
        return tuple(parts)


def alike(legs: Sequence[list[Leg]]) -> list[list[Leg]]:
    """Of phrasings of which some have words that occur and some have none, all with a lexical leg: scores of one leg and of
    two mean different things, and are ranked together."""
    if not any(leg.name == "lexical" for each in legs for leg in each):
        return [*legs]
    none = Leg("lexical", (), cut_off=False)
    return [each if any(leg.name == "lexical" for leg in each) else [*each, none] for each in legs]
