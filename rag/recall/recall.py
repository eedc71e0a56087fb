"""A question becomes the turns that answer it, of one session or of all sessions of a subject. What is answered is read from
SQL at that moment, so nothing that is erased, expired or out of a session's window is ever given back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache, partial
from typing import Any, Literal

import numpy as np
import sqlalchemy as sa
from sqlalchemy.orm import Session
from sqlmodel import col, select

from config.clock import Clock
from config.database import ROWS_BY_KEY, Database
from config.errors import BudgetExhausted, InvalidInput, Unavailable
from rag.embedding.service import Embedded, EmbeddingService
from rag.recall.loading import MAX_TURNS, Indexed, Known, brought_up
from rag.recall.ranking import Asked, Hit, Mask, Weights, rank
from rag.recall.resident import Held, Residents
from rag.recall.thread import Thread
from rag.recall.times import Span, spans
from rag.recall.turns import SaidTurn
from rag.retrieval.stopwatch import Stopwatch
from rag.sessions.finding import alive, find_columns, reachable
from rag.sessions.tables import ChatSession, SessionTag, Turn
from rag.sessions.values import ROLES
from rag.store.base import Vector
from rag.types import Meter, Speaker

MAX_TOP_K = 100
MAX_NEIGHBOURS = 5
MAX_SESSIONS = 200  #: of a subject, those that were active last
Times = Literal["boost", "narrow", "ignore"]


@dataclass(frozen=True, slots=True)
class RecallQuestion:
    text: str
    top_k: int = 10
    neighbours: int = 0  #: turns to either side of each that are given with it
    roles: frozenset[str] = frozenset()  #: none: all
    tags: tuple[str, ...] = ()  #: that a session must have, of a subject's
    said_after: int | None = None  #: milliseconds, included
    said_before: int | None = None  #: milliseconds, not included
    asked_at: datetime | None = None  #: what "yesterday" refers to; None: now, in UTC
    times: Times = "boost"  #: what times that the text names do: lift what was said then, leave out all else, or nothing
    recency: float = Weights().recency
    by_words: bool = False  #: embed nothing


@dataclass(frozen=True, slots=True)
class RecalledTurn:
    turn: SaidTurn
    score: float
    legs: Mapping[str, float]
    before: tuple[SaidTurn, ...] = ()
    after: tuple[SaidTurn, ...] = ()


@dataclass(frozen=True, slots=True)
class Recalled:
    turns: tuple[RecalledTurn, ...]  #: the best first
    spans: tuple[Span, ...] = ()  #: times that the text names
    degraded: tuple[str, ...] = ()  #: `dense`: there was no model or no budget for the question
    waiting: int = 0  #: turns that have no vector yet: they are found by their words
    charged: int = 0
    cached: int = 0
    timings_ms: Mapping[str, float] = field(default_factory=dict)  #: `model` is a part of `embedding`
    vector: Vector | None = None  #: of the question; None: by words alone
    asked_at: datetime | None = None  #: what times of the question refer to
    indexed: tuple[Indexed, ...] = ()


@dataclass(frozen=True, slots=True)
class Recall:
    database: Database
    clock: Clock
    embedding: EmbeddingService
    residents: Residents

    def for_tenant(self, scope: Speaker, meter: Meter) -> TenantRecall:
        return TenantRecall(self, scope, meter)


_KNOWN = sa.select(
    col(ChatSession.id), col(ChatSession.turns), col(ChatSession.archived_turns), col(ChatSession.embedded_turns)
)
_OF_ONE = reachable(_KNOWN)
_OF_SUBJECT = (
    _KNOWN
    .where(col(ChatSession.subject) == sa.bindparam("subject"), *alive(sa.bindparam("now", type_=sa.BigInteger())))
    .order_by(col(ChatSession.last_active_at).desc(), col(ChatSession.id).desc())
    .limit(MAX_SESSIONS)
)  # fmt: skip


@cache
def _by_ids(size: int) -> sa.Select[Any]:
    """Turns in the windows of sessions that nobody has ended. One statement for each size: an `IN` that is expanded with each
    execution costs more than SQLite takes for it.
    """
    ids = [sa.bindparam(f"id{number}", type_=sa.String()) for number in range(size)]
    return (
        sa.select(*(col(getattr(Turn, name)) for name in SaidTurn._fields))
        .join(ChatSession, col(ChatSession.id) == col(Turn.session_id))
        .where(col(Turn.id).in_(ids), col(Turn.seq) > col(ChatSession.archived_turns))
        .where(*alive(sa.bindparam("now", type_=sa.BigInteger())))
        .execution_options(**ROWS_BY_KEY)
    )


Where = Callable[[Session], list[Known]]
Found = Mapping[int, tuple[Held, Known]]  #: by the identity of the thread


class TenantRecall:
    def __init__(self, parts: Recall, scope: Speaker, meter: Meter) -> None:
        self._parts, self._scope, self._meter = parts, scope, meter

    def in_session(self, session_id: str, question: RecallQuestion, *, charge_id: str) -> Recalled:
        """Raise NotFound as `TenantSessions` does. Without a model or budget the words have to do."""
        return self._recall(lambda session: [self._find(session, session_id)], question, charge_id)

    def of_subject(self, subject: str | None, question: RecallQuestion, *, charge_id: str) -> Recalled:
        """Among the newest turns of its sessions; nothing of a subject that has none. Raise Forbidden for another's."""
        who = self._scope.speaking_for(subject)
        if who is None:
            raise InvalidInput("Name the subject: the end user whose sessions to search.", field="subject")
        return self._recall(lambda session: self._sessions(session, who, question.tags), question, charge_id)

    def _find(self, session: Session, session_id: str) -> Known:
        return Known._make(find_columns(session, self._scope, session_id, self._parts.clock(), _OF_ONE))

    def _sessions(self, session: Session, subject: str, tags: Sequence[str]) -> list[Known]:
        """The newest, until they have MAX_TURNS."""
        statement = _OF_SUBJECT
        for tag in dict.fromkeys(tags):
            tagged = select(SessionTag.tag).where(SessionTag.tag == tag, SessionTag.session_id == ChatSession.id)
            statement = statement.where(tagged.exists())
        found, turns = list[Known](), 0
        for row in session.execute(statement, {"subject": subject, "now": self._parts.clock()}):
            if turns < MAX_TURNS:
                found.append(Known(*row))
                turns += row.turns - row.archived_turns
        return found

    def _recall(self, where: Where, question: RecallQuestion, charge_id: str) -> Recalled:
        watch = Stopwatch()
        found = self._found(where)
        watch.lap("index")
        embedded, degraded = self._embed(question, charge_id)
        watch.lap("embedding")
        asked_at = question.asked_at or datetime.fromtimestamp(self._parts.clock() / 1000, UTC)
        named = spans(question.text, asked_at) if question.times != "ignore" else ()
        vector = None if embedded is None else embedded.vectors[0]
        asked = Asked(question.text, vector, named if question.times == "boost" else ())
        hits, indexed = _ranked(found, asked, question, named)
        watch.lap("ranking")
        turns = self._read(hits, found, question.neighbours)
        watch.lap("hydration")
        return Recalled(
            turns=tuple(turns),
            spans=named,
            degraded=degraded,
            waiting=sum(known.turns - max(known.embedded_turns, known.archived_turns) for _, known in found.values()),
            charged=0 if embedded is None else embedded.charged,
            cached=0 if embedded is None else embedded.cached,
            timings_ms={**watch.each(), "model": 0.0 if embedded is None else round(embedded.model_s * 1000, 3)},
            vector=vector,
            asked_at=asked_at,
            indexed=indexed,
        )

    def _found(self, where: Where) -> Found:
        """The indexes of the sessions, with all that has been said."""
        found, space = {}, self._parts.embedding.space.id
        with self._parts.database.read(self._scope) as session:
            for known in where(session):
                held = brought_up(self._parts.residents, session, self._scope.tenant_id, known, space)
                found[id(held.thread)] = held, known
        return found

    def _embed(self, question: RecallQuestion, charge_id: str) -> tuple[Embedded | None, tuple[str, ...]]:
        if question.by_words:
            return None, ()
        try:
            return self._parts.embedding.embed_query(self._scope, self._meter, question.text, charge_id=charge_id), ()
        except (Unavailable, BudgetExhausted):
            return None, ("dense",)

    def _read(self, hits: Sequence[Hit], found: Found, neighbours: int) -> list[RecalledTurn]:
        """What was said, from SQL as it is now: a turn that is not there any more is left out."""
        wanted = [_around(hit, *found[id(hit.thread)], neighbours) for hit in hits]
        ids = sorted({each for around in wanted for part in around for each in part})
        if not ids:
            return []
        with self._parts.database.read(self._scope) as session:
            rows = {row.id: row for row in self._turns(session, ids)}
        turns = list[RecalledTurn]()
        for hit, (before, own, after) in zip(hits, wanted, strict=True):
            if own[0] in rows:
                beside = [tuple(rows[each] for each in part if each in rows) for part in (before, after)]
                turns.append(RecalledTurn(rows[own[0]], round(hit.score, 4), hit.legs, *beside))
        return turns

    def _turns(self, session: Session, ids: Sequence[str]) -> Iterable[SaidTurn]:
        size = 1 << (len(ids) - 1).bit_length()
        given = {f"id{number}": ids[min(number, len(ids) - 1)] for number in range(size)}
        return map(SaidTurn._make, session.execute(_by_ids(size), {**given, "now": self._parts.clock()}))


