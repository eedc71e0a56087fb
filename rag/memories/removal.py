"""Memories go: one that is deleted leaves that it was there, and what is to be forgotten leaves nothing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session
from sqlmodel import col, select

from config.clock import Clock
from config.database import Database
from rag.embedding.service import EmbeddingService
from rag.memories.tables import MemorySource, MemoryVersion
from rag.sessions.parts import Tell, untold
from rag.types import Scope

V = MemoryVersion
#: Has no repetition of a request told of these memories of a tenant's subject any more.
Retract = Callable[[Session, str, str, Sequence[str]], None]
TRACE_MS = 30 * 24 * 3600 * 1000  # how long it is told of a deleted memory that it was there
PAGE, PAGES = 200, 20  # memories of one transaction, which others wait for; transactions of one sweep
_NO_SYNC = {"synchronize_session": False}


def unrepeated(session: Session, tenant_id: str, subject: str, memory_ids: Sequence[str]) -> None:
    """Where no answers are kept."""


def blank(session: Session, memory_id: str, now: int) -> None:
    """Nothing of what it said is left in any version, nor of where that came from."""
    empty: dict[str, Any] = {"text": "", "said": "", "key": None, "tags": [], "data": {}, "reason": None, "conflicts_with": []}
    gone: dict[str, Any] = {"space": None, "vector": None, "terms": b"", "deleted": True, "expires_at": now + TRACE_MS}
    mine = col(V.memory_id) == memory_id
    session.execute(sa.delete(MemorySource).where(col(MemorySource.memory_id) == memory_id), execution_options=_NO_SYNC)
    session.execute(sa.update(V).where(mine).values(**empty, **gone), execution_options=_NO_SYNC)


def texts_of(
    session: Session, *, memory_ids: Sequence[str] = (), session_ids: Sequence[str] = (), subject: str | None = None
) -> list[str]:
    """All that these memories ever said, for the cache to forget before the rows go."""
    whose: list[sa.ColumnElement[bool]] = [col(V.memory_id).in_(memory_ids), col(V.session_id).in_(session_ids)]
    if subject is not None:
        whose.append(col(V.subject) == subject)
    return [*session.scalars(select(col(V.text)).where(sa.or_(*whose), col(V.deleted).is_(False)).distinct())]


def forget_cached(embedding: EmbeddingService, scope: Scope, texts: Sequence[str]) -> None:
    """Raise Unavailable if some may be left."""
    if texts:
        embedding.forget(scope, embedding.cache_keys(scope, texts))


@dataclass(frozen=True, slots=True)
class MemorySweep:
    """Removes what is to be forgotten. From its moment on nobody is told of it; this takes it off the disk."""

    database: Database
    clock: Clock
    embedding: EmbeddingService
    context_of: Callable[[str, str], Scope]  #: of a tenant, for a purpose
    tell: Tell = untold
    retract: Retract = unrepeated

    def run_once(self) -> int:
        """Return how many memories."""
        removed = 0
        for _ in range(PAGES):
            over = col(V.expires_at) <= self.clock(), col(V.replaced_at).is_(None)
            with self.database.system_read() as session:
                rows = session.execute(
                    select(V.tenant_id, V.memory_id).where(*over).order_by(col(V.expires_at)).limit(PAGE)
                ).all()
            found: dict[str, list[str]] = defaultdict(list)
            for tenant_id, memory_id in rows:
                found[tenant_id].append(memory_id)
            for tenant_id, memory_ids in found.items():
                removed += self._remove(self.context_of(tenant_id, "memories"), memory_ids)
            if len(rows) < PAGE:
                break
        return removed

    def _remove(self, scope: Scope, memory_ids: Sequence[str]) -> int:
        with self.database.write(scope) as session:
            over = col(V.memory_id).in_(memory_ids), col(V.expires_at) <= self.clock(), col(V.replaced_at).is_(None)
            rows = session.execute(select(V.memory_id, V.deleted, V.subject).where(*over).with_for_update()).all()
            gone = [row[0] for row in rows]
            forgotten = [(memory_id, subject) for memory_id, deleted, subject in rows if not deleted]
            for subject in sorted({subject for _, subject in forgotten}):
                self.retract(session, scope.tenant_id, subject, [each for each, whose in forgotten if whose == subject])
            forget_cached(self.embedding, scope, texts_of(session, memory_ids=gone))
            for table in (MemorySource, MemoryVersion):
                session.execute(sa.delete(table).where(col(table.memory_id).in_(gone)), execution_options=_NO_SYNC)
            for memory_id, deleted, _ in rows:
                if not deleted:
                    self.tell(session, scope.tenant_id, "memory.deleted", memory_id, expired=True)
        return len(gone)
