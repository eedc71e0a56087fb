"""Traces as they are listed and shown. Who speaks for a subject sees that subject's; who is confined to collections or labels
sees those that were left within equal bounds, because any other may tell of what lies beyond. Those of a session that is over
are shown to nobody.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlmodel import col, select

from config.clock import Clock, system_clock
from config.database import Database
from config.errors import NotFound
from rag.sessions.finding import alive
from rag.sessions.tables import ChatSession
from rag.traces.left import Asker, bounds_of
from rag.traces.tables import Trace


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which traces; None: whatever it is. Times are Unix milliseconds, `until` is not in it."""

    kind: str | None = None
    subject: str | None = None
    session_id: str | None = None
    since: int | None = None
    until: int | None = None


class Traces:
    def __init__(self, database: Database, clock: Clock = system_clock) -> None:
        self.database, self._clock = database, clock

    def for_tenant(self, asker: Asker) -> TenantTraces:
        return TenantTraces(self.database, self._clock, asker)


class TenantTraces:
    def __init__(self, database: Database, clock: Clock, asker: Asker) -> None:
        self._database, self._clock, self._asker = database, clock, asker

    def get(self, trace_id: str) -> Trace:
        """Raise NotFound alike for what is missing, foreign, another subject's, or left within other bounds."""
        statement = select(Trace).where(col(Trace.id) == trace_id, *self._own())
        with self._database.read(self._asker) as session:
            found = session.scalars(statement).one_or_none()
        if found is None:
            raise NotFound("There is no such trace.")
        return found

    def page(self, wanted: Wanted, *, after: str | None = None, limit: int) -> Sequence[Trace]:
        """Newest first; `after`: the `position` of the last one that was seen."""
        at, name = col(Trace.at), col(Trace.id)
        statement = select(Trace).where(*self._own(), *_conditions(wanted)).order_by(at.desc(), name.desc()).limit(limit)
        if after is not None:
            moment, _, trace_id = after.partition(" ")
            place = sa.tuple_(sa.literal(int(moment), sa.BigInteger), sa.literal(trace_id))
            statement = statement.where(sa.tuple_(at, name) < place)
        with self._database.read(self._asker) as session:
            return session.scalars(statement).all()

    def last(self, wanted: Wanted, count: int) -> list[Trace]:
        """The newest so many, in the order in which they were left."""
        return [*reversed(self.page(wanted, limit=count))]

    def _own(self) -> list[sa.ColumnElement[bool]]:
        in_session = sa.exists().where(col(ChatSession.id) == col(Trace.session_id), *alive(self._clock()))
        own, bounds = [sa.or_(col(Trace.session_id).is_(None), in_session)], bounds_of(self._asker)
        if self._asker.subject is not None:
            own.append(col(Trace.subject) == self._asker.subject)
        if bounds is not None:
            own.append(col(Trace.bounds) == bounds)
        return own


def position(trace: Trace) -> str:
    return f"{trace.at} {trace.id}"


def _conditions(wanted: Wanted) -> Iterator[sa.ColumnElement[bool]]:
    for column in ("kind", "subject", "session_id"):
        value = getattr(wanted, column)
        if value is not None:
            yield getattr(Trace, column) == value
    if wanted.since is not None:
        yield col(Trace.at) >= wanted.since
    if wanted.until is not None:
        yield col(Trace.at) < wanted.until
