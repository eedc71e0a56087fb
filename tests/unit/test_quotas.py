"""What tenants have is counted exactly: on every way that a document comes and goes, and by 64 at once."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlmodel import col

from config.clock import system_clock
from config.database import Database
from config.errors import CarrelError, InvalidInput, NotInPlan, QuotaExceeded, TooLarge, Unavailable
from config.plans import Plan
from config.profiles import BUILT_IN
from ingestion.intake.bulk import BulkDocuments
from ingestion.intake.catalogue import DocumentLimits
from ingestion.intake.documents import TenantDocuments
from ingestion.intake.submission import Submission
from ingestion.jobs.jobs import Jobs, TenantJobs
from ingestion.placement import Placements
from ingestion.removal.collections import Removal
from ingestion.repair.quotas import check_quotas
from rag.collections import Collections
from rag.corpus import Collection, Document, DocumentVersion, VersionChunk
from rag.profiles import Profiles
from rag.store.memory import MemoryStore
from tenants.limits.plans import LimitsInForce, Plans
from tenants.limits.quotas import Counts, Quotas, close, used_of
from tenants.tables import LimitOverride, QuotaUse, Tenant
from tests.support import FakeScope
from tests.unit.conftest import SetClock
from tests.world import TENANTS, World, text_of

ASH, ELM = TENANTS
FREE = Plans({"enterprise": Plan()}, "enterprise")


class Limited(World):
    """A world whose tenants can be limited."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.quotas = Quotas(LimitsInForce(self.database, system_clock, FREE, fresh_ms=0))
        model = self.embedding.model
        collections = Collections(self.database, system_clock, model.fingerprint, Profiles(BUILT_IN, model), self.quotas)
        limits = DocumentLimits(10**6, self.documents.limits.urls, self.quotas)
        self.documents = replace(self.documents, collections=collections, limits=limits)
        self.pipeline._quotas = self.pipeline._fetching._quotas = self.quotas

    def limit(self, name: str, **limits: Any) -> None:
        with self.database.system_write() as session:
            for limit, value in limits.items():
                owner = self.contexts[name].tenant_id
                session.merge(LimitOverride(tenant_id=owner, name=limit, value=json.dumps(value), created_at=0))

    def used(self, name: str) -> Counts:
        with self.database.read(self.contexts[name]) as session:
            return used_of(session, self.contexts[name].tenant_id)

    def there(self, name: str) -> Counts:
        """Counted without the notes that the service keeps."""
        there = {document.id for document in self.all(name, Document) if document.deleted_at is None}
        versions = [
            version
            for version in self.all(name, DocumentVersion)
            if version.document_id in there and version.state in ("queued", "live")
        ]
        live = {version.id for version in versions if version.state == "live"}
        return Counts(
            documents=len({version.document_id for version in versions}),
            chunks=sum(place.version_id in live for place in self.all(name, VersionChunk)),
            bytes=sum(version.bytes for version in versions),
            collections=len(self.all(name, Collection)),
        )

    def jobs(self, name: str) -> TenantJobs:
        return Jobs(self.database, system_clock, self.queue, self.quotas).for_tenant(self.contexts[name])

    def newest_job(self, name: str, document_id: str) -> str:
        return max(job.id for job in self.jobs(name).list(limit=1000)[0] if job.document_id == document_id)


@pytest.fixture
def world(database: Database, tmp_path: Path) -> Iterator[Limited]:
    world = Limited(database, MemoryStore(), tmp_path, keep_failed_days=1)
    yield world
    world.close()


