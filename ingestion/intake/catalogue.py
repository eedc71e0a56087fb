"""Documents as they are kept: shown, listed, read and deleted. How they are taken in is `documents`' to know."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass, replace

import sqlalchemy as sa
from sqlalchemy.orm import Session
from sqlmodel import col, select
from sqlmodel.sql.expression import Select

from config.clock import Clock
from config.database import Database
from config.errors import Forbidden, InvalidInput, NotFound
from config.profiles import PRIORITIES
from ingestion.blobs import BlobStore
from ingestion.counting import follow
from ingestion.fetch.addresses import UrlPolicy
from ingestion.intake.preconditions import ANYTHING, Precondition, etag_of
from ingestion.jobs.jobs import require_seen
from ingestion.jobs.rows import AT_ONCE, After, JobQueue, add_job, emit_document
from ingestion.jobs.tables import Job
from rag.collections import Collections
from rag.corpus import Collection, Document, DocumentVersion
from rag.lexical.counting import count_version
from tenants.context import TenantContext
from tenants.ledger.budget import Ledger
from tenants.limits.quotas import UNLIMITED, Quotas


@dataclass(frozen=True, slots=True)
class Near:
    """The document that another nearly repeats."""

    document_id: str
    similarity: float
    linked: bool  #: whether the other is found through this one only


@dataclass(frozen=True, slots=True)
class Shown:
    """A document with the version that matters: the live one, else the newest."""

    document: Document
    version: DocumentVersion
    collection: str
    near: Near | None = None  #: None too where the reader may not see that document

    @property
    def etag(self) -> str:
        return etag_of(self.document)


@dataclass(frozen=True, slots=True)
class DocumentLimits:
    max_bytes: int
    urls: UrlPolicy | None = None  #: None: nothing is fetched
    quotas: Quotas = UNLIMITED


@dataclass(frozen=True, slots=True)
class Parts:
    """What a tenant's documents are kept and taken in with."""

    database: Database
    clock: Clock
    collections: Collections
    blobs: BlobStore
    queue: JobQueue
    ledger: Ledger
    limits: DocumentLimits


