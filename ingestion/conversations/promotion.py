"""What is attached to a session is kept beyond it: in a collection, under the same names and with the same vectors."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from sqlmodel import col, select

from config.errors import Conflict, InvalidInput, NotFound
from ingestion.conversations.attached import AttachedDocuments
from ingestion.conversations.transcripts import MEDIA_TYPE, content_of
from ingestion.intake.documents import Submitted
from ingestion.intake.submission import Submission
from rag.attached import attached_to
from rag.corpus import Document, DocumentVersion
from rag.sessions.finding import find
from tenants.context import TenantContext

MAX_PROMOTED = 100  # documents in one call


@dataclass(frozen=True, slots=True)
class Promoted:
    document_id: str  #: in the session
    submitted: Submitted  #: in the collection


@dataclass(frozen=True, slots=True)
class Promotion:
    attached: AttachedDocuments

    def promote(
        self, context: TenantContext, session_id: str, *, collection: str, documents: Sequence[str] | None = None
    ) -> list[Promoted]:
        """Those documents, or all, as they are live. The collection is made if there is none; what is there already under the
        name stays as a former version. Asked again, nothing is done twice. Raise as `TenantDocuments.submit` does.
        """
        versions = self._versions(context, session_id, documents)
        if not versions:
            return []
        self._ensure(context, collection)
        handle = self.attached.documents.for_tenant(context)
        return [
            Promoted(document.id, handle.submit(self._copy(document, version, collection))) for document, version in versions
        ]

    def transcript(self, context: TenantContext, session_id: str, *, collection: str) -> Submitted:
        """The session's turns as a document there, cut at turns; brought again, another version of it. Raise as `promote`."""
        parts = self.attached.documents
        with parts.database.read(context) as session:
            chat = find(session, context, session_id, parts.clock())
            content = content_of(session, session_id)
        with parts.database.read(context) as session:  # of one that is over by now, some may have been removed
            find(session, context, session_id, parts.clock())
        if not content:
            raise InvalidInput("Nothing was said in the session yet.", field="turns")
        self._ensure(context, collection)
        submission = Submission(
            content=content,
            media_type=MEDIA_TYPE,
            collection=collection,
            external_id=session_id,
            title=chat.title or session_id,
            source=session_id,
            copied_from=session_id,
        )
        return parts.for_tenant(context).submit(submission)

    def _ensure(self, context: TenantContext, collection: str) -> None:
        parts = self.attached.documents
        collections = parts.collections.for_tenant(context)
        try:
            with parts.database.read(context) as session:
                collections.find(session, collection)
        except NotFound:
            with suppress(Conflict):  # another makes it at the same moment
                collections.create(collection)

    def _versions(
        self, context: TenantContext, session_id: str, wanted: Sequence[str] | None
    ) -> Sequence[tuple[Document, DocumentVersion]]:
        parts = self.attached.documents
        live = select(Document, DocumentVersion).join(DocumentVersion, col(DocumentVersion.id) == col(Document.live_version_id))
        with parts.database.read(context) as session:
            found = attached_to(session, context, session_id, space=self.attached.space, now=parts.clock())
            mine = live.where(col(Document.collection_id).in_([row.id for row in found]), col(Document.deleted_at).is_(None))
            if wanted is not None:
                mine = mine.where(col(Document.id).in_(wanted))
            rows = [(row[0], row[1]) for row in session.execute(mine.order_by(col(Document.id)).limit(MAX_PROMOTED + 1))]
        rows = [row for row in rows if context.labels is None or context.labels.issuperset(row[1].labels)]
        if len(rows) > MAX_PROMOTED:
            raise InvalidInput(
                f"At most {MAX_PROMOTED} documents in one call: name them.", field="documents", limit=MAX_PROMOTED
            )
        if wanted is not None and {*wanted} != {document.id for document, _ in rows}:
            raise NotFound("There is no such document in the session, or it is not live yet.", field="documents")
        return rows

    def _copy(self, document: Document, version: DocumentVersion, collection: str) -> Submission:
        try:
            content = self.attached.documents.blobs.get(version.content_blob)
        except FileNotFoundError as error:  # replaced or deleted since it was looked up
            raise Conflict("The document changes at the moment; ask again.", field="documents") from error
        return Submission(
            content=content,
            media_type=version.media_type,
            collection=collection,
            external_id=document.external_id,
            title=version.title,
            source=version.source or version.url,
            attributes=version.attributes,
            labels=version.labels,
            copied_from=version.id,
        )