def _ranked(
    found: Found, asked: Asked, question: RecallQuestion, named: Sequence[Span]
) -> tuple[list[Hit], tuple[Indexed, ...]]:
    """The indexes are held meanwhile, in an order that all keep to."""
    with ExitStack() as stack:
        for held, _known in sorted(found.values(), key=lambda each: each[1].id):
            stack.enter_context(held.lock)
        threads = [held.thread for held, _ in found.values()]
        weights = Weights(recency=question.recency)
        allow = partial(_allowed, found, question, named)
        indexed = tuple(
            Indexed(known.id, held.before, held.seq, held.embedded, known.archived_turns) for held, known in found.values()
        )
        return rank(threads, asked, limit=question.top_k, weights=weights, allow=allow), indexed


def _allowed(found: Found, question: RecallQuestion, named: Sequence[Span], thread: Thread) -> Mask:
    """Rows in the session's window that the question asks for."""
    held, known = found[id(thread)]
    allowed: Mask = np.arange(len(thread)) >= known.archived_turns - held.before
    if question.roles:
        allowed &= np.isin(held.roles.all, [number for number, role in enumerate(ROLES) if role in question.roles])
    if question.said_after is not None:
        allowed &= thread.at >= question.said_after / 1000
    if question.said_before is not None:
        allowed &= thread.at < question.said_before / 1000
    if question.times == "narrow" and named:
        allowed &= np.any([span.holds(thread.at) for span in named], axis=0)
    return allowed


def _around(hit: Hit, held: Held, known: Known, neighbours: int) -> tuple[list[str], list[str], list[str]]:
    """Ids of the turns before it, its own, and of those after it, in the session's window."""
    first = max(hit.row - neighbours, known.archived_turns - held.before, 0)
    ids = hit.thread.ids
    return ids[first : hit.row], [hit.id], ids[hit.row + 1 : hit.row + 1 + neighbours]
