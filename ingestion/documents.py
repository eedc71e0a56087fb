"""Taking in, showing and deleting documents: the requests' side. The work itself is `pipeline`'s, run by durable jobs.

A submission writes its blob first and then, in one transaction, the document, its version and its job. So an acknowledged
document is never without a job, and a refused one leaves nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session
from sqlmodel import col, select

from config.clock import Clock
from config.database import Database, may_be_committed, once_more
from config.errors import Forbidden, NotFound, Unavailable
from config.ids import new_id
from config.profiles import STANDARD
from ingestion.blobs import BlobStore
from ingestion.fetch.addresses import UrlPolicy
from ingestion.jobs import JobQueue, add_job, emit_document
from ingestion.submission import Checked, Submission, check
from ingestion.tables import Job
from rag.collections import DEFAULT, Collections
from rag.corpus import Collection, Document, DocumentVersion
from rag.profiles import NamedProfile
from tenants.budget import Ledger
from tenants.context import TenantContext

_HIDDEN = "A document of this name has labels that the key does not hold."


@dataclass(frozen=True, slots=True)
class Shown:
    """A document with the version that matters: the live one, else the newest."""

    document: Document
    version: DocumentVersion
    collection: str


@dataclass(frozen=True, slots=True)
class Submitted:
    shown: Shown
    job: Job | None  #: None: this content is live already


@dataclass(frozen=True, slots=True)
class Examined:
    """A submission that would be accepted: the version it would become, of its document (an empty id: of a new one)."""

    content: bytes
    version: DocumentVersion
    collection_id: str  #: empty: the default collection, which would be made


@dataclass(frozen=True, slots=True)
class DocumentLimits:
    max_bytes: int
    urls: UrlPolicy | None = None  #: None: nothing is fetched


class Documents:
    def __init__(
        self,
        database: Database,
        clock: Clock,
        collections: Collections,
        blobs: BlobStore,
        queue: JobQueue,
        ledger: Ledger,
        limits: DocumentLimits,
    ) -> None:
        self.database, self.clock, self.collections = database, clock, collections
        self.blobs, self.queue, self.ledger, self.limits = blobs, queue, ledger, limits

    def for_tenant(self, context: TenantContext) -> TenantDocuments:
        return TenantDocuments(self, context)


class TenantDocuments:
    def __init__(self, parts: Documents, context: TenantContext) -> None:
        self._parts, self._context = parts, context
        self._collections = parts.collections.for_tenant(context)

    def submit(self, submission: Submission, *, record: Callable[[Session, Submitted], None] | None = None) -> Submitted:
        """Raise InvalidInput, TooLarge, UnsupportedMedia, NotFound (collection) or BudgetExhausted; then nothing is kept.

        `record` writes something of the submission in its transaction, last; what is live already needs no transaction.
        """
        checked = self._checked(submission)
        if checked.collection == DEFAULT:
            self._collections.ensure_default()
        with self._parts.database.read(self._context) as session:
            collection = self._collections.find(session, checked.collection)
            profile = self._parts.collections.profiles.get(collection.profile, field="collection")
            version = self._new_version(checked, profile)
            document = _by_external_id(session, collection.id, checked.external_id)
            if document is not None and (live := self._already(session, document, version, collection)):
                return live
            known_text = document is not None and self._has_content(session, document, version, checked)
        if not known_text:  # what is embedded already costs nothing: its labels can change with an empty budget
            self._parts.ledger.for_tenant(self._context, "ingest").require()
        if checked.url is None:
            version.content_blob = self._parts.blobs.put(version.id, checked.content)
        try:
            return self._keep(collection, checked.external_id, version, profile.rank, record)
        except BaseException as error:
            if not may_be_committed(error):  # else only a reconciler may delete it: it waits until SQL can say
                self._parts.blobs.delete_owned(version.id)
            raise

    def examine(self, submission: Submission) -> Examined:
        """Refuse what `submit` refuses, but for the budget, and keep nothing."""
        checked, profiles = self._checked(submission), self._parts.collections.profiles
        with self._parts.database.read(self._context) as session:
            try:
                collection = self._collections.find(session, checked.collection)
            except NotFound:
                bounds = self._context.collections
                if checked.collection != DEFAULT or (bounds is not None and DEFAULT not in bounds):
                    raise
                return Examined(checked.content, self._new_version(checked, profiles.get(STANDARD)), "")
            version = self._new_version(checked, profiles.get(collection.profile, field="collection"))
            document = _by_external_id(session, collection.id, checked.external_id)
            if document is not None:
                if not self._visible(session, document) and not self._already(session, document, version, collection):
                    raise Forbidden(_HIDDEN, field="external_id")
                version.document_id = document.id
        return Examined(checked.content, version, collection.id)

    def _checked(self, submission: Submission) -> Checked:
        checked = check(submission, max_bytes=self._parts.limits.max_bytes, urls=self._parts.limits.urls)
        if self._context.labels is not None and not self._context.labels.issuperset(checked.labels):
            raise Forbidden("The key does not hold all of these labels.", field="labels")
        return checked

    @once_more
    def _keep(
        self,
        collection: Collection,
        external_id: str,
        version: DocumentVersion,
        priority: int,
        record: Callable[[Session, Submitted], None] | None,
    ) -> Submitted:
        with self._parts.database.write(self._context) as session:
            submitted = self._record(session, collection, external_id, version, priority)
            if record is not None:
                record(session, submitted)
            return submitted

    def _new_version(self, checked: Checked, profile: NamedProfile) -> DocumentVersion:
        return DocumentVersion(
            id=new_id("ver"),
            tenant_id=self._context.tenant_id,
            document_id="",
            number=0,
            digest=checked.digest,
            profile=profile.name,
            chunking=asdict(profile.chunking),
            title=checked.title,
            source=checked.source,
            url=checked.url,
            media_type=checked.media_type,
            attributes=checked.attributes,
            labels=list(checked.labels),
            bytes=len(checked.content),
            content_blob="",
            created_at=self._parts.clock(),
        )

    def _already(
        self, session: Session, document: Document, version: DocumentVersion, collection: Collection
    ) -> Submitted | None:
        """What answers a repeated submission: the live version, or the job that is about to make it live."""
        newest = session.scalars(
            select(DocumentVersion).where(
                col(DocumentVersion.document_id) == document.id, col(DocumentVersion.number) == document.last_number
            )
        ).one()
        changed = newest.digest != version.digest or newest.chunking != version.chunking
        if changed or newest.state not in ("queued", "live"):
            return None
        jobs = select(Job).where(col(Job.version_id) == newest.id).order_by(col(Job.created_at).desc(), col(Job.id).desc())
        job = session.scalars(jobs).first() if newest.state == "queued" else None  # the last: those before it were retried
        return Submitted(Shown(document, newest, collection.name), job)

    def _has_content(self, session: Session, document: Document, version: DocumentVersion, checked: Checked) -> bool:
        live = session.get(DocumentVersion, document.live_version_id or "")
        if live is None or live.chunking != version.chunking:
            return False
        return checked.url is None and live.content_blob.endswith(hashlib.sha256(checked.content).hexdigest())

    def _record(
        self, session: Session, collection: Collection, external_id: str, version: DocumentVersion, priority: int
    ) -> Submitted:
        now = self._parts.clock()
        document = _by_external_id(session, collection.id, external_id, lock=True)
        if document is None:
            document = Document(
                id=new_id("doc"),
                tenant_id=self._context.tenant_id,
                collection_id=collection.id,
                external_id=external_id,
                created_at=now,
            )
        elif not self._visible(session, document):
            raise Forbidden(_HIDDEN, field="external_id")
        elif already := self._already(session, document, version, collection):
            self._parts.blobs.delete_owned(version.id)  # somebody sent the same a moment earlier
            return already
        document.last_number += 1
        session.add(document)
        session.flush()
        version.document_id, version.number = document.id, document.last_number
        session.add(version)
        job = add_job(session, self._parts.clock, self._parts.queue, "ingest", document, version, priority=priority)
        emit_document(session, self._parts.clock, "queued", job, version=version.number, bytes=version.bytes)
        if version.url is None and not self._parts.blobs.path(version.content_blob).exists():
            raise Unavailable("The request was interrupted; send it again.", retry_after_s=1)  # taken for a dead process's
        return Submitted(Shown(document, version, collection.name), job)

    def get(self, document_id: str) -> Shown:
        with self._parts.database.read(self._context) as session:
            return self._shown(session, document_id)

    def list(self, *, collection: str | None, after: str | None, limit: int) -> tuple[list[Shown], str | None]:
        """Up to `limit` documents by id, and where to go on; fewer where the reader's labels hide some."""
        statement = _SHOWN.order_by(col(Document.id)).limit(limit)
        if after is not None:
            statement = statement.where(col(Document.id) > after)
        with self._parts.database.read(self._context) as session:
            if collection is not None:
                wanted = self._collections.find(session, collection)
                statement = statement.where(col(Document.collection_id) == wanted.id)
            if self._context.collections is not None:
                statement = statement.where(col(Collection.name).in_(self._context.collections))
            rows = [Shown(*row) for row in session.execute(statement)]
        following = rows[-1].document.id if len(rows) == limit else None
        return [shown for shown in rows if self._holds(shown.version)], following

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

    def delete(self, document_id: str) -> Job:
        """Gone from every answer when this returns; vectors, texts and rows follow with the job."""
        with self._parts.database.write(self._context) as session:
            shown = self._shown(session, document_id)
            document = session.get_one(Document, shown.document.id, with_for_update=True)
            document.deleted_at = self._parts.clock()
            document.live_version_id = None
            session.add(document)
            bump_generation(session, document.collection_id)
            job = add_job(session, self._parts.clock, self._parts.queue, "delete", document, None)
            emit_document(session, self._parts.clock, "deleted", job, version=document.last_number)
            return job

    def _visible(self, session: Session, document: Document) -> bool:
        """Whether its live and its newest version are: replacing it would hide the one and compete with the other."""
        versions = select(DocumentVersion).where(
            col(DocumentVersion.document_id) == document.id,
            col(DocumentVersion.number).in_((document.live_number, document.last_number)),
        )
        return all(self._holds(version) for version in session.scalars(versions))

    def _shown(self, session: Session, document_id: str) -> Shown:
        row = session.execute(_SHOWN.where(col(Document.id) == document_id)).first()
        shown = None if row is None else Shown(*row)
        bounds = self._context.collections
        if shown is None or not self._holds(shown.version) or (bounds is not None and shown.collection not in bounds):
            raise NotFound("There is no such document.")
        return shown

    def _holds(self, version: DocumentVersion) -> bool:
        return self._context.labels is None or self._context.labels.issuperset(version.labels)


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


def bump_generation(session: Session, collection_id: str) -> None:
    """Whatever was computed from this collection before is stale from this transaction on."""
    session.execute(_BUMP, {"collection": collection_id}, execution_options={"synchronize_session": False})


def _by_external_id(session: Session, collection_id: str, external_id: str, *, lock: bool = False) -> Document | None:
    statement = select(Document).where(
        col(Document.collection_id) == collection_id,
        col(Document.external_id) == external_id,
        col(Document.deleted_at).is_(None),
    )
    return session.scalars(statement.with_for_update() if lock else statement).first()
