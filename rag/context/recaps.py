"""What the turns that fell out of the window came to: made when a context first needs it, kept, linked to its turns by their
numbers, and gone with the session.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session
from sqlmodel import col, select

from config.clock import Clock
from config.database import Database
from config.errors import ContentDamaged
from rag.context.extracting import Line, extract, lines_of
from rag.context.spans import FAN, Span, cover, within
from rag.context.summing import sum_up
from rag.context.tables import SessionRecap
from rag.context.turns import text_of
from rag.llm.rewriting import Rewriting
from rag.packing.elements import Recap
from rag.sessions.archives import restored
from rag.sessions.finding import find
from rag.sessions.tables import Turn
from rag.types import Meter, Speaker

EXTRACTIVE = "extractive"
#: Recaps by a language model in one context: a session that grows needs one at a time, and nobody waits for a long past.
MAX_WRITTEN = 2
#: Recaps that one context makes, in about 0.3 s: enough for 4,096 turns and all above them. What is left of a longer past is
#: made by the contexts that follow.
MAX_MADE = 600
PAGE = 64 * FAN  # turns that are read at once


@dataclass(frozen=True, slots=True)
class Recaps:
    database: Database
    clock: Clock
    llm: Rewriting | None = None  #: what they are written by, if there is a language model

    def of(
        self,
        scope: Speaker,
        session_id: str,
        meter: Meter | None,
        *,
        charge_id: str,
        keeps: bool = True,
        made_by: int | None = None,
    ) -> SessionRecaps:
        """Of a session that was found for this scope. `meter`: pays the language model, which is not asked without one."""
        return SessionRecaps(self, scope, session_id, meter, charge_id, keeps=keeps, made_by=made_by)


@dataclass(slots=True)
class SessionRecaps:
    """For one context. `charged` and `degraded` tell of it afterwards."""

    parts: Recaps
    scope: Speaker
    session_id: str
    meter: Meter | None
    charge_id: str
    charged: int = 0  #: tokens of the language model
    #: A language model was to write one, and did not; or there are more to make than MAX_MADE, or turns that are damaged.
    degraded: bool = False
    keeps: bool = True  #: what is made; else what is missing is made for this context alone
    made_by: int | None = None  #: Unix milliseconds: those of a context that did without any made later; None: all

    def until(self, last: int) -> list[Recap]:
        """What turns 1 to `last` came to, oldest first. What is missing is made, and kept unless it is of the last few."""
        spans = cover(last)
        kept = self._kept(spans)
        missing = [part for span in reversed(spans) if span.key not in kept for part in within(span)]
        self.degraded |= self.made_by is not None
        tail: list[Recap] = []
        try:
            if missing and self.made_by is None:
                kept |= self._made_of(missing)
            if spans and not spans[-1].level:
                tail = [Recap(*spans[-1].key, extract(self._lines(spans[-1])[spans[-1].first]))]
        except ContentDamaged:  # a chat goes on with what there is
            self.degraded = True
        recaps = [*(_shown(kept[span.key]) for span in spans if span.key in kept), *tail]
        return [recap for recap in recaps if recap.text]

    def _kept(self, spans: Sequence[Span]) -> dict[tuple[int, int], SessionRecap]:
        wanted = {span.key for span in spans if span.level}
        if not wanted:
            return {}
        with self.parts.database.read(self.scope) as session:
            rows = self._rows(session, [first for first, _ in wanted])
        return {key: row for key, row in rows.items() if key in wanted}

    def _rows(self, session: Session, firsts: Sequence[int]) -> dict[tuple[int, int], SessionRecap]:
        statement = select(SessionRecap).where(
            col(SessionRecap.session_id) == self.session_id, col(SessionRecap.first_seq).in_(firsts)
        )
        if self.made_by is not None:
            statement = statement.where(col(SessionRecap.created_at) <= self.made_by)
        return {(row.first_seq, row.last_seq): row for row in session.scalars(statement)}

    def _made_of(self, missing: Sequence[Span]) -> dict[tuple[int, int], SessionRecap]:
        """The first of them, in the order of their levels, so that those that one is made of are there before it."""
        with self.parts.database.read(self.scope) as session:
            known = self._rows(session, [span.first for span in missing if span.level == 1])
        unmade = [span for span in missing if span.key not in known]
        write, wanted = len(unmade) <= MAX_WRITTEN, sorted(unmade[:MAX_MADE], key=lambda span: (span.level, span.first))
        self.degraded |= len(unmade) > MAX_MADE
        said: dict[int, list[Line]] = {}
        for at, span in enumerate(wanted):
            if span.level == 1 and span.first not in said:
                said = self._lines(Span(span.first, wanted[min(at + PAGE // FAN, len(wanted)) - 1].last, 1), until=PAGE)
            lines = said.get(span.first, []) if span.level == 1 else _lines_below(span, known)
            known[span.key] = self._row(span, lines, write)
        if self.keeps:
            self._keep([known[span.key] for span in wanted])
        return known

    def _row(self, span: Span, lines: Sequence[Line], write: bool) -> SessionRecap:
        llm, text = self.parts.llm, None
        if write and lines and llm is not None and self.meter is not None:
            written = sum_up(llm, self.meter, lines, hold_id=f"{self.charge_id}:recap-{span.first}-{span.last}")
            self.charged += written.charged
            self.degraded |= written.text is None
            text = written.text
        return SessionRecap(
            tenant_id=self.scope.tenant_id,
            session_id=self.session_id,
            first_seq=span.first,
            last_seq=span.last,
            text=text or extract(lines),
            method=EXTRACTIVE if text is None or llm is None else llm.model.name,
            created_at=self.parts.clock(),
        )

    def _keep(self, rows: Sequence[SessionRecap]) -> None:
        """Who was first is kept: a context that is asked for again shows what the first one showed."""
        with self.parts.database.write(self.scope) as session:
            find(session, self.scope, self.session_id, self.parts.clock(), lock=True)
            there = self._rows(session, [row.first_seq for row in rows])
            for row in rows:
                earlier = there.get((row.first_seq, row.last_seq))
                if earlier is None:
                    session.add(row)
                else:
                    row.text, row.method = earlier.text, earlier.method

    def _lines(self, span: Span, *, until: int = PAGE) -> dict[int, list[Line]]:
        """Sentences of its turns, by the first turn of each run of the first level; at most `until` turns."""
        last = min(span.last, span.first + until - 1)
        statement = (
            select(Turn)
            .where(col(Turn.session_id) == self.session_id, col(Turn.seq).between(span.first, last))
            .order_by(col(Turn.seq))
        )
        found: dict[int, list[Line]] = defaultdict(list)
        with self.parts.database.read(self.scope) as session:
            for turn in restored(session, session.scalars(statement)):
                run = turn.seq - (turn.seq - 1) % FAN
                found[run] += lines_of(turn.speaker or turn.role, text_of(turn))
        return found


def _lines_below(span: Span, known: dict[tuple[int, int], SessionRecap]) -> list[Line]:
    step = FAN ** (span.level - 1)
    below = [known[at, at + step - 1].text for at in range(span.first, span.last, step)]
    return [Line("", line) for text in below for line in text.splitlines() if line]


def _shown(row: SessionRecap) -> Recap:
    return Recap(row.first_seq, row.last_seq, row.text, row.method)
