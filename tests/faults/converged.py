"""What must be true of a service that has come to rest, whatever died on the way: asked of SQL, the engine and the disk."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.orm import Session
from sqlmodel import col, select

from config.clock import system_clock
from config.database import Database
from config.settings import Settings
from ingestion.jobs.tables import Job, JobDependency
from ingestion.repair.terms import recount
from rag.corpus import (
    Chunk,
    Collection,
    Document,
    DocumentVersion,
    FormerText,
    Sketch,
    SketchBand,
    SpaceRow,
    VersionChunk,
)
from rag.lexical.counting import read_counts_of
from rag.lexical.statistics import total
from rag.store.base import Space
from rag.store.remote import EngineClient
from tenants.context import TenantContext
from tenants.limits.quotas import Counts, used_of
from tenants.registry import TenantRegistry
from tenants.tables import BudgetWindow, Event, LedgerEntry
from tests.support import wait_for

CONVERGED_S = 30.0
UNFINISHED = ("ENQUEUED", "PENDING", "DELAYED")


@dataclass(frozen=True)
class Truth:
    """What a tenant was told: its documents by external id, and how often each was brought since it was last deleted."""

    tenant: str
    live: Mapping[str, str | None]  #: the text of its newest version that was not cancelled, None where there is none
    versions: Mapping[str, int]


@dataclass
class Inside:
    """A service's data, seen from beneath."""

    folder: Path
    database: Database
    engine: EngineClient

    def context(self, tenant: str) -> TenantContext:
        registry = TenantRegistry(self.database, system_clock)
        return registry.context_of_job(registry.get(tenant).id, "check")

    def unfinished(self) -> int:
        """Jobs that have not ended, by their rows and by the queue."""
        with self.database.system_read() as session:
            rows = session.scalar(select(sa.func.count()).select_from(Job).where(col(Job.stage) != "done")) or 0
            queue = sa.table("workflow_status", sa.column("status"))
            waiting = sa.select(sa.func.count()).select_from(queue).where(queue.c.status.in_(UNFINISHED))
            return rows + int(session.connection().scalar(waiting) or 0)

    def owners(self) -> Counter[str]:
        """How many jobs each executor has under way."""
        queue = sa.table("workflow_status", sa.column("status"), sa.column("executor_id"))
        with self.database.system_read() as session:
            return Counter(session.connection().scalars(sa.select(queue.c.executor_id).where(queue.c.status == "PENDING")))

    def points(self, tenant: str) -> list[str]:
        context = self.context(tenant)
        with self.database.read(context) as session:
            space = session.scalars(select(SpaceRow)).one()
        return self.engine.for_tenant(context, Space(space.id, space.dimensions)).ids()

    def charged(self, tenant: str) -> int:
        with self.database.read(self.context(tenant)) as session:
            return sum(session.scalars(select(col(LedgerEntry.tokens))))

    def check(self, truths: list[Truth]) -> None:
        """Raise AssertionError at the first thing that is not so."""
        assert self.unfinished() == 0
        named: set[str] = set()
        for truth in truths:
            with self.database.read(self.context(truth.tenant)) as session:
                named |= self._check_documents(session, truth)
                _check_sums(session)
                _check_counts(session)
                _check_remains(session)
                chunks = _check_chunks(session)
            assert self.points(truth.tenant) == chunks
        assert {path.name for path in (self.folder / "blobs").glob("??/*")} == named
        for truth in truths:
            with self.database.read(self.context(truth.tenant)) as session:
                _check_events(session)

    def _check_documents(self, session: Session, truth: Truth) -> set[str]:
        """Return the stored contents that its versions name."""
        documents = {document.external_id: document for document in session.scalars(select(Document))}
        versions = session.scalars(select(DocumentVersion)).all()
        live = {version.document_id: version for version in versions if version.state == "live"}
        assert len(live) == sum(version.state == "live" for version in versions)
        assert {version.state for version in versions} <= {"live", "superseded", "cancelled"}
        assert {name: document.last_number for name, document in documents.items()} == truth.versions
        for name, text in truth.live.items():
            document = documents[name]
            version = live.get(document.id)
            assert document.live_version_id == (version.id if version else None), name
            shown = self._text(version) if version else None
            assert shown == text, (name, [(one.number, one.state) for one in versions if one.document_id == document.id])
        kept = [blob for version in versions for blob in (version.content_blob, version.text_blob) if blob]
        return set(kept)

    def _text(self, version: DocumentVersion) -> str:
        name = version.text_blob or ""
        return (self.folder / "blobs" / name[:2] / name).read_text()


