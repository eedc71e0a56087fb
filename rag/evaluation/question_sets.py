"""A tenant's stored question sets: made, listed, read and deleted, each in one transaction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, defer
from sqlmodel import col, select

from config.clock import Clock
from config.database import Database
from config.errors import Conflict, Forbidden, InvalidInput, NotFound
from config.ids import new_id
from rag.collections import DEFAULT, NAME, Collections
from rag.corpus import Collection
from rag.evaluation.tables import QuestionSet
from rag.types import Reader

MAX_QUESTIONS, MAX_SETS = 1_000, 100


@dataclass(frozen=True, slots=True)
class Named:
    """A set with the name of its collection."""

    row: QuestionSet
    collection: str


class QuestionSets:
    def __init__(self, database: Database, clock: Clock, collections: Collections) -> None:
        self.database, self.clock, self.collections = database, clock, collections

    def for_tenant(self, scope: Reader) -> TenantQuestionSets:
        """Raise Forbidden for a reader that is bound to labels: a set names documents whatever labels these have."""
        if scope.labels is not None:
            raise Forbidden("Question sets name documents of every label; use a key that is not confined to labels.")
        return TenantQuestionSets(self, scope)


class TenantQuestionSets:
    def __init__(self, parts: QuestionSets, scope: Reader) -> None:
        self._parts, self._scope = parts, scope

    def create(
        self,
        name: str,
        collection: str,
        questions: Sequence[dict[str, Any]],
        *,
        record: Callable[[Session, Named], None] | None = None,
    ) -> Named:
        """`record` writes something of the new set in its transaction, last."""
        if not NAME.fullmatch(name):
            raise InvalidInput("A set's name is 1 to 100 of letters, digits, `.`, `_` and `-`.", field="name", limit=100)
        if collection == DEFAULT:
            self._parts.collections.for_tenant(self._scope).ensure_default()
        try:
            with self._parts.database.write(self._scope) as session:
                found = self._parts.collections.for_tenant(self._scope).find(session, collection)
                held = session.scalar(select(sa.func.count()).select_from(QuestionSet).where(_of(found.id))) or 0
                if held >= MAX_SETS:
                    raise InvalidInput(f"A collection has at most {MAX_SETS} question sets.", field="name", limit=MAX_SETS)
                named = Named(self._row(found, name, questions), collection)
                session.add(named.row)
                session.flush()
                if record is not None:
                    record(session, named)
        except IntegrityError as error:
            raise Conflict(f"A question set named {name!r} exists.", field="name") from error
        return named

    def _row(self, collection: Collection, name: str, questions: Sequence[dict[str, Any]]) -> QuestionSet:
        return QuestionSet(
            id=new_id("set"),
            tenant_id=self._scope.tenant_id,
            collection_id=collection.id,
            name=name,
            count=len(questions),
            questions=[*questions],
            created_at=self._parts.clock(),
        )

    def list(self, collection: str | None, *, after: str | None, limit: int) -> list[Named]:
        """Without their questions, oldest first."""
        statement = (
            select(QuestionSet, col(Collection.name))
            .join(Collection, col(Collection.id) == col(QuestionSet.collection_id))
            .options(defer(QuestionSet.questions, raiseload=True))  # type: ignore[arg-type]
            .order_by(col(QuestionSet.id))
            .limit(limit)
        )
        if after is not None:
            statement = statement.where(col(QuestionSet.id) > after)
        if self._scope.collections is not None:
            statement = statement.where(col(Collection.name).in_(self._scope.collections))
        with self._parts.database.read(self._scope) as session:
            if collection is not None:
                found = self._parts.collections.for_tenant(self._scope).find(session, collection)
                statement = statement.where(_of(found.id))
            return [Named(row, name) for row, name in session.execute(statement).all()]

    def get(self, set_id: str) -> Named:
        with self._parts.database.read(self._scope) as session:
            return self._find(session, set_id)

    def delete(self, set_id: str) -> Named:
        with self._parts.database.write(self._scope) as session:
            found = self._find(session, set_id)
            session.delete(found.row)
        return found

    def _find(self, session: Session, set_id: str) -> Named:
        statement = (
            select(QuestionSet, col(Collection.name))
            .join(Collection, col(Collection.id) == col(QuestionSet.collection_id))
            .where(col(QuestionSet.id) == set_id)
        )
        found = session.execute(statement).one_or_none()
        if found is None or (self._scope.collections is not None and found[1] not in self._scope.collections):
            raise NotFound("There is no such question set.")
        return Named(found[0], found[1])


def _of(collection_id: str) -> sa.ColumnElement[bool]:
    return col(QuestionSet.collection_id) == collection_id
