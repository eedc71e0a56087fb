"""Facts take their places among a subject's memories, in one transaction that holds the subject: said again, they confirm;
another value of the same thing ends what was true before.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session
from sqlmodel import col, select

from config.errors import InvalidInput, QuotaExceeded
from config.ids import new_id
from rag.memories.agreement import Verdict, compare, is_near, is_same
from rag.memories.finding import kept
from rag.memories.ranking import cosines, pack_terms, pack_vector
from rag.memories.tables import MemorySource, MemorySubject, MemoryVersion
from rag.memories.validity import Fitted, Span, Within, fit
from rag.memories.values import ADDED, CONFIRMED, MAX_TAGS, MAX_VERSIONS, SUPERSEDED, UPDATED, Fact, Source, Whose
from rag.memories.wording import wording
from rag.store.base import Vector

V = MemoryVersion
_NO_SYNC = {"synchronize_session": False}


@dataclass(slots=True)
class Known:
    """What is looked at of each memory of the subject: all of it is read for every change."""

    id: str
    key: str | None
    text: str
    said: str
    span: Span
    space: str | None
    vector: bytes | None


@dataclass(frozen=True, slots=True)
class Embedded:
    """Of a text that is to be kept; without a vector it is found by its words."""

    space: str
    vector: Vector | None

    @property
    def packed(self) -> bytes | None:
        return None if self.vector is None else pack_vector(self.vector)

    def cosine(self, other: Known) -> float | None:
        if self.vector is None or other.vector is None or other.space != self.space:
            return None
        return float(cosines([other.vector], self.vector)[0])


@dataclass(slots=True)
class Place:
    """Where facts go: whose they are, by whom, and when. It ends with its transaction."""

    session: Session
    tenant_id: str
    whose: Whose
    by: str
    at: int
    now: int  #: by the clock; `at` is never before an earlier change
    known: dict[str, Known] = field(default_factory=dict)

    def read(self) -> None:
        """What there is of the subject's, of this agent's and session's."""
        mine = (V.subject, self.whose.subject), (V.agent, self.whose.agent), (V.session_id, self.whose.session_id)
        columns: tuple[Any, ...] = V.memory_id, V.key, V.text, V.said, V.valid_from, V.valid_to, V.space, V.vector
        conditions = *(col(column) == value for column, value in mine), col(V.replaced_at).is_(None), *kept(self.now)
        rows = self.session.execute(sa.select(*map(col, columns)).where(*conditions)).all()
        self.known = {
            name: Known(name, key, text, said, Span(start, end), space, vector)
            for name, key, text, said, start, end, space, vector in rows
        }

    def same(self, fact: Fact, embedded: Embedded) -> Known | None:
        """The memory that says this already, and does so at the time from when this is to be true."""
        said, start = wording(fact.text).said, self.at if fact.valid_from is None else fact.valid_from
        for other in self.known.values():
            fits = fact.key in (None, other.key) or (other.key is None and not self.of_key(fact.key or ""))
            agrees = fits and fact.valid_to in (None, other.span.end) and other.span.holds(start)
            exactly = fact.text.split() == other.text.split()
            if agrees and (exactly or (said == other.said and is_same(said, other.said, embedded.cosine(other)))):
                return other
        return None

    def confirm(self, known: Known, fact: Fact, embedded: Embedded) -> MemoryVersion:
        row = self.row(known.id)
        changes: dict[str, object] = {"confirmations": row.confirmations + 1, "confirmed_at": self.at}
        if embedded.vector is not None and embedded.cosine(known) is None and fact.text.split() == row.text.split():
            changes |= {"space": embedded.space, "vector": embedded.packed}  # it had none, or another model's
        if fact.expires_at is not None or row.expires_at is not None:  # said again, it is to be known as long as either says
            ends = None if fact.expires_at is None or row.expires_at is None else max(fact.expires_at, row.expires_at)
            self.expire(row, ends)
        if row.number >= MAX_VERSIONS:
            row.sqlmodel_update(changes)
            self.session.add(row)
            return row
        changes |= {"tags": [*row.tags, *sorted({*fact.tags} - {*row.tags})][:MAX_TAGS], "key": row.key or fact.key}
        return self.change(row, CONFIRMED, fact.reason, fact.sources, **changes)

    def add(self, fact: Fact, embedded: Embedded, judged: Collection[str]) -> tuple[MemoryVersion, tuple[str, ...]]:
        """`judged`: memories that are known to be contradicted. Return it with those that it superseded."""
        start = self.at if fact.valid_from is None else fact.valid_from
        span, memory_id = Span(start, fact.valid_to), new_id("mem")
        against, conflicts = self._disagreeing(fact, span, judged)
        fitted = self.fit(span, against, strict=fact.key is not None)
        for ended in fitted.ended:
            self.supersede(ended, memory_id, start)
        row = MemoryVersion(
            tenant_id=self.tenant_id,
            memory_id=memory_id,
            number=1,
            subject=self.whose.subject,
            agent=self.whose.agent,
            session_id=self.whose.session_id,
            key=fact.key,
            text=fact.text,
            said=wording(fact.text).said,
            tags=sorted(set(fact.tags)),
            data=dict(fact.data),
            valid_from=start,
            valid_to=fitted.span.end,
            superseded_by=fitted.followed_by,
            conflicts_with=conflicts,
            expires_at=fact.expires_at,
            action=ADDED,
            reason=fact.reason,
            changed_by=self.by,
            created_at=self.at,
            recorded_at=self.at,
            space=embedded.space,
            vector=embedded.packed,
            terms=pack_terms(fact.text),
        )
        self._insert(row, fact.sources)
        return row, fitted.ended

    def fit(self, span: Span, others: Mapping[str, Span], *, strict: bool) -> Fitted:
        """`strict`: of one key. Without one, what cannot be put in its place is left to stand."""
        others = dict(others)
        while True:
            try:
                return fit(span, others)
            except Within as within:
                [name] = within.args
                if strict:
                    detail = (
                        f"Memory {name} of the same key is true before and after this: end it first, or leave `valid_to` out."
                    )
                    raise InvalidInput(detail, field="valid_to") from within
                del others[name]

    def of_key(self, key: str, *, but: str = "") -> dict[str, Span]:
        return {each.id: each.span for each in self.known.values() if each.key == key and each.id != but}

    def _disagreeing(self, fact: Fact, span: Span, judged: Collection[str]) -> tuple[dict[str, Span], list[str]]:
        """What this fact contradicts, and what it may contradict."""
        if fact.key is not None:
            return self.of_key(fact.key), []
        mine, against, conflicts = wording(fact.text), dict[str, Span](), list[str]()
        for other in self.known.values():
            if other.key is not None or not span.overlaps(other.span):
                continue
            verdict = compare(wording(other.text), mine) if is_near(other.said, mine.said) else Verdict.NONE
            if verdict is Verdict.CONTRADICTS or other.id in judged:
                against[other.id] = other.span
            elif verdict is Verdict.MAY_CONFLICT:
                conflicts.append(other.id)
        return against, sorted(conflicts)

    def supersede(self, memory_id: str, by: str, end: int) -> None:
        self.change(self.row(memory_id), SUPERSEDED, None, valid_to=end, superseded_by=by)

    # --- versions

    def row(self, memory_id: str) -> MemoryVersion:
        statement = select(V).where(col(V.memory_id) == memory_id, col(V.replaced_at).is_(None))
        return self.session.scalars(statement.execution_options(populate_existing=True)).one()

    def change(
        self, row: MemoryVersion, action: str, reason: str | None, sources: Sequence[Source] = (), **changes: object
    ) -> MemoryVersion:
        """The next version: as the one before it, but for the changes."""
        if row.number >= MAX_VERSIONS and action == UPDATED:
            raise QuotaExceeded(f"A memory has at most {MAX_VERSIONS} versions.", field="versions", limit=MAX_VERSIONS)
        told = {"action": action, "reason": reason, "changed_by": self.by, "recorded_at": self.at, "replaced_at": None}
        following = MemoryVersion(**{**row.model_dump(), **told, **changes, "number": row.number + 1})
        row.replaced_at = self.at
        self.session.add(row)
        self.session.flush()  # before the next one is in force: of a key there is one at most
        self._insert(following, sources)
        return following

    def expire(self, row: MemoryVersion, at: int | None) -> None:
        """All versions at once: what is forgotten was never known."""
        every = sa.update(V).where(col(V.memory_id) == row.memory_id).values(expires_at=at)
        self.session.execute(every, execution_options=_NO_SYNC)
        row.expires_at = at

    def _insert(self, row: MemoryVersion, sources: Sequence[Source]) -> None:
        self.session.add(row)
        self.session.flush()
        self.session.add_all(
            MemorySource(
                tenant_id=row.tenant_id,
                memory_id=row.memory_id,
                number=row.number,
                place=place,
                session_id=source.session_id,
                seq=source.seq,
                document_id=source.document_id,
            )
            for place, source in enumerate(dict.fromkeys(sources))
        )
        self.session.flush()
        span = Span(row.valid_from, row.valid_to)
        self.known[row.memory_id] = Known(row.memory_id, row.key, row.text, row.said, span, row.space, row.vector)


