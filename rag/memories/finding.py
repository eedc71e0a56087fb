"""Conditions and statements that find memories: of the subject, as of a time, and nothing that is to be forgotten."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session, aliased
from sqlmodel import col, select

from config.errors import NotFound
from rag.corpus import Collection, Document, DocumentVersion
from rag.memories.tables import MemorySource, MemoryVersion
from rag.memories.values import MAX_SHOWN_SOURCES, Fact, Memory, Source, Wanted
from rag.sessions.finding import alive
from rag.sessions.finding import find as find_session
from rag.sessions.tables import ChatSession
from rag.types import Rememberer, Speaker

V = MemoryVersion


def kept(now: int) -> tuple[sa.ColumnElement[bool], ...]:
    """Neither deleted nor forgotten by now, nor of a session that is over."""
    in_session = sa.exists().where(col(ChatSession.id) == col(V.session_id), *alive(now))
    return (
        col(V.deleted).is_(False),
        sa.or_(col(V.expires_at).is_(None), col(V.expires_at) > now),
        sa.or_(col(V.session_id) == "", in_session),
    )


def believed(as_of: int | None) -> sa.ColumnElement[bool]:
    if as_of is None:
        return col(V.replaced_at).is_(None)
    return sa.and_(col(V.recorded_at) <= as_of, sa.or_(col(V.replaced_at).is_(None), col(V.replaced_at) > as_of))


def true_at(moment: int | sa.ColumnElement[int]) -> sa.ColumnElement[bool]:
    return sa.and_(col(V.valid_from) <= moment, sa.or_(col(V.valid_to).is_(None), col(V.valid_to) > moment))


def _latest(now: int) -> sa.ColumnElement[int]:
    """Now, by this clock or by the one that the version was recorded by, which may have been ahead of it."""
    return sa.case((col(V.recorded_at) > now, col(V.recorded_at)), else_=now)


def conditions(wanted: Wanted, now: int) -> list[sa.ColumnElement[bool]]:
    """All that SQL can tell; `fits` tells the rest."""
    given = ((V.subject, wanted.subject), (V.agent, wanted.agent), (V.session_id, wanted.session_id), (V.key, wanted.key))
    found = [*kept(now), believed(wanted.as_of), *(col(column) == value for column, value in given if value is not None)]
    if not wanted.everything:
        asked = wanted.as_of if wanted.valid_at is None else wanted.valid_at
        found.append(true_at(_latest(now) if asked is None else asked))
    if wanted.tag is not None:  # as it stands in the list's text, which both databases keep as it was written
        found.append(sa.cast(col(V.tags), sa.Text()).contains(json.dumps(wanted.tag), autoescape=True))
    return found


def fits(version: MemoryVersion, wanted: Wanted) -> bool:
    """SQLite's LIKE takes `a` and `A` for one."""
    return wanted.tag is None or wanted.tag in version.tags


def of_subject(scope: Speaker) -> tuple[sa.ColumnElement[bool], ...]:
    return () if scope.subject is None else (col(V.subject) == scope.subject,)


def latest(session: Session, scope: Speaker, memory_id: str, now: int) -> MemoryVersion:
    """Raise NotFound alike for what is missing, foreign, another subject's, deleted, or forgotten."""
    mine = col(V.memory_id) == memory_id, col(V.replaced_at).is_(None), *of_subject(scope)
    row = session.scalars(select(V).where(*mine, *kept(now)).execution_options(populate_existing=True)).one_or_none()
    if row is None:
        raise missing()
    return row


def missing() -> NotFound:
    return NotFound("There is no such memory.", field="memory_id")


def with_sources(session: Session, versions: Sequence[MemoryVersion]) -> list[Memory]:
    """Each with what its versions up to this one came from, oldest first, of many the newest."""
    found: dict[str, list[Source]] = {}
    if versions:
        for row in session.scalars(_sources_of(versions)):
            found.setdefault(row.memory_id, []).append(Source(row.session_id, row.seq, row.document_id))
    return [Memory(row, tuple(found.get(row.memory_id, ()))) for row in versions]


def _sources_of(versions: Sequence[MemoryVersion]) -> Any:
    S = MemorySource
    newest = (col(S.number).desc(), col(S.place).desc())
    rank = sa.func.row_number().over(partition_by=col(S.memory_id), order_by=newest).label("rank")
    each = (sa.and_(col(S.memory_id) == row.memory_id, col(S.number) <= row.number) for row in versions)
    ranked = select(S, rank).where(sa.or_(*each)).subquery()
    return select(aliased(S, ranked)).where(ranked.c.rank <= MAX_SHOWN_SOURCES).order_by(ranked.c.rank.desc())


def require_sources(
    session: Session, scope: Rememberer, subject: str, session_id: str, facts: Sequence[Fact], now: int, *, lock: bool = False
) -> None:
    """Every session and turn is the subject's, every document is seen. `lock`: until the transaction ends, none of the sessions
    does. Raise NotFound."""
    sources = [source for fact in facts for source in fact.sources]
    named: dict[str, int] = {session_id: 0} if session_id else {}
    for source in sources:
        if source.session_id is not None:
            named[source.session_id] = max(named.get(source.session_id, 0), source.seq or 0)
    for name in sorted(named):  # in one order: two that lock the same ones must not wait for each other
        row = find_session(session, scope, name, now, lock=lock)
        if row.subject != subject or named[name] > row.turns:
            raise NotFound("There is no such session.", field="session_id")
    for document_id in sorted({source.document_id for source in sources if source.document_id is not None}):
        _require_document(session, scope, document_id)


def _require_document(session: Session, scope: Rememberer, document_id: str) -> None:
    statement: Any = (
        select(col(Collection.name), col(DocumentVersion.labels))
        .join(Document, col(Collection.id) == col(Document.collection_id))
        .join(DocumentVersion, col(DocumentVersion.id) == col(Document.live_version_id))
        .where(col(Document.id) == document_id, col(Document.deleted_at).is_(None))
    )
    row = session.execute(statement).one_or_none()
    named = row is not None and (scope.collections is None or row[0] in scope.collections)
    if row is None or not named or not (scope.labels is None or scope.labels.issuperset(row[1])):
        raise NotFound("There is no such document.", field="document_id")
