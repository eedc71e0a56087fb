"""What a question leaves behind: enough to ask it again, and how it was answered then. Ids and places, never a document's text.

What of it is kept says the plan: all of it (`full`), nothing of the question, by whose vector it could be guessed too (`ids`),
or only that there was one, when, and what it took (`none`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b, sha256
from typing import Any, Literal, Protocol

import numpy as np
import orjson

from rag.embedding.runtime import Matrix
from rag.packing.rendering import Citation
from rag.ranking import Ranked
from rag.retrieval.question import Answer, AskedOf, Question
from rag.traces.conversed import Conversed
from rag.traces.wording import question_to_json
from rag.types import Reader

Kind = Literal["query", "context", "recall"]
Contents = Literal["full", "ids", "none"]
#: Of a passage in a trace, in this order. `dense` and `lexical`: rank and score in that leg, or null.
PASSAGE = (
    *("id", "document_id", "named", "collection", "version", "start", "end", "score"),
    *("boost", "rerank_score", "neighbour_of", "fused", "dense", "lexical"),
)
_OF_PASSAGE = PASSAGE[3:11]


class Asker(Reader, Protocol):
    """A reader that may act for an end user."""

    @property
    def subject(self) -> str | None: ...

    def pseudonym(self, subject: str) -> str:
        """What stands for a subject where its name must not stay."""


@dataclass(frozen=True, slots=True)
class TracePolicy:
    sample: float  #: of 1, which part of the questions leaves a trace
    contents: Contents
    retention_days: int


@dataclass(frozen=True, slots=True)
class Packing:
    """A context as it was packed: of its text only the digest is kept."""

    text: str
    tokens: int
    max_tokens: int
    tokenizer: str
    left_out: int = 0
    citations: Sequence[Citation] = ()


@dataclass(frozen=True, slots=True)
class Left:
    """What a route knows when it has answered. `details` hold numbers, names and ids; what is the user's own words goes into
    `words`, which is kept with the question or not at all."""

    kind: Kind
    question: Question | None = None
    answer: Answer | None = None
    packing: Packing | None = None
    subject: str | None = None  #: whose session it is, if the caller is not bound to one
    session_id: str | None = None
    conversed: Conversed | None = None  #: of a session's context, and of a recall
    details: Mapping[str, Any] = field(default_factory=dict)
    words: Mapping[str, Any] = field(default_factory=dict)


def bounds_of(asker: Reader) -> str | None:
    """Of what an asker is confined to, equal for equal bounds; None: to nothing."""
    bounds = [None if names is None else sorted(names) for names in (asker.collections, asker.labels)]
    return None if bounds == [None, None] else blake2b(repr(bounds).encode(), digest_size=12).hexdigest()


def is_sampled(tenant_id: str, request: str, sample: float) -> bool:
    """The same for every repetition of a request: it depends on nothing else."""
    if sample >= 1:
        return True
    digest = blake2b(f"{tenant_id} {request}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) < sample * 2**64


def body_of(left: Left, asker: Asker, contents: Contents) -> bytes:
    """As JSON."""
    answer, packing = left.answer, left.packing
    body: dict[str, Any] = {"recalled": len(_recalled(left)), "details": left.details}
    if answer is not None:
        body |= _told(answer)
    if packing is not None:
        body["context"] = {name: getattr(packing, name) for name in ("tokens", "max_tokens", "tokenizer", "left_out")}
    if left.conversed is not None:
        body["degraded"] = left.conversed.degraded
    if contents != "none":
        body |= _ids(left, asker)
    if contents == "full":
        body["words"] = left.words
        if left.conversed is not None:
            body["asked"] = {"text": left.conversed.question, "dense": left.conversed.vector is not None}
        if left.question is not None:
            body["question"] = question_to_json(left.question)
            body["searched"] = _searched(answer)
    return orjson.dumps(body)


def _recalled(left: Left) -> Sequence[tuple[str, float]]:
    return () if left.conversed is None else left.conversed.recalled


def _told(answer: Answer) -> dict[str, Any]:
    """What tells nothing of question or answer but how it went."""
    searched = answer.searched
    return {
        "collections": {} if searched is None else {each.name: _asked(answer, each) for each in searched.collections},
        "found": len(answer.passages),
        "degraded": answer.degraded,
        "timings_ms": answer.timings_ms,
        "budget": {
            **{"embedding_tokens": answer.charged, "cached_tokens": answer.cached},
            **{"rerank_tokens": answer.rerank_tokens, "llm_tokens": answer.llm_tokens},
        },
        "cached": answer.reused,
        "similarity": answer.similarity,
    }


def _asked(answer: Answer, each: AskedOf) -> list[Any]:
    return [answer.generations.get(each.name, each.generation), each.profile, each.tuning]


def _ids(left: Left, asker: Asker) -> dict[str, Any]:
    labels = asker.labels
    ids: dict[str, Any] = {"labels": None if labels is None else sorted(labels), "recalled": [*_recalled(left)]}
    if left.conversed is not None:
        ids["conversation"] = left.conversed.ids
    if left.answer is not None:
        ids["passages"] = _passages(left.answer, asker.cache_salt)
    if left.packing is not None:
        packing = left.packing
        ids["context"] = {
            **{name: getattr(packing, name) for name in ("tokens", "max_tokens", "tokenizer", "left_out")},
            "sha256": digest_of(packing.text),
            "pieces": [[cited.number, cited.passage.id, cited.start, cited.end] for cited in packing.citations],
        }
    return ids


def _passages(answer: Answer, salt: bytes) -> list[list[Any]]:
    ranked = {} if answer.searched is None else {each.id: each for each in answer.searched.ranked}
    return [
        [passage.id, passage.document_id, named(passage.external_id, salt)]
        + [getattr(passage, name) for name in _OF_PASSAGE]
        + _legs(ranked.get(passage.id))
        for passage in answer.passages
    ]


def named(external_id: str, salt: bytes) -> str:
    """By this a document's name is known again, in any collection; the name itself is gone when the document is deleted."""
    return blake2b(external_id.encode(), key=salt[: blake2b.MAX_KEY_SIZE], digest_size=9).hexdigest()