def hold_subject(session: Session, tenant_id: str, subject: str, now: int) -> int:
    """Nobody else changes memories of this subject until the transaction ends. Return the time of the change.

    What is forgotten by now and waits to be removed gives its key up.
    """
    mine = col(MemorySubject.subject) == subject
    step = sa.case((col(MemorySubject.changed_at) > now, col(MemorySubject.changed_at)), else_=now)
    held = session.execute(sa.update(MemorySubject).where(mine).values(changed_at=step), execution_options=_NO_SYNC)
    if not held.rowcount:  # type: ignore[attr-defined]
        session.add(MemorySubject(tenant_id=tenant_id, subject=subject, changed_at=now))
        session.flush()
        return now
    over = col(V.subject) == subject, col(V.key).is_not(None), col(V.expires_at) <= now
    session.execute(sa.update(V).where(*over).values(key=None), execution_options=_NO_SYNC)
    return int(session.scalars(select(col(MemorySubject.changed_at)).where(mine)).one())


def require_room(session: Session, subject: str, more: int, limit: int) -> None:
    """Of all agents and sessions; what was superseded counts as well. Raise QuotaExceeded."""
    mine = col(V.subject) == subject, col(V.replaced_at).is_(None), col(V.deleted).is_(False)
    count = session.scalar(select(sa.func.count()).select_from(V).where(*mine)) or 0
    if count + more > limit:
        detail = f"A subject has at most {limit} memories: there are {count}, and this would add {more}."
        raise QuotaExceeded(detail, field="memories", limit=limit)