def test_every_way_that_a_document_comes_and_goes_is_counted(world: Limited) -> None:
    first = world.bring(ASH, "one", text_of(ASH, 1, 3))
    assert world.used(ASH) == world.there(ASH) == Counts(1, 0, len(text_of(ASH, 1, 3)), 1)
    world.run_jobs()
    assert world.used(ASH) == world.there(ASH)
    assert world.used(ASH).chunks > 0
    world.bring(ASH, "one", text_of(ASH, 2, 6))
    assert world.used(ASH).bytes == len(text_of(ASH, 1, 3)) + len(text_of(ASH, 2, 6))
    world.run_jobs()
    assert world.used(ASH) == world.there(ASH)
    assert world.used(ASH).bytes == len(text_of(ASH, 2, 6))
    world.bring(ELM, "one", "oak pine")
    second = world.bring(ASH, "two", text_of(ASH, 3, 1))
    world.jobs(ASH).cancel(world.newest_job(ASH, second))
    assert world.used(ASH) == world.there(ASH)
    assert world.used(ASH).documents == 1
    world.run_jobs()
    world.of(ASH).delete(first)
    assert world.used(ASH) == world.there(ASH) == Counts(collections=1)
    world.run_jobs()
    assert world.used(ASH) == world.there(ASH)
    assert world.used(ELM) == world.there(ELM) == Counts(1, 1, 8, 1)


def test_a_failed_job_gives_back_what_its_retry_takes_again(world: Limited) -> None:
    world.limit(ASH, documents=1, chunks=0)
    failed = world.bring(ASH, "bad", "oak pine!")
    assert world.used(ASH) == world.there(ASH) == Counts(1, 0, 9, 1)
    world.run_jobs()
    job = world.jobs(ASH).get(world.newest_job(ASH, failed))
    assert (job.state, job.stage) == ("failed", "done")
    assert world.used(ASH) == world.there(ASH) == Counts(collections=1)
    other = world.bring(ASH, "good", "oak pine")
    with pytest.raises(QuotaExceeded):
        world.jobs(ASH).retry(job.id)
    assert world.used(ASH) == world.there(ASH) == Counts(1, 0, 8, 1)
    world.of(ASH).delete(other)
    world.jobs(ASH).retry(job.id)
    assert world.used(ASH) == world.there(ASH) == Counts(1, 0, 9, 1)


def test_a_refusal_names_what_and_how_much_and_leaves_nothing(world: Limited) -> None:
    world.limit(ASH, bytes=10, documents=1)
    with pytest.raises(QuotaExceeded) as refused:
        world.bring(ASH, "long", "x" * 11)
    assert (refused.value.field, refused.value.limit, refused.value.status) == ("bytes", 10, 403)
    world.bring(ASH, "short", "x" * 4)
    with pytest.raises(QuotaExceeded) as refused:
        world.bring(ASH, "other", "x" * 4)
    assert (refused.value.field, refused.value.limit) == ("documents", 1)
    world.bring(ASH, "short", "x" * 5)  # a version of what is there is no further document
    world.bring(ELM, "long", "x" * 11)
    assert world.used(ASH) == world.there(ASH) == Counts(1, 0, 9, 1)
    assert len(world.files()) == 3


def test_a_document_is_no_larger_than_the_plan_says(world: Limited) -> None:
    world.limit(ASH, document_bytes=10)
    with pytest.raises(TooLarge) as refused:
        world.bring(ASH, "long", "x" * 11)
    assert refused.value.limit == 10
    world.bring(ELM, "long", "x" * 11)


def test_chunks_are_refused_before_anything_is_embedded_and_the_document_is_given_back(world: Limited) -> None:
    world.bring(ASH, "small", "oak pine")
    world.run_jobs()
    world.limit(ASH, chunks=2)
    before = world.rows(ASH)["LedgerEntry"]
    large = world.bring(ASH, "large", text_of(ASH, 1, 60))
    world.run_jobs()
    job = world.jobs(ASH).get(world.newest_job(ASH, large))
    assert (job.state, job.error_code) == ("failed", "quota_exceeded")
    assert world.rows(ASH)["LedgerEntry"] == before
    assert world.used(ASH) == world.there(ASH) == Counts(1, 1, 8, 1)


