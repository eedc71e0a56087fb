"""What people read of turns and memories that came or went: where they stand, how they begin, and why one is gone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, Session
from sqlmodel import col, select

from config.clock import Clock
from config.database import Database
from rag.context.turns import text_of
from rag.memories.finding import kept
from rag.memories.tables import MemoryVersion
from rag.sessions.archives import restored
from rag.sessions.finding import alive
from rag.sessions.tables import ChatSession, Turn
from rag.traces.conversation_difference import Item, Told, Why
from rag.traces.replayed import SNIPPET
from rag.types import Speaker

PAGE = 500  # rows of one statement


@dataclass(frozen=True, slots=True)
class Telling:
    """`archived`: turns of the session that had left the window in what it was compared with."""

    database: Database
    clock: Clock
    scope: Speaker
    session_id: str | None
    archived: int = 0

    def told(self, items: Sequence[Item]) -> list[tuple[Item, Told]]:
        with self.database.read(self.scope) as session:
            by_id = self._turns(session, col(Turn.id), [item.id for item in items if item.part == "recalled"])
            seqs = [int(item.id) for item in items if item.part in ("pinned", "recent")]
            by_seq = {str(turn.seq): turn for turn in self._turns(session, col(Turn.seq), seqs).values()}
            memories = self._memories(session, [item for item in items if item.part == "memory"])
        return [(item, self._of(item, by_id, by_seq, memories)) for item in items]

    def _of(
        self, item: Item, by_id: Mapping[str, Turn], by_seq: Mapping[str, Turn], memories: Mapping[str, MemoryVersion]
    ) -> Told:
        if item.part == "recap":
            return Told(self.session_id)
        if item.part == "memory":
            return _of_memory(item, memories.get(item.id))
        turn = by_id.get(item.id) if item.part == "recalled" else by_seq.get(item.id)
        if turn is None:
            seq = None if item.part == "recalled" else int(item.id)
            return Told(None if seq is None else self.session_id, seq, why="erased" if item.now is None else None)
        gone = item.now is None and turn.session_id == self.session_id and turn.seq <= self.archived
        return Told(turn.session_id, turn.seq, _beginning(text_of(turn)), "archived" if gone else None)

    def _turns(self, session: Session, column: Mapped[Any], keys: Sequence[object]) -> dict[str, Turn]:
        """Of sessions that are there, and of the subject. Raise ContentDamaged."""
        own = () if self.scope.subject is None else (col(ChatSession.subject) == self.scope.subject,)
        within = () if self.session_id is None else (col(Turn.session_id) == self.session_id,)
        statement = select(Turn).join(ChatSession, col(ChatSession.id) == col(Turn.session_id))
        statement = statement.where(*own, *within, *alive(self.clock()))
        pages = (keys[at : at + PAGE] for at in range(0, len(keys), PAGE))
        found = (restored(session, session.scalars(statement.where(column.in_(page)))) for page in pages)
        return {turn.id: turn for page in found for turn in page}

    def _memories(self, session: Session, items: Iterable[Item]) -> dict[str, MemoryVersion]:
        """In the version that was found, last of all now; of what is neither deleted nor forgotten."""
        V = MemoryVersion
        stood = [(item.id, (item.now or item.then)) for item in items]
        pairs = [(memory_id, where.version) for memory_id, where in stood if where is not None and where.version is not None]
        if not pairs:
            return {}
        wanted = sa.tuple_(col(V.memory_id), col(V.number)).in_(pairs)
        return {row.memory_id: row for row in session.scalars(select(V).where(wanted, *kept(self.clock())))}


def _of_memory(item: Item, version: MemoryVersion | None) -> Told:
    if version is None:
        return Told(why="forgotten" if item.now is None else None)
    why: Why | None = "superseded" if item.now is None and version.replaced_at is not None else None
    return Told(snippet=_beginning(version.text), why=why)


def _beginning(text: str) -> str:
    return " ".join(text[: 4 * SNIPPET].split())[:SNIPPET]
