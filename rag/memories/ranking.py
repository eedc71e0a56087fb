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
LEAST_DEPTH = 100  # of each leg: 1,000 objects would take longer than all the arithmetic
Scores = npt.NDArray[np.float32]


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
    ordered, depth = sorted(candidates, key=lambda each: each.id), max(LEAST_DEPTH, 4 * limit)
    words = _by_words(ordered, question)
    legs, cosine = [_leg("lexical", ordered, words, depth, words > 0)], np.full(len(ordered), np.nan, np.float32)
    if vector is not None:
        known = [place for place, each in enumerate(ordered) if each.vector is not None]
        cosine[known] = cosines([each.vector for each in ordered if each.vector is not None], vector)
        legs.append(_leg("dense", ordered, cosine, depth, ~np.isnan(cosine)))
    places = {each.id: place for place, each in enumerate(ordered)}
    return [
        Scored(each.id, each.score, _given(cosine[places[each.id]]), _given(words[places[each.id]] or np.nan))
        for each in fuse(legs, FUSION, unspaced=has_unspaced(question))[:limit]
    ]


def cosines(packed: Sequence[bytes], vector: Vector) -> Scores:
    """Of vectors of length 1."""
    if not packed:
        return np.empty(0, np.float32)
    rows = np.frombuffer(b"".join(packed), np.float16).reshape(len(packed), -1).astype(np.float32)
    found: Scores = rows @ np.asarray(vector, np.float32)
    return found


def _by_words(candidates: Sequence[Candidate], question: str) -> Scores:
    """BM25 of each."""
    halves = [len(each.terms) // 2 for each in candidates]
    terms = [each.terms[:half] for each, half in zip(candidates, halves, strict=True)]
    query = encode_query(question, CollectionStatistics((Counts.of_chunks(terms),)))
    if not query.indices:
        return np.zeros(len(candidates), np.float32)
    features = np.frombuffer(b"".join(terms), "<u4")
    weights = np.frombuffer(b"".join(each.terms[half:] for each, half in zip(candidates, halves, strict=True)), "<f4")
    owners = np.repeat(np.arange(len(candidates)), [half // 4 for half in halves])
    order = np.argsort(np.array(query.indices, np.uint32))
    wanted, worth = np.array(query.indices, np.uint32)[order], np.array(query.values)[order]
    places = np.minimum(np.searchsorted(wanted, features), len(wanted) - 1)
    met = wanted[places] == features
    return np.bincount(owners[met], weights[met] * worth[places[met]], minlength=len(candidates)).astype(np.float32)


def _leg(
    name: Literal["dense", "lexical"], ordered: Sequence[Candidate], scores: Scores, depth: int, found: npt.NDArray[np.bool_]
) -> Leg:
    """The best so many, ties by id. What is beyond them, or has no vector, counts as the last of them."""
    places = np.flatnonzero(found)
    best = places[np.argsort(-scores[places], kind="stable")[:depth]]
    hits = [Hit(ordered[place].id, float(scores[place]), "") for place in best]
    return Leg(name, hits, cut_off=len(hits) < len(ordered) if name == "dense" else len(hits) < len(places))


def _given(score: float) -> float | None:
    return None if np.isnan(score) else float(score)
