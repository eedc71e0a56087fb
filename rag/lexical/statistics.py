"""How many chunks of a collection have each feature: counts as sorted arrays, which add up and pack into bytes. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from rag.lexical.analysis import feature
from rag.lexical.languages import LANGUAGES

#: Features that no text has: every chunk, and the language it is in.
CHUNK = feature("\0chunk")
LANGUAGE = {feature(f"\0language {language}"): language for language in LANGUAGES}
_LANGUAGE_IDS = {language: mark for mark, language in LANGUAGE.items()}


@dataclass(frozen=True, slots=True, eq=False)
class Counts:
    """`features` ascend, each once; `counts` may be negative, where something is taken away."""

    features: npt.NDArray[np.uint32]
    counts: npt.NDArray[np.int32]

    @classmethod
    def none(cls) -> Counts:
        return cls(np.empty(0, np.uint32), np.empty(0, np.int32))

    @classmethod
    def of_chunks(cls, terms: Iterable[bytes]) -> Counts:
        """Of chunks by what `terms_of` made of each."""
        features, counts = np.unique(np.frombuffer(b"".join(terms), "<u4"), return_counts=True)
        return cls(features, counts.astype(np.int32))

    @classmethod
    def unpack(cls, packed: bytes) -> Counts:
        half = len(packed) // 2
        return cls(np.frombuffer(packed, "<u4", half // 4), np.frombuffer(packed, "<i4", half // 4, half))

    def pack(self) -> bytes:
        return self.features.astype("<u4").tobytes() + self.counts.astype("<i4").tobytes()

    def negative(self) -> Counts:
        return Counts(self.features, -self.counts)

    def at(self, wanted: npt.NDArray[np.uint32]) -> npt.NDArray[np.int32]:
        if not len(self.features):
            return np.zeros(len(wanted), np.int32)
        places = np.minimum(np.searchsorted(self.features, wanted), len(self.features) - 1)
        return np.where(self.features[places] == wanted, self.counts[places], 0).astype(np.int32)

    @property
    def bytes(self) -> int:
        return 8 * len(self.features)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Counts)
            and np.array_equal(self.features, other.features)
            and np.array_equal(self.counts, other.counts)
        )


def total(parts: Sequence[Counts]) -> Counts:
    """The sum, without features that come to nothing."""
    if not parts:
        return Counts.none()
    features, places = np.unique(np.concatenate([part.features for part in parts]), return_inverse=True)
    counts = np.zeros(len(features), np.int64)
    np.add.at(counts, places, np.concatenate([part.counts for part in parts]))
    kept = counts != 0
    return Counts(features[kept], counts[kept].astype(np.int32))


def terms_of(features: Iterable[int], language: str) -> bytes:
    """What a chunk adds to its collection's counts: each of its features once, packed."""
    return np.unique(np.array((*features, CHUNK, _LANGUAGE_IDS[language]), "<u4")).tobytes()


class Statistics(Protocol):
    """What a question is weighed by. `CollectionStatistics` is that of documents."""

    @property
    def chunks(self) -> int: ...

    def frequencies(self, features: Sequence[int]) -> npt.NDArray[np.int64]: ...

    def languages(self) -> list[str]: ...


@dataclass(frozen=True, slots=True)
class CollectionStatistics:
    """A collection's counts as they are stored: in parts that add up."""

    parts: tuple[Counts, ...]

    def frequencies(self, features: Sequence[int]) -> npt.NDArray[np.int64]:
        """Of each feature, in how many chunks of the collection it is."""
        wanted = np.asarray(features, np.uint32)
        found = np.zeros(len(wanted), np.int64)
        for part in self.parts:
            found += part.at(wanted)
        return found

    @property
    def chunks(self) -> int:
        return int(self.frequencies([CHUNK])[0])

    def languages(self) -> list[str]:
        """Those its chunks are in, the commonest first."""
        found = zip(self.frequencies(list(LANGUAGE)).tolist(), LANGUAGE.values(), strict=True)
        return [language for count, language in sorted(found, key=lambda each: (-each[0], each[1])) if count > 0]
