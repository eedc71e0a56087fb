"""A session's context: its turns, pins and recaps are read, a question is asked of all that may answer it, and the whole is
packed into one budget.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from sqlmodel import col, select
from sqlmodel.sql.expression import SelectOfScalar

from config.clock import Clock
from config.database import Database
from rag.context.found import Recalled, Remembered
from rag.context.moments import Moment, When, moment_of
from rag.context.pins import Pins
from rag.context.recaps import Recaps
from rag.context.turns import said_of
from rag.packing.conversation import Conversation, Material, Plan, pack_conversation
from rag.packing.elements import USER, Pin, Said
from rag.packing.packing import Count
from rag.packing.shares import Part
from rag.retrieval.question import Answer
from rag.sessions.archives import restored
from rag.sessions.finding import find
from rag.sessions.tables import Turn
from rag.types import MAX_QUESTION_CHARS, Meter, Speaker

MAX_WINDOW = 1_000  #: turns that a window can have
PAGE = 100  # turns that are read at once
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Sources:
    """What a question is asked of; None: it is not asked there."""

    documents: Callable[[str], Answer] | None = None
    recalled: Callable[[str], Recalled] | None = None
    memories: Callable[[str, str], Remembered] | None = None  #: of the question and the session's subject
    llm_meter: Meter | None = None


@dataclass(frozen=True, slots=True)
class Request:
    session_id: str
    plan: Plan
    pins: Sequence[str] = ()
    question: str | None = None  #: None: the message, or what the user said last


@dataclass(frozen=True, slots=True)
class Again:
    """How a context is packed once more."""

    when: When = None
    recaps_by: int | None = None  #: Unix milliseconds: not all that are made now were there; None: they were


@dataclass(frozen=True, slots=True)
class SessionContext:
    conversation: Conversation
    subject: str
    question: str | None
    answer: Answer | None
    recalled: Recalled
    remembered: Remembered
    moment: Moment
    charged: int = 0  #: for embedding, beside the answer's
    llm_tokens: int = 0  #: beside the answer's
    degraded: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Read:
    """A session at one moment."""

    subject: str
    moment: Moment
    turns: Sequence[Said]
    pins: Sequence[Pin]


@dataclass(frozen=True, slots=True)
class Contexts:
    database: Database
    clock: Clock
    recaps: Recaps

    @property
    def pins(self) -> Pins:
        return Pins(self.database, self.clock)

    def for_tenant(self, scope: Speaker) -> TenantContexts:
        return TenantContexts(self, scope)


class TenantContexts:
    def __init__(self, parts: Contexts, scope: Speaker) -> None:
        self._parts, self._scope = parts, scope

    def pack(
        self, request: Request, sources: Sources, count: Count, *, charge_id: str, again: Again | None = None
    ) -> SessionContext:
        """Raise NotFound for a session that this scope does not reach, InvalidInput for a budget without room for the newest
        turns. `again`: as at another moment, and nothing of it is kept."""
        read, plan = self._read(request, None if again is None else again.when), request.plan
        question = _question(request, read.turns)
        answer = _asked(sources.documents, "documents", plan, question)
        recalled = _asked(sources.recalled, "recalled", plan, question) or Recalled()
        remembered = self._remembered(sources, plan, question, read.subject)
        recaps = self._parts.recaps.of(
            *(self._scope, request.session_id, sources.llm_meter),
            charge_id=charge_id,
            keeps=again is None,
            made_by=None if again is None else again.recaps_by,
        )
        material = Material(
            request.session_id,
            read.turns,
            read.moment.archived + 1,
            pins=read.pins,
            recaps=recaps.until,
            facts=remembered.facts,
            passages=() if answer is None else answer.passages,
            recalled=recalled.turns,
        )
        conversation = pack_conversation(material, plan, count)
        degraded = dict.fromkeys(() if answer is None else answer.degraded)
        degraded |= dict.fromkeys((*recalled.degraded, *remembered.degraded))
        degraded |= {part: None for part, less in (("summary", recaps.degraded), ("pins", read.moment.damaged)) if less}
        return SessionContext(
            conversation,
            read.subject,
            question,
            answer,
            recalled,
            remembered,
            read.moment,
            charged=recalled.charged + remembered.charged,
            llm_tokens=recaps.charged,
            degraded=tuple(degraded),
        )

    def _read(self, request: Request, when: When) -> _Read:
        with self._parts.database.read(self._scope) as session:
            chat = find(session, self._scope, request.session_id, self._parts.clock())
            moment, marked = moment_of(session, chat, when)
            turns, left, before = list[Turn](), request.plan.budget, moment.turns + 1
            while before > moment.archived + 1 and len(turns) < MAX_WINDOW and (left > 0 or len(turns) < request.plan.newest):
                page = session.scalars(_newest(request.session_id, moment.archived, before)).all()
                if not page:
                    break
                turns += restored(session, page)  # another moment's, where the window moved on meanwhile
                left -= sum(turn.tokens for turn in page)
                before = page[-1].seq
        pins = [*map(Pin, request.pins), *(Pin(said.text, said) for said in map(said_of, marked))]
        return _Read(chat.subject, moment, [said_of(turn) for turn in reversed(turns)], pins)

    @staticmethod
    def _remembered(sources: Sources, plan: Plan, question: str | None, subject: str) -> Remembered:
        if sources.memories is None or question is None or "memories" not in plan.shares:
            return Remembered()
        return sources.memories(question, subject)


def _newest(session_id: str, archived: int, before: int) -> SelectOfScalar[Turn]:
    return (
        select(Turn)
        .where(col(Turn.session_id) == session_id, col(Turn.seq) < before, col(Turn.seq) > archived)
        .order_by(col(Turn.seq).desc())
        .limit(PAGE)
    )


def _question(request: Request, turns: Sequence[Said]) -> str | None:
    said = next((turn.text for turn in reversed(turns) if turn.role == USER), None)
    for text in (request.question, request.plan.message, said):
        if text is not None and text.strip():
            return text[:MAX_QUESTION_CHARS]
    return None


def _asked(source: Callable[[str], _T] | None, part: Part, plan: Plan, question: str | None) -> _T | None:
    return None if source is None or question is None or part not in plan.shares else source(question)
