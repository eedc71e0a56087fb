"""The first step of a job whose document was brought by URL: the content is fetched, and stored as if it had been uploaded."""

from __future__ import annotations

from sqlalchemy.orm import Session
from sqlmodel import col, select

from config.clock import Clock
from config.database import Database
from config.errors import FetchFailed, QuotaExceeded, TooLarge
from ingestion.blobs import BlobStore
from ingestion.counting import follow
from ingestion.fetch.fetcher import Fetched, Fetcher
from ingestion.intake.submission import digest_of
from ingestion.jobs.leases import DocumentGone, JobCancelled, Lease, Work, work
from rag.corpus import DocumentVersion
from tenants.limits.quotas import Quotas


class Fetching:
    """Without a fetcher, jobs that need one fail."""

    def __init__(self, database: Database, clock: Clock, blobs: BlobStore, fetcher: Fetcher | None, quotas: Quotas) -> None:
        self._database, self._clock, self._blobs, self._fetcher, self._quotas = database, clock, blobs, fetcher, quotas

    def fetch(self, lease: Lease) -> None:
        """Run again after a kill, it fetches again, unless the content was stored.

        A version whose content is live already ends here, as superseded; the steps that follow then find nothing to do.
        """
        version = self._begin(lease)
        if version is None or version.url is None:
            return
        if self._fetcher is None:
            raise FetchFailed("This service does not fetch URLs any more.")
        fetched = self._fetcher.fetch(version.url)
        most = self._quotas.of(lease.context.tenant_id).document_bytes
        if most is not None and len(fetched.content) > most:
            raise TooLarge(f"A document has at most {most} bytes.", field="url", limit=most)
        blob = self._blobs.put(version.id, fetched.content)
        try:
            self._keep(lease, fetched, blob)
        except (DocumentGone, JobCancelled, QuotaExceeded):  # seen by the job's owner, who alone stores for this version
            self._blobs.delete_owned(version.id)
            raise

    def _begin(self, lease: Lease) -> DocumentVersion | None:
        with self._database.write(lease.context) as session:
            found = work(session, lease)
            version = found.version
            stored = version.content_blob != "" and self._blobs.path(version.content_blob).exists()
            if version.state != "queued" or stored:
                return None
            found.job.stage, found.job.updated_at = "fetching", self._clock()
            session.add(found.job)
            return version

    def _keep(self, lease: Lease, fetched: Fetched, blob: str) -> None:
        with self._database.write(lease.context) as session:
            found = work(session, lease)
            version = found.version
            version.content_blob, version.bytes = blob, len(fetched.content)
            version.media_type, version.source = fetched.media_type, version.source or fetched.url
            version.digest = digest_of(
                fetched.content, version.media_type, version.title, version.source, version.attributes, version.labels
            )
            if _is_live(session, found):
                version.state = "superseded"
            found.job.stage, found.job.updated_at = "reading", self._clock()  # from here on starts are counted again
            session.add_all([version, found.job])
            follow(session, found.document, self._quotas)


def _is_live(session: Session, found: Work) -> bool:
    """Whether the live version is the same, and nothing that waits will replace it before this one would."""
    live = session.get(DocumentVersion, found.document.live_version_id or "")
    if live is None or (live.digest, live.chunking) != (found.version.digest, found.version.chunking):
        return False
    earlier = select(col(DocumentVersion.id)).where(
        col(DocumentVersion.document_id) == found.document.id,
        col(DocumentVersion.state) == "queued",
        col(DocumentVersion.number) < found.version.number,
    )
    return session.scalars(earlier).first() is None