class TenantCatalogue:
    def __init__(self, parts: Parts, context: TenantContext) -> None:
        self._parts, self._context = parts, context
        self._collections = parts.collections.for_tenant(context)

    def get(self, document_id: str) -> Shown:
        with self._parts.database.read(self._context) as session:
            return self._shown(session, document_id)

    def list(
        self, *, collection: str | None, after: str | None, limit: int, external_ids: Sequence[str] = ()
    ) -> tuple[Sequence[Shown], str | None]:
        """Up to `limit` documents by id, and where to go on; fewer where the reader's labels hide some.

        `external_ids`: only these, of a collection that is named: they are names inside one. Raise NotFound, InvalidInput.
        """
        if external_ids and collection is None:
            raise InvalidInput("External ids are names inside a collection: name it.", field="collection")
        statement = self._documents().order_by(col(Document.id)).limit(limit)
        if external_ids:
            statement = statement.where(col(Document.external_id).in_(external_ids))
        if after is not None:
            statement = statement.where(col(Document.id) > after)
        with self._parts.database.read(self._context) as session:
            if collection is not None:
                wanted = self._collections.find(session, collection)
                statement = statement.where(col(Document.collection_id) == wanted.id)
            if (bounds := self._bounds) is not None:
                statement = statement.where(col(Collection.name).in_(bounds))
            rows = [Shown(*row) for row in session.execute(statement)]
            following = rows[-1].document.id if len(rows) == limit else None
            return self._with_near(session, [shown for shown in rows if self._holds(shown.version)]), following

    def text(self, document_id: str) -> tuple[Shown, str]:
        """The text that passages cite, by character offsets. NotFound until a version is live."""
        for last in (False, True):
            shown = self.get(document_id)
            if shown.version.state != "live" or shown.version.text_blob is None:
                raise NotFound("The document has no text yet.", field="document_id")
            try:
                return shown, self._parts.blobs.get(shown.version.text_blob).decode()
            except FileNotFoundError:  # replaced since it was looked up: the new version has another
                if last:
                    raise
        raise AssertionError("the loop returns or raises")

    def delete(self, document_id: str, *, expected: Precondition = ANYTHING, after: After = AT_ONCE) -> Job:
        """Gone from every answer when this returns, unless the job waits for others; vectors, texts and rows follow with it.

        Raise NotFound (also for a job), Forbidden, VersionConflict.
        """
        with self._parts.database.write(self._context) as session:
            require_seen(session, self._context, after.ids)
            shown = self._shown(session, document_id)
            document = session.get(Document, shown.document.id, with_for_update=True, populate_existing=True)
            if document is None or document.deleted_at is not None:  # by another who was waited for
                raise NotFound("There is no such document.")
            if not self._visible(session, document):
                raise Forbidden("The document's newest version has labels that the key does not hold.", field="document_id")
            expected.require(document)
            # Before what is to be embedded: what was promised gone is gone soon, however long the queue is.
            first, clock = PRIORITIES["high"], self._parts.clock
            job = add_job(session, clock, self._parts.queue, "delete", document, None, priority=first, after=after)
            if not job.held:
                tombstone(session, clock, document, job)
            return job

    def _visible(self, session: Session, document: Document) -> bool:
        """Whether its live and its newest version are: what replaces or deletes it does so to both."""
        if self._context.labels is None:
            return True
        versions = select(DocumentVersion).where(
            col(DocumentVersion.document_id) == document.id,
            col(DocumentVersion.number).in_((document.live_number, document.last_number)),
        )
        return all(self._holds(version) for version in session.scalars(versions))

    def _shown(self, session: Session, document_id: str) -> Shown:
        row = session.execute(self._documents().where(col(Document.id) == document_id)).first()
        shown = None if row is None else Shown(*row)
        bounds = self._bounds
        if shown is None or not self._holds(shown.version) or (bounds is not None and shown.collection not in bounds):
            raise NotFound("There is no such document.")
        return self._with_near(session, [shown])[0]

    def _with_near(self, session: Session, shown: Sequence[Shown]) -> Sequence[Shown]:
        """Each with what it nearly repeats, if that still is there and the reader holds its labels."""
        wanted = {one.version.near_document_id for one in shown} - {None}
        if not wanted:
            return shown
        others = (Shown(*row) for row in session.execute(self._documents().where(col(Document.id).in_(wanted))))
        seen = {other.document.id for other in others if self._holds(other.version)}
        return [replace(one, near=_near(one.version, seen)) for one in shown]

    @property
    def _bounds(self) -> Set[str] | None:
        """Names of collections outside of which nothing is seen; what is attached to a session has none."""
        return self._context.collections if self._context.session is None else None

    def _documents(self) -> Select[Document, DocumentVersion, str]:
        """Those of the context's session, or those of none."""
        return _SHOWN.where(col(Collection.session_id) == self._context.session)

    def _holds(self, version: DocumentVersion) -> bool:
        return self._context.labels is None or self._context.labels.issuperset(version.labels)


def _near(version: DocumentVersion, seen: Set[str]) -> Near | None:
    if version.near_document_id is None or version.near_document_id not in seen:
        return None
    return Near(version.near_document_id, version.near_similarity or 0.0, version.linked)


#: Documents that exist, each with its live version, or the newest where none is live.
_SHOWN = (
    select(Document, DocumentVersion, col(Collection.name))
    .join(Collection, col(Collection.id) == col(Document.collection_id))
    .join(
        DocumentVersion,
        sa.or_(
            col(DocumentVersion.id) == col(Document.live_version_id),
            sa.and_(
                col(Document.live_version_id).is_(None),
                col(DocumentVersion.document_id) == col(Document.id),
                col(DocumentVersion.number) == col(Document.last_number),
            ),
        ),
    )
    .where(col(Document.deleted_at).is_(None))
)


_BUMP = (
    sa.update(Collection)
    .where(col(Collection.id) == sa.bindparam("collection"))
    .values(generation=col(Collection.generation) + 1)
)


def tombstone(session: Session, clock: Clock, document: Document, job: Job) -> None:
    """The document, whose row the session holds, is gone from every answer; once."""
    if document.deleted_at is not None:
        return
    former, document.live_version_id = document.live_version_id, None
    document.deleted_at = clock()
    session.add(document)
    follow(session, document)
    bump_generation(session, document.collection_id)
    count_version(session, document.collection_id, tenant=document.tenant_id, live=None, ended=former)
    emit_document(session, clock, "deleted", job, version=document.last_number)


def bump_generation(session: Session, collection_id: str) -> None:
    """Whatever was computed from this collection before is stale from this transaction on."""
    session.execute(_BUMP, {"collection": collection_id}, execution_options={"synchronize_session": False})
