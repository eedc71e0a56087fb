"""Which rows tell of a session or of a subject: derived from the tables, so that no new one can be forgotten.

A row goes with a session if it has its `session_id`, or refers to a row that goes; and with a subject if it has its `subject`,
or goes with one of its sessions.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session
from sqlmodel import SQLModel, col

from config.database import ROWS_BY_KEY, Database, HasTenant, TenantOwned
from rag.sessions.sweeping import REST
from rag.sessions.tables import ChatSession
from tenants.tables import IdempotencyRecord

ROWS = 100  # in one transaction: it holds SQLite's one lock for some 5 ms, for which a question's audit entry has to wait
#: What has such a column and stays, with the reason.
KEPT: Mapping[str, str] = {
    "events": "`subject` is the id of what changed; there are ids and counts only",
    "webhook_deliveries": "`subject` is the id of what changed; there are ids and counts only",
    "erasures": "is the receipt, and loses the name when it is done",
}
#: References that no foreign key declares: they outlive what they name for a while.
REFERENCES: Mapping[str, tuple[str, str]] = {
    "jobs": ("collection_id", "collections"),
    "sketch_bands": ("collection_id", "collections"),
    "former_texts": ("document_id", "documents"),
}
#: Last, because others are found through them.
LAST = ("documents", "collections", "sessions")
Table = type[TenantOwned]


@dataclass(frozen=True, slots=True)
class Whose:
    """Sessions by id (None: all of the subject's), and what else is of the subject."""

    sessions: Sequence[str] | None = ()
    subject: str | None = None

    @property
    def ids(self) -> Any:
        """What stands behind IN."""
        own = col(ChatSession.subject) == self.subject
        return sa.select(col(ChatSession.id)).where(own) if self.sessions is None else self.sessions

    def results(self) -> sa.ColumnElement[bool]:
        """Of kept answers, which are no tenant's own table."""
        of_sessions = col(IdempotencyRecord.session_id).in_(self.ids)
        return of_sessions if self.subject is None else sa.or_(of_sessions, col(IdempotencyRecord.subject) == self.subject)


@cache
def tables() -> tuple[Table, ...]:
    """That have rows which go, those first that others are not found through."""
    ordered = [*reversed(SQLModel.metadata.sorted_tables)]
    names = [table.name for table in ordered if table.name not in LAST] + [*LAST]
    classes = _classes()
    return tuple(classes[name] for name in names if name in classes and reached(classes[name], Whose(subject="")) is not None)


@cache
def documents_family() -> frozenset[Table]:
    """Of documents: they go by the collector, which knows what they have outside SQL."""
    found = {_classes()["collections"]}
    for table in reversed(tables()):
        if any(parent in found for _, parent, _ in _references(table)):
            found.add(table)
    return frozenset(found)


def reached(table: Table, whose: Whose) -> sa.ColumnElement[bool] | None:
    """Which of its rows go; None: none ever does."""
    if table.__tablename__ in KEPT:
        return None
    parts = [*_own(table, whose)]
    for columns, parent, keys in _references(table):
        if (there := reached(parent, whose)) is not None:
            found = sa.select(*keys).where(there)
            parts.append(columns[0].in_(found) if len(columns) == 1 else sa.tuple_(*columns).in_(found))
    return sa.or_(*parts) if parts else None


def _own(table: Table, whose: Whose) -> Iterator[sa.ColumnElement[bool]]:
    columns = table.__table__.columns  # type: ignore[attr-defined]
    if table is ChatSession:
        yield col(ChatSession.id).in_(whose.ids)
        return
    if "session_id" in columns:
        yield _column(table, "session_id").in_(whose.ids)
    if whose.subject is not None and "subject" in columns:
        yield _column(table, "subject") == whose.subject


def _references(table: Table) -> Iterator[tuple[list[Any], Table, list[Any]]]:
    """Columns of the table, the table that they refer to, and the columns there."""
    classes, own = _classes(), table.__table__  # type: ignore[attr-defined]
    for constraint in own.foreign_key_constraints:
        parent = classes.get(constraint.referred_table.name)
        if parent is not None and parent is not table:
            columns = [_column(table, column.key) for column in constraint.columns]
            yield columns, parent, [_column(parent, element.column.key) for element in constraint.elements]
    if own.name in REFERENCES:
        column, name = REFERENCES[own.name]
        yield [_column(table, column)], classes[name], [_column(classes[name], "id")]


@cache
def _classes() -> Mapping[str, Table]:
    mappers = TenantOwned._sa_registry.mappers
    return {str(mapper.class_.__tablename__): mapper.class_ for mapper in mappers if issubclass(mapper.class_, TenantOwned)}


def _column(table: Table, name: str) -> Any:
    return col(getattr(table, name))


def count(session: Session, whose: Whose) -> dict[str, int]:
    """Rows by table, of the tenant that the session is bound to."""
    counts = {}
    for table in tables():
        there = reached(table, whose)
        if there is not None:
            statement = sa.select(sa.func.count()).select_from(table).where(there)
            counts[str(table.__tablename__)] = session.scalar(statement.execution_options(**_way(table, whose))) or 0
    return counts


def remove(
    database: Database, scope: HasTenant, whose: Whose, *, until: float, pause: Callable[[float], None] = time.sleep
) -> bool:
    """All of them, a transaction for each ROWS, so that others write in between; False if the time was up before. Nothing
    that lies outside SQL may be left of their documents.
    """
    for table in _having(database, scope, whose):
        some, removed = _removal(table, whose), ROWS
        while removed == ROWS:
            if time.monotonic() > until:
                return False
            began = time.monotonic()
            with database.write(scope) as session:
                removed = session.execute(some).rowcount  # type: ignore[attr-defined]
            pause(REST * (time.monotonic() - began))
    return True


def _having(database: Database, scope: HasTenant, whose: Whose) -> list[Table]:
    """Tables that have some of their rows: of most there are none, and looking takes no lock."""
    with database.read(scope) as session:
        return [
            table
            for table in tables()
            if (there := reached(table, whose)) is not None
            and session.scalar(
                sa.select(sa.literal(1)).select_from(table).where(there).limit(1).execution_options(**_way(table, whose))
            )
        ]


def _removal(table: Table, whose: Whose) -> sa.Delete:
    """Of up to ROWS of the table's. Made once for each: building it anew took a quarter of every transaction."""
    there, keys = reached(table, whose), [_column(table, key.key) for key in sa.inspect(table).primary_key]
    some = sa.select(*keys).where(sa.false() if there is None else there).limit(ROWS)
    options = {"synchronize_session": False, **_way(table, whose)}
    return sa.delete(table).where(sa.tuple_(*keys).in_(some)).execution_options(**options)


def _way(table: Table, whose: Whose) -> Mapping[str, bool]:
    """Without it SQLite goes through all that the tenant has in the table: of 60,000 turns a hundred took 18 ms, and take 1."""
    return ROWS_BY_KEY if whose.subject is None and _leads_there(table) else {}


@cache
def _leads_there(table: Table) -> bool:
    """Whether an index, or one after the other, leads from sessions' ids to its rows."""
    own: sa.Table = table.__table__  # type: ignore[attr-defined]
    keys = [*own.indexes, *(key for key in own.constraints if isinstance(key, sa.UniqueConstraint | sa.PrimaryKeyConstraint))]
    first = {next(iter(key.columns)).key for key in keys}
    parents = [*_references(table)]
    names = ["id"] if table is ChatSession else ["session_id"] if "session_id" in own.columns else []
    names += [columns[0].key for columns, _, _ in parents]
    return bool(names) and first.issuperset(names) and all(_leads_there(parent) for _, parent, _ in parents)
