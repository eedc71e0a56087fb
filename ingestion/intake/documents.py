"""Taking in documents: the requests' side. The work itself is `pipeline`'s, run by durable jobs.

A submission writes its blob first and then, in one transaction, the document, its version and its job. So an acknowledged
document is never without a job, and a refused one leaves nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session
from sqlmodel import col, select

from config.database import may_be_committed, once_more
from config.errors import Forbidden, NotFound, Unavailable
from config.ids import new_id
from config.profiles import STANDARD
from ingestion.counting import follow
from ingestion.intake.catalogue import Parts, Shown, TenantCatalogue
from ingestion.intake.preconditions import ANYTHING, Precondition
from ingestion.intake.submission import Checked, Submission, check
from ingestion.jobs.jobs import require_seen
from ingestion.jobs.rows import AT_ONCE, After, add_job, emit_document
from ingestion.jobs.tables import Job
from rag.collections import DEFAULT, learn_attributes
from rag.corpus import Collection, Document, DocumentVersion
from rag.profiles import NamedProfile
from tenants.context import TenantContext
from tenants.limits.quotas import Counts

_HIDDEN = "A document of this name has labels that the key does not hold."


@dataclass(frozen=True, slots=True)
class Submitted:
    shown: Shown
    job: Job | None  #: None: this content is live already


@dataclass(frozen=True, slots=True)
class Given:
    """What is to be recorded."""

    collection: Collection
    external_id: str
    version: DocumentVersion
    priority: int
    expected: Precondition = ANYTHING
    after: After = AT_ONCE


@dataclass(frozen=True, slots=True)
class Examined:
    """A submission that would be accepted: the version it would become, of its document (an empty id: of a new one)."""

    content: bytes
    version: DocumentVersion
    collection_id: str  #: empty: the default collection, which would be made


@dataclass(frozen=True, slots=True)
class Documents(Parts):
    def for_tenant(self, context: TenantContext) -> TenantDocuments:
        return TenantDocuments(self, context)


class TenantDocuments(TenantCatalogue):
    def submit(
        self,
        submission: Submission,
        *,
        expected: Precondition = ANYTHING,
        after: After = AT_ONCE,
        record: Callable[[Session, Submitted], None] | None = None,
    ) -> Submitted:
        """Raise InvalidInput, TooLarge, UnsupportedMedia, NotFound (collection, job), VersionConflict, BudgetExhausted,
        QuotaExceeded, QueueFull, Overloaded or StorageFull; then nothing is kept.

        `record` writes something of the submission in its transaction, last; what is live already needs no transaction.
        """
        checked = self._checked(submission)
        if checked.collection == DEFAULT:
            self._collections.ensure_default()
        with self._parts.database.read(self._context) as session:
            collection = self._collections.find(session, checked.collection)
            profile = self._parts.collections.profiles.get(collection.profile, field="collection")
            checked = checked.within(collection.attribute_types)
            version = self._new_version(checked, profile)
            require_seen(session, self._context, after.ids)
            document = by_external_id(session, collection.id, checked.external_id)
            self._require(session, document, expected)
            if document is not None and (live := self._already(session, document, version, collection)):
                return live
            self._require_room(session, document, version)  # before anything is written for it
            known_text = document is not None and self._has_content(session, document, version, checked)
        if not known_text and checked.copied_from is None:  # with an empty budget too what costs nothing can be done
            self._parts.ledger.for_tenant(self._context, "ingest").require()
        if checked.url is None:
            version.content_blob = self._parts.blobs.put(version.id, checked.content)
        try:
            given = Given(collection, checked.external_id, version, profile.rank, expected, after)
            return self._keep(given, record)
        except BaseException as error:
            if not may_be_committed(error):  # else only a reconciler may delete it: it waits until SQL can say
                self._parts.blobs.delete_owned(version.id)
            if isinstance(error, IntegrityError):
                self._require_there(collection)
            raise

    def _require_there(self, collection: Collection) -> None:
        """Raise NotFound for one that was deleted since it was looked up: nothing can be put into it any more."""
        with self._parts.database.read(self._context) as session:
            if session.get(Collection, collection.id) is None:
                raise NotFound("The collection was deleted meanwhile.", field="collection")

    def _require_room(self, session: Session, document: Document | None, version: DocumentVersion) -> None:
        """In the plan, the queue and on the disk. What the plan has room for is decided when it is kept."""
        more = Counts(documents=int(document is None or not document.counted), bytes=version.bytes)
        self._parts.limits.quotas.require_room(session, self._context.tenant_id, more)
        self._parts.queue.require_room(session, self._context.tenant_id)

    def _require(self, session: Session, document: Document | None, expected: Precondition) -> None:
        """Raise VersionConflict; of a document that the caller must not see, nothing is said of its version."""
        if expected != ANYTHING and (document is None or self._visible(session, document)):
            expected.require(document)

    def examine(self, submission: Submission, *, expected: Precondition = ANYTHING) -> Examined:
        """Refuse what `submit` refuses, but for the budget, and keep nothing."""
        checked, profiles = self._checked(submission), self._parts.collections.profiles
        with self._parts.database.read(self._context) as session:
            try:
                collection = self._collections.find(session, checked.collection)
            except NotFound:
                bounds = self._context.collections
                if checked.collection != DEFAULT or (bounds is not None and DEFAULT not in bounds):
                    raise
                expected.require(None)
                return Examined(checked.content, self._new_version(checked, profiles.get(STANDARD)), "")
            checked = checked.within(collection.attribute_types)
            version = self._new_version(checked, profiles.get(collection.profile, field="collection"))
            document = by_external_id(session, collection.id, checked.external_id)
            self._require(session, document, expected)
            if document is not None:
                if not self._visible(session, document) and not self._already(session, document, version, collection):
                    raise Forbidden(_HIDDEN, field="external_id")
                version.document_id = document.id
        return Examined(checked.content, version, collection.id)

    def _checked(self, submission: Submission) -> Checked:
        checked = check(submission, max_bytes=self.max_bytes(), urls=self._parts.limits.urls)
        if self._context.labels is not None and not self._context.labels.issuperset(checked.labels):
            raise Forbidden("The key does not hold all of these labels.", field="labels")
        return checked

    def max_bytes(self) -> int:
        limits = self._parts.limits
        of_plan = limits.quotas.of(self._context.tenant_id).document_bytes
        return limits.max_bytes if of_plan is None else min(of_plan, limits.max_bytes)

    @once_more
    def _keep(self, given: Given, record: Callable[[Session, Submitted], None] | None) -> Submitted:
        with self._parts.database.write(self._context) as session:
            submitted = self._record(session, given)
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
            chunking=asdict(checked.chunking or profile.chunking),
            title=checked.title,
            source=checked.source,
            url=checked.url,
            media_type=checked.media_type,
            attributes=checked.attributes,
            labels=list(checked.labels),
            bytes=len(checked.content),
            content_blob="",
            copied_from=checked.copied_from,
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
        return Submitted(self._with_near(session, [Shown(document, newest, collection.name)])[0], job)

    def _has_content(self, session: Session, document: Document, version: DocumentVersion, checked: Checked) -> bool:
        live = session.get(DocumentVersion, document.live_version_id or "")
        if live is None or live.chunking != version.chunking:
            return False
        return checked.url is None and live.content_blob.endswith(hashlib.sha256(checked.content).hexdigest())

    def _record(self, session: Session, given: Given) -> Submitted:
        collection, version = given.collection, given.version
        document = by_external_id(session, collection.id, given.external_id, lock=True)
        if document is not None and not self._visible(session, document):
            raise Forbidden(_HIDDEN, field="external_id")
        given.expected.require(document)
        if document is None:
            document = Document(
                id=new_id("doc"),
                tenant_id=self._context.tenant_id,
                collection_id=collection.id,
                external_id=given.external_id,
                created_at=self._parts.clock(),
            )
        elif already := self._already(session, document, version, collection):
            self._parts.blobs.delete_owned(version.id)  # somebody sent the same a moment earlier
            return already
        learn_attributes(session, collection, version.attributes)
        document.last_number += 1
        session.add(document)
        session.flush()
        version.document_id, version.number = document.id, document.last_number
        session.add(version)
        clock, queue, key = self._parts.clock, self._parts.queue, self._context.principal.key_id
        rank, after = given.priority, given.after
        job = add_job(session, clock, queue, "ingest", document, version, priority=rank, after=after, key=key)
        follow(session, document, self._parts.limits.quotas)
        emit_document(session, clock, "queued", job, version=version.number, bytes=version.bytes)
        if version.url is None and not self._parts.blobs.path(version.content_blob).exists():
            raise Unavailable("The request was interrupted; send it again.", retry_after_s=1)  # taken for a dead process's
        return Submitted(Shown(document, version, collection.name), job)


def by_external_id(session: Session, collection_id: str, external_id: str, *, lock: bool = False) -> Document | None:
    statement = select(Document).where(
        col(Document.collection_id) == collection_id,
        col(Document.external_id) == external_id,
        col(Document.deleted_at).is_(None),
    )
    return session.scalars(statement.with_for_update() if lock else statement).first()