def _legs(ranked: Ranked | None) -> list[Any]:
    if ranked is None:
        return [None, None, None]
    places = (ranked.places.get(leg) for leg in ("dense", "lexical"))
    return [ranked.fused, *(None if place is None else [place.rank, place.score] for place in places)]


def _searched(answer: Answer | None) -> dict[str, Any] | None:
    if answer is None or answer.searched is None:
        return None
    searched = answer.searched
    return {"phrasings": searched.phrasings, "at": searched.at, "dense": searched.vectors is not None}


def digest_of(text: str) -> str:
    return sha256(text.encode()).hexdigest()


def vectors_of(left: Left) -> Matrix | None:
    """Of the phrasings that documents were searched by, and then of what was asked of the conversation."""
    searched = None if left.answer is None else left.answer.searched
    rows = [] if searched is None or searched.vectors is None else [searched.vectors]
    if left.conversed is not None and left.conversed.vector is not None:
        rows.append(np.asarray([left.conversed.vector], np.float32))
    return np.concatenate(rows) if rows else None


def packed_vectors(vectors: Matrix) -> bytes:
    """Vectors of models are those of the cache, which keeps them as float16; one that was moved is not."""
    with np.errstate(over="ignore"):
        half = vectors.astype(np.float16)
    exact = np.array_equal(half.astype(np.float32), vectors)
    return half.tobytes() if exact else np.asarray(vectors, np.float32).tobytes()


def unpacked_vectors(data: bytes, count: int, dimensions: int) -> Matrix | None:
    """`count` vectors; None if these are none of so many dimensions."""
    kinds = {2 * count * dimensions: np.float16, 4 * count * dimensions: np.float32}
    kind = kinds.get(len(data))
    return None if kind is None else np.frombuffer(data, kind).reshape(count, dimensions).astype(np.float32)


def shown_passage(values: Sequence[Any]) -> dict[str, Any]:
    return dict(zip(PASSAGE, values, strict=True))


def asked_text(body: Mapping[str, Any]) -> str | None:
    """What was asked, of one that holds it."""
    asked = body.get("question") or body.get("asked") or {}
    text: str | None = asked.get("text")
    return text


def read_body(body: bytes) -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads(body)
    return found