def _check_chunks(session: Session) -> list[str]:
    """Rows of chunks are those that live versions have; return their ids."""
    chunks = session.scalars(select(Chunk)).all()
    assert all(chunk.indexed for chunk in chunks)
    ids = sorted(chunk.id for chunk in chunks)
    places = session.scalars(select(VersionChunk)).all()
    live = set(session.scalars(select(col(DocumentVersion.id)).where(col(DocumentVersion.state) == "live")))
    assert {place.version_id for place in places} == live
    assert sorted({place.chunk_id for place in places}) == ids
    for collection in session.scalars(select(col(Collection.id))):
        assert total([*read_counts_of(session, collection).values()]) == recount(session, collection)
    return ids


def _check_remains(session: Session) -> None:
    """What is kept beside documents belongs to one that is there, and no job waits for another that has ended."""
    documents, live = set(session.scalars(select(col(Document.id)))), col(DocumentVersion.state) == "live"
    assert set(session.scalars(select(col(FormerText.document_id)))) <= documents, "texts of deleted documents are still named"
    sketched = set(session.scalars(select(col(Sketch.version_id))))
    assert sketched <= set(session.scalars(select(col(DocumentVersion.id)).where(live))), "sketches of what is not live"
    assert set(session.scalars(select(col(SketchBand.version_id)))) == sketched
    assert session.scalars(select(JobDependency)).all() == []
    assert session.scalars(select(col(Job.id)).where(col(Job.held).is_(True))).all() == []


def _check_sums(session: Session) -> None:
    entries = session.scalars(select(LedgerEntry)).all()
    for window in session.scalars(select(BudgetWindow)):
        here = [entry for entry in entries if entry.day.startswith(window.period)]
        assert window.held == sum(entry.tokens for entry in here if entry.state in ("held", "started")) == 0
        assert window.used == sum(entry.tokens for entry in here if entry.state in ("settled", "unsettled"))
        assert (window.cost, window.held_cost) == (sum(entry.cost for entry in here), 0)


def _check_counts(session: Session) -> None:
    """What the tenant is counted to have is what it has."""
    versions = session.scalars(select(DocumentVersion).where(col(DocumentVersion.state).in_(("queued", "live")))).all()
    chunks = len(session.scalars(select(col(VersionChunk.chunk_id))).all())  # live versions only have places by now
    collections = len(session.scalars(select(col(Collection.id))).all())
    there = Counts(len({one.document_id for one in versions}), chunks, sum(one.bytes for one in versions), collections)
    tenant_id: str = session.info["tenant_id"]
    assert used_of(session, tenant_id) == there


def _check_events(session: Session) -> None:
    """Every version that became live said so once."""
    became = select(col(DocumentVersion.id)).where(col(DocumentVersion.state).in_(("live", "superseded")))
    told = Counter(
        event.data["version_id"] for event in session.scalars(select(Event).where(col(Event.type) == "document.live"))
    )
    live = session.scalars(select(col(DocumentVersion.id)).where(col(DocumentVersion.state) == "live")).all()
    known = set(session.scalars(became))
    assert {told[version] for version in live} <= {1}, "live versions without their event, or with two"
    assert all(count == 1 for version, count in told.items() if version in known)


@contextmanager
def inside(folder: Path) -> Iterator[Inside]:
    database = Database(f"sqlite:///{folder / 'carrel.db'}")
    engine = EngineClient(Settings(data_dir=folder).engine_socket, patience_s=10, timeout_s=10)
    try:
        yield Inside(folder, database, engine)
    finally:
        engine.close()
        database.close()


def converges(folder: Path, truths: list[Truth]) -> None:
    """All of it holds CONVERGED_S after the remaining work has ended."""
    with inside(folder) as found:
        wait_for(lambda: found.unfinished() == 0, what="the remaining work", timeout_s=120)
        deadline = time.monotonic() + CONVERGED_S
        while True:
            try:
                return found.check(truths)
            except AssertionError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.25)
