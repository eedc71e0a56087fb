"""What users say of answers: kept with the document that they speak of, and listed for whoever measures by it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from sqlalchemy.orm import Session
from sqlmodel import col, select

from config.clock import Clock
from config.database import Database
from config.errors import Forbidden, NotFound
from config.ids import new_id
from rag.collections import Collections
from rag.corpus import Collection, Document, DocumentVersion
from rag.evaluation.tables import Feedback
from rag.ranking import Ranked
from rag.retrieval.hydration import Hydrator
from rag.types import Reader


@dataclass(frozen=True, slots=True)
class Opinion:
    """Of a passage or of a document, as an answer to a question."""

    query: str
    passage_id: str | None = None
    document_id: str | None = None
    useful: bool | None = None
    rating: int | None = None
    comment: str | None = None
    subject: str | None = None


@dataclass(frozen=True, slots=True)
class Given:
    """Feedback with the names of what it speaks of."""

    row: Feedback
    external_id: str
    collection: str


class FeedbackStore:
    def __init__(self, database: Database, clock: Clock, collections: Collections) -> None:
        self.database, self.clock, self.collections = database, clock, collections

    def for_tenant(self, scope: Reader) -> TenantFeedback:
        return TenantFeedback(self, scope)


class TenantFeedback:
    def __init__(self, parts: FeedbackStore, scope: Reader) -> None:
        self._parts, self._scope = parts, scope

    def give(self, opinion: Opinion, *, request: str) -> Given:
        """Raise NotFound alike for what is missing, foreign, or hidden from the principal. Given again by the same request,
        it is there already."""
        with self._parts.database.write(self._scope) as session:
            document, collection = self._seen(session, opinion)
            again = session.scalars(select(Feedback).where(col(Feedback.request) == request)).first()
            if again is not None:
                return Given(again, document.external_id, collection.name)
            row = Feedback(
                id=new_id("fb"),
                tenant_id=self._scope.tenant_id,
                collection_id=collection.id,
                document_id=document.id,
                passage_id=opinion.passage_id,
                request=request,
                query=opinion.query,
                useful=opinion.useful,
                rating=opinion.rating,
                comment=opinion.comment,
                subject=opinion.subject,
                created_at=self._parts.clock(),
            )
            session.add(row)
        return Given(row, document.external_id, collection.name)

    def _seen(self, session: Session, opinion: Opinion) -> tuple[Document, Collection]:
        document_id = opinion.document_id or ""
        if opinion.passage_id is not None:
            hit = Ranked(opinion.passage_id, 0.0, {})
            found = Hydrator(self._scope, None).passages(session, [hit], Counter())
            document_id = found[0].document_id if found else ""
        statement = (
            select(Document, Collection, col(DocumentVersion.labels))
            .join(Collection, col(Collection.id) == col(Document.collection_id))
            .join(DocumentVersion, col(DocumentVersion.id) == col(Document.live_version_id))
            .where(col(Document.id) == document_id, col(Document.deleted_at).is_(None))
        )
        row = session.execute(statement).one_or_none()
        if row is None or row[1].session_id != self._scope.session or not self._may_see(row[1].name, row[2]):
            raise NotFound("There is no such passage or document.", field="passage_id" if opinion.passage_id else "document_id")
        return row[0], row[1]

    def _may_see(self, collection: str, labels: list[str]) -> bool:
        scope = self._scope
        named = scope.collections is None or collection in scope.collections
        return named and (scope.labels is None or scope.labels.issuperset(labels))

    def list(self, collection: str | None, *, after: str | None, limit: int) -> list[Given]:
        """Oldest first, of documents that are there; whoever speaks for a subject sees that one's. Raise Forbidden for a
        principal that does not see all documents."""
        if self._scope.collections is not None or self._scope.labels is not None:
            raise Forbidden("Feedback holds questions of all users; use a key that is not confined to collections or labels.")
        statement = (
            select(Feedback, col(Document.external_id), col(Collection.name))
            .join(Document, col(Document.id) == col(Feedback.document_id))
            .join(Collection, col(Collection.id) == col(Feedback.collection_id))
            .where(col(Document.deleted_at).is_(None))
            .order_by(col(Feedback.id))
            .limit(limit)
        )
        if self._scope.subject is not None:
            statement = statement.where(col(Feedback.subject) == self._scope.subject)
        if after is not None:
            statement = statement.where(col(Feedback.id) > after)
        with self._parts.database.read(self._scope) as session:
            if collection is not None:
                found = self._parts.collections.for_tenant(self._scope).find(session, collection)
                statement = statement.where(col(Feedback.collection_id) == found.id)
            return [Given(*row) for row in session.execute(statement).all()]