def test_chunks_are_counted_exactly_at_the_switch(world: Limited, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the look before embedding said: another document may have become live since."""
    world.limit(ASH, chunks=1)
    world.bring(ASH, "one", "oak pine")
    world.run_jobs()
    monkeypatch.setattr(Quotas, "require_room", lambda *_: None)
    second = world.bring(ASH, "two", "oak pine")
    world.run_jobs()
    assert world.jobs(ASH).get(world.newest_job(ASH, second)).error_code == "quota_exceeded"
    assert world.used(ASH) == world.there(ASH) == Counts(1, 1, 8, 1)


def test_of_64_uploads_at_the_limit_less_one_exactly_one_is_accepted(world: Limited) -> None:
    world.bring(ASH, "first", "oak pine")
    world.bring(ELM, "first", "oak pine")
    world.limit(ASH, documents=2)
    handle = world.of(ASH)
    with ThreadPoolExecutor(16) as pool:
        outcomes = [*pool.map(lambda number: _outcome(handle, number), range(64))]
    assert sorted(map(str, outcomes)) == sorted(["accepted"] + ["quota_exceeded"] * 63)
    assert world.used(ASH) == world.there(ASH)
    assert world.used(ASH).documents == 2
    assert len(world.files()) == 3
    assert world.used(ELM).documents == 1


def _outcome(handle: TenantDocuments, number: int) -> str:
    try:
        handle.submit(Submission(b"oak pine", external_id=f"x{number}", media_type="text/plain"))
    except CarrelError as error:
        return error.code
    return "accepted"


def test_of_a_bulk_what_has_room_is_taken_and_a_declared_size_is_refused_as_a_whole(world: Limited) -> None:
    world.limit(ASH, documents=3)
    parts = world.documents
    bulk = BulkDocuments(
        parts.database, parts.clock, parts.collections, parts.blobs, parts.queue, parts.ledger, parts.limits
    ).for_tenant(world.contexts[ASH])
    bulk.require_room_for(3, 10**9)
    with pytest.raises(QuotaExceeded):
        bulk.require_room_for(4, 0)
    items = [Submission(b"oak pine", external_id=f"x{number}", media_type="text/plain") for number in range(5)]
    outcomes = bulk.take(items, most_refused=10, record=lambda *_: None)
    assert [isinstance(outcome, QuotaExceeded) for outcome in outcomes] == [False] * 3 + [True] * 2
    assert world.used(ASH) == world.there(ASH) == Counts(3, 0, 24, 1)


def test_collections_are_counted_and_are_as_the_plan_allows(world: Limited) -> None:
    handle = world.documents.collections.for_tenant(world.contexts[ASH])
    world.limit(ASH, collections=1, profiles=["standard"], retention_days=7, dedicated=False)
    for wrong in ({"profile": "precise"}, {"keep_versions_days": 8}):
        with pytest.raises(NotInPlan):
            handle.create("papers", **wrong)  # type: ignore[arg-type]
    handle.create("papers", keep_versions_days=7)
    for wrong in ({"profile": "precise"}, {"keep_versions_days": 8}):
        with pytest.raises(NotInPlan):
            handle.update("papers", **wrong)  # type: ignore[arg-type]
    placements = Placements(world.database, world.documents.collections, world.store, world.embedding.space, world.quotas)
    with pytest.raises(NotInPlan):
        placements.choose(world.contexts[ASH], "papers", "dedicated")
    with pytest.raises(QuotaExceeded) as refused:
        handle.create("others")
    assert refused.value.field == "collections"
    assert world.used(ASH) == world.there(ASH) == Counts(collections=1)
    Removal(world.database, world.documents.collections).remove(world.contexts[ASH], "papers")
    assert world.used(ASH) == Counts()
    handle.create("others")


@pytest.mark.parametrize("sql_url", ["postgresql"], indirect=True)  # on SQLite nobody else writes in between
def test_what_finds_room_given_back_at_the_last_moment_is_not_taken_for_a_stranger(
    database: Database, clock: SetClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits, scope = LimitsInForce(database, clock, Plans({"enterprise": Plan(documents=1)}, "enterprise")), FakeScope("a")
    quotas = Quotas(limits)

    def add(documents: int) -> None:
        with database.write(scope) as session:
            quotas.add(session, "a", Counts(documents=documents))

    add(1)

    def given_back_before(*given: Any, **held: Any) -> Counts:
        monkeypatch.undo()
        add(-1)
        return used_of(*given, **held)

    monkeypatch.setattr("tenants.limits.quotas.used_of", given_back_before)
    add(1)
    with pytest.raises(QuotaExceeded):
        add(1)
    with database.read(scope) as session:
        assert used_of(session, "a") == Counts(documents=1)
        assert used_of(session, "b") == Counts()


def test_nothing_is_added_to_a_tenant_that_is_being_deleted(world: Limited) -> None:
    one = world.bring(ASH, "one", "oak pine")
    with world.database.system_write() as session:
        close(session, world.contexts[ASH].tenant_id)
    with pytest.raises(CarrelError) as refused:
        world.bring(ASH, "two", "oak pine")
    assert refused.value.status == 401
    world.of(ASH).delete(one)
    assert world.used(ASH) == Counts(collections=1)
    with world.database.system_write() as session:
        for table, key in ((QuotaUse, QuotaUse.tenant_id), (Tenant, Tenant.id)):
            session.execute(sa.delete(table).where(col(key) == world.contexts[ASH].tenant_id))
    with pytest.raises(CarrelError):
        world.bring(ASH, "three", "oak pine")


def test_counts_that_drifted_are_found_and_mended(world: Limited) -> None:
    world.fill()
    parts, context = world.parts(world.store), world.contexts[ASH]
    assert [*check_quotas(parts, context, repair=False)] == []
    right = world.used(ASH)
    world.change(ASH, sa.update(QuotaUse).values(documents=77, collections=5))
    world.change(ASH, sa.update(Document).where(col(Document.external_id) == "one").values(counted_chunks=1))
    assert len([*check_quotas(parts, context, repair=False)]) == 2
    assert len([*check_quotas(parts, context, repair=True)]) == 2
    assert [*check_quotas(parts, context, repair=False)] == []
    assert world.used(ASH) == right == world.there(ASH)
    world.change(ASH, sa.delete(QuotaUse))
    assert len([*check_quotas(parts, context, repair=True)]) == 1
    assert world.used(ASH) == right
    assert world.used(ELM) == world.there(ELM)


def _anything(world: Limited, dice: random.Random) -> None:
    """One random thing that a tenant does, or a worker for it."""
    name, key = dice.choice(TENANTS), f"d{dice.randrange(6)}"
    documents = [document for document in world.all(name, Document) if document.deleted_at is None]
    verb = dice.choice(["bring", "bring", "delete", "cancel", "retry", "work", "link"])
    try:
        if verb == "bring":
            world.bring(name, key, text_of(name, dice.randrange(4), 1 + dice.randrange(3)))
        elif verb == "delete" and documents:
            world.of(name).delete(dice.choice(documents).id)
        elif verb in ("cancel", "retry") and documents:
            job = world.newest_job(name, dice.choice(documents).id)
            getattr(world.jobs(name), verb)(job)
        elif verb == "link":
            policy = dice.choice(["keep", "link", "skip"])
            world.documents.collections.for_tenant(world.contexts[name]).update("default", near_duplicates=policy)
        elif verb == "work":
            world.run_jobs()
    except (InvalidInput, QuotaExceeded, Unavailable):
        pass


@pytest.mark.parametrize("steps", [60, pytest.param(10_000, marks=pytest.mark.full)])
def test_after_random_lives_the_counts_are_what_is_there(world: Limited, steps: int) -> None:
    dice = random.Random(2026)
    for name in TENANTS:
        world.documents.collections.for_tenant(world.contexts[name]).ensure_default()
        world.limit(name, documents=5, bytes=6_000)
    for step in range(steps):
        _anything(world, dice)
        if step % 7 == 0 or step == steps - 1:  # what one operation leaves wrong, a later one may put right
            assert all(world.used(name) == world.there(name) for name in TENANTS), step
    world.run_jobs()
    for name in TENANTS:
        assert world.used(name) == world.there(name)
        assert [*check_quotas(world.parts(world.store), world.contexts[name], repair=False)] == []
