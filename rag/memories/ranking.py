"""Which of a subject's memories answer a question, by meaning and by words: all of them are looked at. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from rag.lexical.analysis import has_unspaced
from rag.lexical.encoder import encode_chunk, encode_query
from rag.lexical.statistics import CollectionStatistics, Counts
from rag.ranking import Fusion, Leg, fuse
from rag.store.base import Hit, Vector

FUSION = Fusion()


@dataclass(frozen=True, slots=True)
class Candidate:
    id: str
    terms: bytes
    vector: bytes | None  #: float16; None: of another model, or it has none


@dataclass(frozen=True, slots=True)
class Scored:
    id: str
    score: float
    cosine: float | None
    words: float | None


def pack_terms(text: str) -> bytes:
    """A text's features, ascending, and then the weight of each. Marks of the text's language and presence weigh nothing."""
    encoded = encode_chunk("", text)
    features = np.frombuffer(encoded.terms, "<u4")
    weights = dict(zip(encoded.sparse.indices, encoded.sparse.values, strict=True))
    return encoded.terms + np.array([weights.get(int(each), 0.0) for each in features], "<f4").tobytes()


def pack_vector(vector: Vector) -> bytes:
    return np.asarray(vector, np.float16).tobytes()


def unpack_vector(packed: bytes) -> Vector:
    return np.frombuffer(packed, np.float16).astype(np.float32)


def rank(candidates: Sequence[Candidate], question: str, vector: Vector | None, limit: int) -> list[Scored]:
    """Best first; without a vector by words alone, and then only what has one of them."""
    legs = [_by_words(candidates, question)]
    if vector is not None:
        legs.append(_by_meaning(candidates, vector))
    ranked = fuse(legs, FUSION, unspaced=has_unspaced(question))
    return [
        Scored(each.id, each.score, *(of.score if (of := each.places.get(leg)) else None for leg in ("dense", "lexical")))
        for each in ranked[:limit]
    ]


def cosines(packed: Sequence[bytes], vector: Vector) -> npt.NDArray[np.float32]:
    """Of vectors of length 1."""
    rows = np.frombuffer(b"".join(packed), np.float16).reshape(len(packed), -1).astype(np.float32)
    found: npt.NDArray[np.float32] = rows @ np.asarray(vector, np.float32)
    return found


def _by_meaning(candidates: Sequence[Candidate], vector: Vector) -> Leg:
    known = [(each.id, each.vector) for each in candidates if each.vector is not None]
    scores = cosines([packed for _, packed in known], vector).tolist() if known else []
    # What has no vector counts as the last that has: as if it had been cut off.
    return _leg("dense", [name for name, _ in known], scores, cut_off=len(known) < len(candidates))


def _by_words(candidates: Sequence[Candidate], question: str) -> Leg:
    halves = [len(each.terms) // 2 for each in candidates]
    terms = [each.terms[:half] for each, half in zip(candidates, halves, strict=True)]
    query = encode_query(question, CollectionStatistics((Counts.of_chunks(terms),)))
    if not query.indices:
        return Leg("lexical", [], cut_off=False)
    features = np.frombuffer(b"".join(terms), "<u4")
    weights = np.frombuffer(b"".join(each.terms[half:] for each, half in zip(candidates, halves, strict=True)), "<f4")
    owners = np.repeat(np.arange(len(candidates)), [half // 4 for half in halves])
    order = np.argsort(np.array(query.indices, np.uint32))
    wanted, worth = np.array(query.indices, np.uint32)[order], np.array(query.values)[order]
    places = np.minimum(np.searchsorted(wanted, features), len(wanted) - 1)
    met = wanted[places] == features
    scores = np.bincount(owners[met], weights[met] * worth[places[met]], minlength=len(candidates)).tolist()
    found = [(each.id, score) for each, score in zip(candidates, scores, strict=True) if score > 0]
    return _leg("lexical", [name for name, _ in found], [score for _, score in found], cut_off=False)


def _leg(name: Literal["dense", "lexical"], ids: Sequence[str], scores: Sequence[float], *, cut_off: bool) -> Leg:
    hits = sorted((Hit(each, score, "") for each, score in zip(ids, scores, strict=True)), key=lambda hit: (-hit.score, hit.id))
    return Leg(name, hits, cut_off)
