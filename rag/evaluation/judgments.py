"""Opinions and stored questions become judged questions, of which one part is fitted to and the other measured by. Pure."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rag.evaluation.questions import Judged


@dataclass(frozen=True, slots=True)
class Vote:
    query: str
    external_id: str
    value: float  #: −1 useless to 1 useful
    subject: str | None = None


def vote_of(query: str, external_id: str, *, useful: bool | None, rating: int | None, subject: str | None) -> Vote:
    """A rating of 3 of 5 is neither; where both were given, their mean."""
    values = [] if useful is None else [1.0 if useful else -1.0]
    values += [] if rating is None else [(rating - 3) / 2]
    return Vote(query, external_id, sum(values) / max(1, len(values)), subject)


def judged(votes: Iterable[Vote], questions: Iterable[Judged]) -> list[Judged]:
    """One for each question that a document answers. A document does if more said so than not; of what one person said
    of a document and question, the last counts. Where a stored question judges a document, that counts."""
    texts: dict[str, str] = {}
    last: dict[tuple[str, str, object], float] = {}
    for place, vote in enumerate(votes):
        key = _key(vote.query)
        texts.setdefault(key, vote.query)
        last[key, vote.external_id, place if vote.subject is None else vote.subject] = vote.value
    said: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for (key, document, _), value in last.items():
        said[key][document] += value
    relevant = {key: {document: 1 for document, total in of.items() if total > 0} for key, of in said.items()}
    for question in questions:
        key = _key(question.text)
        texts.setdefault(key, question.text)
        relevant.setdefault(key, {}).update(question.relevant)
    return [Judged(key, texts[key], relevant[key]) for key in sorted(relevant, key=_digest) if relevant[key]]


def split(questions: Sequence[Judged]) -> tuple[list[Judged], list[Judged]]:
    """To be fitted to, and held out: by the hash of their words, so that a question is always on the same side."""
    halves: tuple[list[Judged], list[Judged]] = ([], [])
    for question in questions:
        halves[_digest(_key(question.text))[-1] & 1].append(question)
    return halves


def _key(text: str) -> str:
    return " ".join(text.casefold().split())


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
