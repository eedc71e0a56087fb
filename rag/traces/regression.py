"""What many replays say together: how much changed, whether what users found useful is still found, and where it is worst."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import sqlalchemy as sa
from sqlmodel import col, select

from config.database import Database
from rag.corpus import Document
from rag.evaluation.tables import Feedback
from rag.traces.difference import OVERLAPS, RBO_P
from rag.traces.left import Asker, named
from rag.traces.replayed import Replayed

MAX_REPLAYED, MAX_MARKS, GOOD = 500, 10_000, 4  # traces of one report; opinions that are read; least rating of a useful one
WORST = 10


@dataclass(frozen=True, slots=True)
class Mark:
    """Something that somebody found useful: a passage, or any of a document."""

    passage_id: str | None
    document: str  #: its name, as traces have it


Marks = Mapping[str, Sequence[Mark]]  #: by question


def useful_marks(database: Database, asker: Asker, questions: Iterable[str]) -> Marks:
    """What was said to be useful for these questions, by the asker's subject if it has one."""
    wanted = [*dict.fromkeys(questions)]
    good = sa.or_(col(Feedback.useful).is_(True), col(Feedback.rating) >= GOOD)
    statement = (
        select(col(Feedback.query), col(Feedback.passage_id), col(Document.external_id))
        .join(Document, col(Document.id) == col(Feedback.document_id))
        .where(good, col(Feedback.query).in_(wanted), col(Document.deleted_at).is_(None))
        .order_by(col(Feedback.id).desc())
        .limit(MAX_MARKS)
    )
    if asker.subject is not None:
        statement = statement.where(col(Feedback.subject) == asker.subject)
    found: dict[str, dict[Mark, None]] = {}
    with database.read(asker) as session:
        for query, passage_id, document in session.execute(statement):
            found.setdefault(query, {})[Mark(passage_id, named(document, asker.cache_salt))] = None
    return {query: [*marks] for query, marks in found.items()}


@dataclass(frozen=True, slots=True, order=True)
class Loss:
    rbo: float
    trace_id: str
    query: str


@dataclass(slots=True)
class Report:
    """Means over the traces that were replayed. `p` of the rank-biased overlap."""

    p: float = RBO_P
    traces: int = 0
    replayed: int = 0
    empty: int = 0  #: in which nothing is other than then
    skipped: dict[str, int] = field(default_factory=dict)  #: by the code of why not
    max_score_difference: float = 0.0
    contexts: int = 0
    contexts_equal: int = 0
    marked: int = 0  #: passages and documents that were found useful for these questions
    useful_then: int = 0  #: of these, in the answers of then
    useful_now: int = 0
    tokens: int = 0  #: charged
    _rbo: list[float] = field(default_factory=list)
    _overlaps: dict[int, list[float]] = field(default_factory=lambda: {k: [] for k in OVERLAPS})
    _losses: list[Loss] = field(default_factory=list)

    @property
    def rbo(self) -> float:
        return _mean(self._rbo)

    @property
    def overlaps(self) -> dict[int, float]:
        return {k: _mean(values) for k, values in self._overlaps.items()}

    @property
    def worst(self) -> list[Loss]:
        """Of those that changed, where least is left."""
        return heapq.nsmallest(WORST, self._losses)

    def skip(self, code: str) -> None:
        self.traces += 1
        self.skipped[code] = self.skipped.get(code, 0) + 1

    def add(self, replayed: Replayed, marks: Marks) -> None:
        self.traces += 1
        self.replayed += 1
        self.empty += replayed.is_empty
        self.max_score_difference = max(self.max_score_difference, replayed.score_difference)
        self._rbo.append(replayed.rbo)
        for k, value in replayed.overlaps.items():
            self._overlaps[k].append(value)
        if replayed.context is not None:
            self.contexts += 1
            self.contexts_equal += replayed.context.equal
        if not replayed.is_empty:
            self._losses.append(Loss(replayed.rbo, replayed.trace.id, replayed.query))
        self.tokens += replayed.charged
        for mark in marks.get(replayed.query, ()):
            self.marked += 1
            self.useful_then += _holds(replayed, mark, then=True)
            self.useful_now += _holds(replayed, mark, then=False)


def _holds(replayed: Replayed, mark: Mark, *, then: bool) -> bool:
    """Whether an answer has the passage, what it became under another chunking, or any passage of the document."""
    rows = [row for row in replayed.difference.rows if (row.then if then else row.now) is not None]
    for row in rows:
        places = [place for place in (row.then, row.now) if place is not None]
        if mark.passage_id is None and any(place.document == mark.document for place in places):
            return True
        if mark.passage_id is not None and any(place.id == mark.passage_id for place in places):
            return True
    return False


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else 1.0
