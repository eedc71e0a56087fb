"""Near-duplicates within a collection: found by the sketch of a text before anything of it is embedded.

What is found is noted on the version. By the collection's policy a near-duplicate is kept as it is, linked (live without
chunks of its own, found through the other) or skipped (it never becomes live). Whoever is linked depends on the other's live
version: when that ends, the linked one is read again by itself (`release`).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session
from sqlmodel import col, select
from sqlmodel.sql.expression import SelectOfScalar

from config.clock import Clock
from ingestion.counting import follow
from ingestion.intake.catalogue import bump_generation
from ingestion.jobs.leases import Work
from ingestion.jobs.rows import JobQueue, add_job, emit_document, last_epoch
from rag.corpus import Collection, Document, DocumentVersion, Sketch, SketchBand
from rag.sketch import Signature, bands, from_bytes, similarity, to_bytes

LINKED, SKIPPED = "linked", "skipped"  # outcomes of jobs
MAX_SHARED = 500  # places of bands that are looked at: a text that thousands repeat is found all the same
MAX_CANDIDATES = 50  # signatures that are compared
_NO_SYNC = {"synchronize_session": False}
#: Made once: building a statement costs more than SQLite takes for it.
_SHARED = (
    select(col(SketchBand.version_id))
    .where(
        col(SketchBand.collection_id) == sa.bindparam("collection"),
        col(SketchBand.hash).in_(sa.bindparam("hashes", expanding=True)),
    )
    .order_by(col(SketchBand.hash), col(SketchBand.version_id))
    .limit(MAX_SHARED)
)
_CANDIDATES = (
    sa.select(
        col(Sketch.signature),
        col(DocumentVersion.id),
        col(DocumentVersion.document_id),
        col(DocumentVersion.labels),
        col(DocumentVersion.attributes),
    )
    .join(DocumentVersion, col(DocumentVersion.id) == col(Sketch.version_id))
    .join(Document, col(Document.live_version_id) == col(DocumentVersion.id))
    .where(
        col(Sketch.version_id).in_(sa.bindparam("versions", expanding=True)),
        col(DocumentVersion.document_id) != sa.bindparam("document"),
        col(Document.deleted_at).is_(None),
    )
)


@dataclass(frozen=True, slots=True)
class Original:
    """The live version that another text nearly repeats."""

    document_id: str
    version_id: str
    similarity: float
    same_labels: bool
    same_attributes: bool


def find(session: Session, version: DocumentVersion, collection: Collection, signature: Signature) -> Original | None:
    """The most similar one that is similar enough; rather one with the same labels, which has the same readers."""
    shared = {"collection": collection.id, "hashes": bands(signature)}
    often = Counter(session.scalars(_SHARED, shared))
    likely = sorted(often, key=lambda version_id: (-often[version_id], version_id))[:MAX_CANDIDATES]
    if not likely:
        return None
    found = []
    for row in session.execute(_CANDIDATES, {"versions": likely, "document": version.document_id}):
        alike = similarity(signature, from_bytes(row.signature))
        if alike >= collection.near_threshold:
            labels = sorted(row.labels) == sorted(version.labels)
            found.append(Original(row.document_id, row.id, alike, labels, row.attributes == version.attributes))
    return min(found, key=lambda one: (not one.same_labels, -one.similarity, one.document_id), default=None)


def outcome_of(policy: str, original: Original | None, document: Document) -> str | None:
    """What the policy makes of a near-duplicate; None: it is kept.

    Linked is only what the same readers and the same filters find; and what is live already is replaced, not skipped: its
    former content would stay.
    """
    if original is None or not original.same_labels:
        return None
    if policy == "link" and original.same_attributes:
        return LINKED
    return SKIPPED if policy == "skip" and document.live_version_id is None else None


def note(session: Session, clock: Clock, found: Work, original: Original, outcome: str | None) -> None:
    """On the version, and as an event."""
    version, job = found.version, found.job
    version.near_document_id, version.near_version_id = original.document_id, original.version_id
    version.near_similarity = round(original.similarity, 4)
    version.linked, job.outcome = outcome == LINKED, outcome
    session.add_all([version, job])
    more = {"near_document_id": original.document_id, "similarity": version.near_similarity, "outcome": outcome or "kept"}
    emit_document(session, clock, "near_duplicate", job, version=version.number, **more)


def keep_sketch(session: Session, version: DocumentVersion, collection_id: str, signature: Signature) -> None:
    if session.get(Sketch, version.id) is not None:  # of a reading whose job failed later
        return
    owned = {"tenant_id": version.tenant_id, "version_id": version.id}
    session.execute(sa.insert(Sketch), [{**owned, "signature": to_bytes(signature)}])
    rows = [{**owned, "band": band, "collection_id": collection_id, "hash": key} for band, key in enumerate(bands(signature))]
    session.execute(sa.insert(SketchBand), rows)


def forget_sketches(session: Session, versions: SelectOfScalar[str]) -> None:
    for table in (SketchBand, Sketch):
        session.execute(sa.delete(table).where(col(table.version_id).in_(versions)), execution_options=_NO_SYNC)


def stands(session: Session, found: Work) -> bool:
    """Whether the original of what is to be linked or skipped is still live; its row is held until the transaction ends.

    If it is not, the version is again as it was before it was read.
    """
    version, job = found.version, found.job
    if job.outcome is None or _is_live(session, version):
        return True
    _forget(version)
    job.outcome, job.stage = None, "reading"
    session.add_all([version, job])
    return False


def _is_live(session: Session, version: DocumentVersion) -> bool:
    original = session.get(Document, version.near_document_id, with_for_update={"read": True}, populate_existing=True)
    return original is not None and original.deleted_at is None and original.live_version_id == version.near_version_id


def note_late(session: Session, clock: Clock, found: Work) -> None:
    """Of two that are read at the same moment none finds the other: so the later one looks again when it becomes live.

    Those of a collection come here one after the other, since each holds its collection's row.
    """
    version = found.version
    if version.near_document_id is not None or (kept := session.get(Sketch, version.id)) is None:
        return
    collection = session.get_one(Collection, found.document.collection_id)
    if original := find(session, version, collection, from_bytes(kept.signature)):
        note(session, clock, found, original, None)


def dangling(document_id: str | None = None) -> SelectOfScalar[str]:
    """Versions that are linked to one that is live no more, of this document or of any."""
    live = sa.exists().where(
        col(Document.id) == col(DocumentVersion.near_document_id),
        col(Document.live_version_id) == col(DocumentVersion.near_version_id),
        col(Document.deleted_at).is_(None),
    )
    there = sa.exists().where(col(Document.live_version_id) == col(DocumentVersion.id))  # a deleted one needs nothing more
    statement = select(col(DocumentVersion.id)).where(
        col(DocumentVersion.linked).is_(True), col(DocumentVersion.state) == "live", there, ~live
    )
    return statement if document_id is None else statement.where(col(DocumentVersion.near_document_id) == document_id)


def release(session: Session, clock: Clock, queue: JobQueue, version_id: str) -> bool:
    """Let a version whose original is gone be read by itself; False if somebody did so already."""
    document_id = session.scalar(select(col(DocumentVersion.document_id)).where(col(DocumentVersion.id) == version_id))
    document = session.get(Document, document_id or "", with_for_update=True)
    still = session.scalars(dangling().where(col(DocumentVersion.id) == version_id)).first()
    if document is None or still is None or document.live_version_id != version_id:
        return False
    version = session.get_one(DocumentVersion, version_id, with_for_update=True)
    _forget(version)
    version.state = "queued"
    document.live_version_id, document.live_number = None, 0
    session.add_all([version, document])
    follow(session, document)
    bump_generation(session, document.collection_id)
    job = add_job(session, clock, queue, "ingest", document, version, epoch=last_epoch(session, version))
    emit_document(session, clock, "unlinked", job, version=version.number)
    return True


def _forget(version: DocumentVersion) -> None:
    version.near_document_id = version.near_version_id = version.near_similarity = None
    version.linked = False
