"""Memories are added, changed and deleted, each time in one transaction that holds their subject.

What is kept is embedded, and where there is a language model judged, before it: the transaction looks at all that is known of
the subject, and puts every fact in its place or none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from config.clock import Clock
from config.database import Database, once_more
from config.errors import InvalidInput, Unavailable
from rag.embedding.service import EmbeddingService
from rag.llm.rewriting import Rewriting
from rag.memories.extraction import Extracted, Message, extract, verbatim
from rag.memories.finding import latest, require_sources, with_sources
from rag.memories.judging import Judged, Judging
from rag.memories.placing import Embedded, Place, hold_subject, require_room
from rag.memories.ranking import pack_terms
from rag.memories.removal import Retract, blank, forget_cached, texts_of, unrepeated
from rag.memories.tables import MemoryVersion
from rag.memories.validity import Span
from rag.memories.values import (
    ADDED,
    CONFIRMED,
    DELETED,
    SUPERSEDED,
    UNCHANGED,
    UPDATED,
    Added,
    Change,
    Fact,
    Memory,
    Placed,
    Whose,
)
from rag.memories.wording import wording
from rag.sessions.parts import Tell, untold
from rag.types import Meter, Rememberer

DEFAULT_LIMIT = 1_000


@dataclass(frozen=True, slots=True)
class Parts:
    database: Database
    clock: Clock
    embedding: EmbeddingService
    limit: int = DEFAULT_LIMIT  #: memories of a subject
    llm: Rewriting | None = None
    tell: Tell = untold
    retract: Retract = unrepeated


class Changing:
    def __init__(self, parts: Parts, scope: Rememberer, meter: Meter, by: str) -> None:
        self._parts, self._scope, self._meter, self._by = parts, scope, meter, by

    def extracted(
        self, messages: Sequence[Message], *, by_model: bool, charge_id: str, subject: str | None = None, session_id: str = ""
    ) -> Extracted:
        """The facts in what was said: those that the language model finds, or what users said as it is. Raise what `add` would
        for these messages, before anything is asked and paid for."""
        if not by_model:
            return verbatim(messages)
        sources = [Fact("", sources=(each.source,)) for each in messages if each.source is not None]
        with self._parts.database.read(self._scope) as session:
            require_sources(session, self._scope, self._subject(subject), session_id, sources, self._parts.clock())
        return extract(self._parts.llm, self._scope, messages, charge_id=charge_id)

    def add(
        self,
        facts: Sequence[Fact],
        *,
        charge_id: str,
        subject: str | None = None,
        agent: str = "",
        session_id: str = "",
        record: Callable[[Session, Added], None] | None = None,
        llm_tokens: int = 0,
    ) -> Added:
        """All of them in one transaction, or none. `record` writes something of the result last in it; `llm_tokens`: what
        finding the facts took. Raise QuotaExceeded, BudgetExhausted, Forbidden for another subject, NotFound for a source.
        """
        whose = Whose(self._subject(subject), agent, session_id)
        now = self._parts.clock()
        for fact in facts:
            _check_span(now if fact.valid_from is None else fact.valid_from, fact.valid_to)
        with self._parts.database.read(self._scope) as session:  # before anything is spent
            require_sources(session, self._scope, whose.subject, session_id, facts, now)
        embedded, charged, degraded = self._embed([fact.text for fact in facts], charge_id)
        judged = self._judge(whose, facts, embedded, charge_id)
        totals = {"charged": charged, "llm_tokens": llm_tokens + judged.charged, "degraded": (*degraded, *judged.degraded)}
        return self._write(whose, facts, embedded, judged, totals, record)

    @once_more
    def _write(
        self,
        whose: Whose,
        facts: Sequence[Fact],
        embedded: Sequence[Embedded],
        judged: Judged,
        totals: Mapping[str, Any],
        record: Callable[[Session, Added], None] | None,
    ) -> Added:
        with self._parts.database.write(self._scope) as session:
            place = self._place(session, whose)
            require_sources(session, self._scope, whose.subject, whose.session_id, facts, place.now, lock=True)
            placed = [self._put(place, *each) for each in zip(facts, embedded, judged.against, strict=True)]
            new = sum(outcome == ADDED for outcome, _, _ in placed)
            if new:
                require_room(session, whose.subject, 0, self._parts.limit)
            # A fact of the same call may have changed an earlier one: each is shown as it is in the end.
            rows = [place.row(row.memory_id) for _, row, _ in placed]
            shown = [with_sources(session, [row])[0] for row in rows]
            outcomes = tuple(Placed(said, memory, ended) for (said, _, ended), memory in zip(placed, shown, strict=True))
            added = Added(outcomes, **totals)
            if record is not None:
                record(session, added)
        return added

    def _put(
        self, place: Place, fact: Fact, embedded: Embedded, judged: Sequence[str]
    ) -> tuple[str, MemoryVersion, tuple[str, ...]]:
        known = place.same(fact, embedded)
        if known is not None:
            row = place.confirm(known, fact, embedded)
            self._tell(place.session, CONFIRMED, row.memory_id, version=row.number)
            return CONFIRMED, row, ()
        row, ended = place.add(fact, embedded, judged)
        self._tell(place.session, ADDED, row.memory_id, version=1, session_id=row.session_id or None)
        for memory_id in ended:
            self._tell(place.session, SUPERSEDED, memory_id, by=row.memory_id)
        return ADDED, row, ended

    def update(self, memory_id: str, change: Change, *, charge_id: str) -> Memory:
        """A new version, unless nothing changes."""
        with self._parts.database.read(self._scope) as session:
            row = latest(session, self._scope, memory_id, self._parts.clock())
        new_text = change.text is not None and change.text != row.text
        embedded = self._embed([change.text or ""], charge_id)[0][0] if new_text else None
        whose = Whose(row.subject, row.agent, row.session_id)
        with self._parts.database.write(self._scope) as session:
            place = self._place(session, whose)
            row = latest(session, self._scope, memory_id, place.now)
            sources = [Fact("", sources=change.sources)]
            require_sources(session, self._scope, row.subject, "", sources, place.now, lock=True)
            changes, ended = self._changes(place, row, change, embedded)
            if change.expires_at is not UNCHANGED and change.expires_at != row.expires_at:
                place.expire(row, change.expires_at)
                changes["expires_at"] = change.expires_at
            if changes or change.sources:
                row = place.change(row, UPDATED, change.reason, change.sources, **changes)
                self._tell(session, UPDATED, memory_id, version=row.number)
            for other in ended:
                self._tell(session, SUPERSEDED, other, by=memory_id)
            return with_sources(session, [row])[0]

    def _changes(
        self, place: Place, row: MemoryVersion, change: Change, embedded: Embedded | None
    ) -> tuple[dict[str, Any], tuple[str, ...]]:
        """What becomes different, and the memories of its key that end by it."""
        key = row.key if change.key is UNCHANGED else change.key
        start = row.valid_from if change.valid_from is None else change.valid_from
        end = row.valid_to if change.valid_to is UNCHANGED else change.valid_to
        _check_span(start, end)
        changes: dict[str, Any] = {"key": key, "valid_from": start, "valid_to": end}
        changes["superseded_by"] = row.superseded_by if end == row.valid_to else None
        ended: tuple[str, ...] = ()
        if key is not None and (key, start, end) != (row.key, row.valid_from, row.valid_to):
            fitted = place.fit(Span(start, end), place.of_key(key, but=row.memory_id), strict=True)
            changes |= {"valid_to": fitted.span.end, "superseded_by": fitted.followed_by or changes["superseded_by"]}
            for other in fitted.ended:
                place.supersede(other, row.memory_id, start)
            ended = fitted.ended
        if embedded is not None and change.text is not None:
            changes |= {"text": change.text, "said": wording(change.text).said, "terms": pack_terms(change.text)}
            changes |= {"space": embedded.space, "vector": embedded.packed, "conflicts_with": []}
        if change.tags is not None:
            changes["tags"] = sorted(set(change.tags))
        if change.data is not None:
            changes["data"] = dict(change.data)
        return {name: value for name, value in changes.items() if getattr(row, name) != value}, ended

    def delete(self, memory_id: str, *, reason: str | None = None) -> MemoryVersion:
        """What it said is gone from everywhere, at any `as_of`; that it was there, who changed it and when, is kept a while."""
        with self._parts.database.read(self._scope) as session:
            row = latest(session, self._scope, memory_id, self._parts.clock())
        with self._parts.database.write(self._scope) as session:
            place = self._place(session, Whose(row.subject, row.agent, row.session_id))
            place.change(latest(session, self._scope, memory_id, place.now), DELETED, None)
            # Before the texts: without them nothing could name their vectors in the cache.
            forget_cached(self._parts.embedding, self._scope, texts_of(session, memory_ids=[memory_id]))
            blank(session, memory_id, place.now)
            self._parts.retract(session, self._scope.tenant_id, row.subject, [memory_id])
            gone = place.row(memory_id)
            gone.reason = reason
            session.add(gone)
            self._tell(session, DELETED, memory_id)
        return gone

    def _place(self, session: Session, whose: Whose) -> Place:
        now = self._parts.clock()
        at = hold_subject(session, self._scope.tenant_id, whose.subject, now)
        place = Place(session, self._scope.tenant_id, whose, self._by, at, now)
        place.read()
        return place

    def _embed(self, texts: Sequence[str], charge_id: str) -> tuple[list[Embedded], int, tuple[str, ...]]:
        """Without a model they are kept all the same, and found by their words."""
        space = self._parts.embedding.space.id
        if not texts:
            return [], 0, ()
        try:
            found = self._parts.embedding.embed_kept(self._scope, self._meter, texts, charge_id=charge_id)
        except Unavailable:
            return [Embedded(space, None) for _ in texts], 0, ("dense",)
        return [Embedded(space, vector) for vector in found.vectors], found.charged, ()

    def _judge(self, whose: Whose, facts: Sequence[Fact], embedded: Sequence[Embedded], charge_id: str) -> Judged:
        llm = self._parts.llm
        if llm is None or not facts:
            return Judged([()] * len(facts))
        with self._parts.database.read(self._scope) as session:
            now = self._parts.clock()
            place = Place(session, self._scope.tenant_id, whose, self._by, now, now)
            place.read()
        return Judging(llm, self._scope, place).of(facts, embedded, charge_id)

    def _subject(self, named: str | None) -> str:
        subject = self._scope.speaking_for(named)
        if subject is None:
            raise InvalidInput("Name the subject: the end user whose memories they are.", field="subject")
        return subject

    def _tell(self, session: Session, verb: str, memory_id: str, **data: object) -> None:
        self._parts.tell(session, self._scope.tenant_id, f"memory.{verb}", memory_id, **data)


def _check_span(start: int | None, end: int | None) -> None:
    if start is not None and end is not None and end <= start:
        raise InvalidInput("`valid_to` must be later than `valid_from`.", field="valid_to")
