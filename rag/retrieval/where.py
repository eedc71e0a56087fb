"""What a question is asked of: its collections as they were at one moment, and what of the question follows from them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from rag.arranging.tuning import Tuning
from rag.corpus import Collection
from rag.embedding.service import Embedded
from rag.filters import Filter
from rag.lexical.encoder import encode_query
from rag.lexical.statistics import CollectionStatistics
from rag.profiles import NamedProfile
from rag.retrieval.legs import Legs
from rag.retrieval.question import AskedOf, Passage, Question
from rag.store.base import SparseVector
from rag.store.conditions import Condition


@dataclass(frozen=True, slots=True)
class Where:
    collections: Sequence[Collection]
    filter: Filter | None  #: the question's, its values as the collections keep them
    condition: Condition | None
    statistics: Mapping[str, CollectionStatistics]  #: by collection; of questions that need none there are none
    profiles: Sequence[NamedProfile]  #: of each collection

    @property
    def names(self) -> dict[str, str]:
        return {row.id: row.name for row in self.collections}

    @property
    def generations(self) -> dict[str, int]:
        return {row.name: row.generation for row in self.collections}

    @property
    def settings(self) -> Iterator[AskedOf]:
        for row, profile in zip(self.collections, self.profiles, strict=True):
            yield AskedOf(row.name, row.generation, profile.name, row.tuning["version"] if row.tuning else 0)


def tunings_of(question: Question, found: Sequence[Collection]) -> dict[str, Tuning]:
    return {row.name: Tuning.of(row.tuning["parameters"]) for row in found if row.tuning and question.tuned}


def words_of(question: Question, statistics: Mapping[str, CollectionStatistics]) -> list[dict[str, SparseVector]]:
    """Of each phrasing, in each collection."""
    if question.mode == "dense":
        return [{} for _ in question.phrasings]
    encoded = ({collection: encode_query(text, of) for collection, of in statistics.items()} for text in question.phrasings)
    return [{collection: query for collection, query in each.items() if query.indices} for each in encoded]


def legs_of(where: Where, embedded: Embedded | None, words: Sequence[Mapping[str, SparseVector]]) -> list[Legs]:
    vectors = [None] * len(words) if embedded is None else [*embedded.vectors]
    return [Legs(where.names, where.condition, *of) for of in zip(vectors, words, strict=True)]


def uncounted(where: Where, found: Iterable[Passage]) -> bool:
    """Whether there are chunks that were indexed before their words were counted."""
    empty = {row.name for row in where.collections if not where.statistics[row.id].chunks}
    return any(passage.collection in empty for passage in found)
