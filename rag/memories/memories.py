"""A tenant's memories as its principals reach them: found, listed, searched; and changed, as `changing` does it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import sqlalchemy as sa
from sqlmodel import col, select

from config.errors import InvalidInput, Unavailable
from rag.memories.changing import Changing, Parts
from rag.memories.finding import V, believed, conditions, fits, kept, missing, of_subject, with_sources
from rag.memories.ranking import Candidate, rank
from rag.memories.tables import MemorySource
from rag.memories.values import Found, Memory, MemoryHit, Source, Wanted
from rag.store.base import Vector
from rag.types import Meter, Rememberer

MAX_SCANNED = 20_000  # memories of one search: a subject has fewer, whatever its limit was once


@dataclass(frozen=True, slots=True)
class Memories(Parts):
    def for_tenant(self, scope: Rememberer, meter: Meter, *, by: str = "") -> TenantMemories:
        """`by`: id of the principal, who is on record for what it changes."""
        return TenantMemories(self, scope, meter, by)


class TenantMemories(Changing):
    """Raises NotFound alike for memories that are missing, foreign, another subject's, deleted or forgotten."""

    def get(self, memory_id: str, *, as_of: int | None = None) -> Memory:
        """As is believed now, or was then."""
        self._require_past(as_of)
        now = self._parts.clock()
        mine = col(V.memory_id) == memory_id, believed(as_of), *of_subject(self._scope), *kept(now)
        with self._parts.database.read(self._scope) as session:
            row = session.scalars(select(V).where(*mine)).one_or_none()
            if row is None:
                raise missing()
            return with_sources(session, [row])[0]

    def page(self, wanted: Wanted, *, after: str | None, limit: int) -> tuple[list[Memory], str | None]:
        """In the order of their making, and where to go on. A page of a tag may have fewer than `limit`."""
        self._require_past(wanted.as_of)
        subject = self._scope.speaking_for(wanted.subject)
        mine = () if subject is None else (col(V.subject) == subject,)
        statement = select(V).where(*mine, *conditions(wanted, self._parts.clock())).order_by(col(V.memory_id)).limit(limit)
        if after is not None:
            statement = statement.where(col(V.memory_id) > after)
        with self._parts.database.read(self._scope) as session:
            rows = session.scalars(statement).all()
            found = with_sources(session, [row for row in rows if fits(row, wanted)])
        return found, rows[-1].memory_id if len(rows) == limit else None

    def history(self, memory_id: str, *, after: int | None, limit: int) -> list[Memory]:
        """Versions, oldest first, each with the sources that it added. Of a deleted memory without what they said."""
        mine = (col(V.memory_id) == memory_id, *of_subject(self._scope), *kept(self._parts.clock())[1:])
        statement = select(V).where(*mine).order_by(col(V.number)).limit(limit)
        if after is not None:
            statement = statement.where(col(V.number) > after)
        with self._parts.database.read(self._scope) as session:
            rows = session.scalars(statement).all()
            if not rows and after is None:
                raise missing()
            numbers = [row.number for row in rows]
            added = select(MemorySource).where(col(MemorySource.memory_id) == memory_id, col(MemorySource.number).in_(numbers))
            sources: dict[int, list[Source]] = {}
            for each in session.scalars(added.order_by(col(MemorySource.number), col(MemorySource.place))):
                sources.setdefault(each.number, []).append(Source(each.session_id, each.seq, each.document_id))
        return [Memory(row, tuple(sources.get(row.number, ()))) for row in rows]

    def search(
        self,
        query: str,
        *,
        charge_id: str,
        wanted: Wanted | None = None,
        limit: int = 10,
        by: Vector | Literal["words", "anew"] = "anew",
    ) -> Found:
        """The subject's memories that fit the question best, by meaning and by words. Every one is looked at. `by`: the
        question's vector, if it is known, or words alone."""
        wanted, now = wanted or Wanted(), self._parts.clock()
        self._require_past(wanted.as_of)
        subject = self._subject(wanted.subject)
        vector, charged, degraded = self._asked(query, charge_id, by)
        columns: tuple[Any, ...] = V.memory_id, V.terms, V.vector, V.space, V.tags
        scan = sa.select(*map(col, columns)).where(col(V.subject) == subject, *conditions(wanted, now))
        space = self._parts.embedding.space.id
        with self._parts.database.read(self._scope) as session:
            rows = session.execute(scan.order_by(col(V.memory_id).desc()).limit(MAX_SCANNED)).all()
            candidates = [
                Candidate(row[0], row[1], row[2] if row[3] == space else None)
                for row in rows
                if wanted.tag is None or wanted.tag in row[4]
            ]
            ranked = rank(candidates, query, vector, limit)
            # Asked anew of each: one may have been deleted since they were looked through.
            chosen = col(V.memory_id).in_([each.id for each in ranked]), believed(wanted.as_of), *kept(now)
            found = {
                each.version.memory_id: each for each in with_sources(session, session.scalars(select(V).where(*chosen)).all())
            }
        hits = tuple(MemoryHit(found[each.id], each.score, each.cosine, each.words) for each in ranked if each.id in found)
        return Found(hits, charged, degraded, vector, now)

    def _asked(
        self, query: str, charge_id: str, by: Vector | Literal["words", "anew"]
    ) -> tuple[Vector | None, int, tuple[str, ...]]:
        if not isinstance(by, str):
            return by, 0, ()
        if by == "words":
            return None, 0, ()
        try:
            found = self._parts.embedding.embed_query(self._scope, self._meter, query, charge_id=charge_id)
        except Unavailable:
            return None, 0, ("dense",)
        return found.vectors[0], found.charged, ()

    def _require_past(self, as_of: int | None) -> None:
        if as_of is not None and as_of > self._parts.clock():
            raise InvalidInput("`as_of` is in the future.", field="as_of")
