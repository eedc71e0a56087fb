"""Damage made by hand is found, told, mended, and nothing else is touched."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
from sqlmodel import col, select

from config.database import Database
from config.errors import Unavailable
from ingestion.blobs import BlobStore
from ingestion.jobs.tables import Instance, Job
from ingestion.repair.report import ADVICE, KINDS, Finding, Report
from rag.corpus import Chunk, Collection, Document, DocumentVersion, SpaceRow, VersionChunk
from rag.store.base import Point, VectorScope
from rag.store.memory import MemoryStore
from tenants.tables import BudgetWindow, UsageDay
from tests.world import DAMAGES, LONG_AGO_S, World, old_blob, text_of

POSTGRESQL_DAILY = False


@pytest.fixture
def world(database: Database, tmp_path: Path) -> Iterator[World]:
    world = World(database, MemoryStore(), tmp_path)
    world.fill()
    yield world
    world.close()


def test_a_sound_service_is_left_alone(world: World) -> None:
    before = [world.snapshot(name) for name in world.contexts]
    for quick in (True, False):
        report = world.reconciler.check(repair=True, quick=quick)
        assert report.findings == []
        assert report.whole
        assert report.tokens == 0
    assert [world.snapshot(name) for name in world.contexts] == before
    world.check_invariants()


def test_a_repair_charges_nobody_and_counts_what_it_embedded(world: World) -> None:
    world.vectors("ash").delete_points(world.vectors("ash").ids())
    money = [world.all(name, table) for name in world.contexts for table in (BudgetWindow, UsageDay)]
    report = world.reconciler.check(repair=True)
    once = {(chunk.context, chunk.text): chunk.tokens for chunk in world.all("ash", Chunk)}
    assert report.tokens == sum(once.values()) > 0
    assert [world.all(name, table) for name in world.contexts for table in (BudgetWindow, UsageDay)] == money


def test_restored_points_have_the_filter_fields_of_the_lost_ones(database: Database, tmp_path: Path) -> None:
    store = MemoryStore()
    world = World(database, store, tmp_path)
    world.fill()
    [points] = store._spaces.values()
    before = dict(points)
    points.clear()
    assert world.reconciler.engine_lost_points()
    world.reconciler.run_once()
    assert not world.reconciler.engine_lost_points()
    assert points.keys() == before.keys()
    for point_id, (tenant, point) in points.items():
        owner, lost = before[point_id]
        assert tenant == owner
        assert (point.collection, point.document, point.labels) == (lost.collection, lost.document, lost.labels)
        assert (point.terms, point.numbers) == (lost.terms, lost.numbers)
        assert np.array_equal(point.dense, lost.dense)
    assert any(point.numbers and point.labels for _, point in points.values())
    world.close()


def test_a_version_that_waits_without_a_job_gets_one(world: World) -> None:
    world.bring("ash", "three", text_of("ash", 9, 2))
    world.queue.waiting.clear()
    world.change("ash", sa.delete(Job).where(col(Job.state) == "queued"))
    assert _kinds(world, repair=False) == {"version_without_job"}
    assert not world.queue.waiting
    assert _kinds(world, repair=True) == {"version_without_job"}
    assert _kinds(world, repair=True) == set()
    world.run_jobs()
    assert any(row[0] == "three" for row in world.answer("ash"))
    world.check_invariants()


def test_a_deleted_document_without_a_job_gets_one(world: World) -> None:
    document_id = world.of("ash").list(collection=None, after=None, limit=10)[0][0].document.id
    world.of("ash").delete(document_id)
    world.queue.waiting.clear()
    world.change("ash", sa.update(Job).where(col(Job.kind) == "delete").values(state="failed"))
    assert _kinds(world, repair=False) == {"deletion_without_job"}
    assert _kinds(world, repair=True) == {"deletion_without_job"}
    assert _kinds(world, repair=True) == set()
    world.run_jobs()
    assert document_id not in {document.id for document in world.all("ash", Document)}
    world.check_invariants()


@pytest.mark.parametrize("state", ["queued", "running"])
def test_a_job_that_the_queue_lost_is_enqueued_again(world: World, state: str) -> None:
    world.bring("ash", "three", text_of("ash", 9, 2))
    world.bring("elm", "three", text_of("elm", 9, 2))
    waiting = [*world.queue.waiting]
    world.change("ash", sa.update(Job).where(col(Job.state) == "queued").values(state=state))
    world.queue.waiting.popleft()
    assert _kinds(world, repair=False) == {"job_without_workflow"}
    assert _kinds(world, repair=True) == {"job_without_workflow"}
    assert _kinds(world, repair=True) == set()
    assert sorted(world.queue.waiting) == sorted(waiting)
    world.run_jobs()
    assert {job.state for job in world.all("ash", Job)} == {"succeeded"}
    world.check_invariants()


@pytest.mark.parametrize("version", ["failed", "cancelled", "live"])
def test_a_job_that_the_queue_lost_while_it_collects_comes_to_its_end(world: World, version: str) -> None:
    world.bring("ash", "three", text_of("ash", 9, 2))
    if version == "live":
        world.run_jobs()
    world.queue.waiting.clear()
    [mine] = [job for job in world.all("ash", Job) if job.id == max(job.id for job in world.all("ash", Job))]
    result = {"state": "succeeded" if version == "live" else version, "stage": "collecting", "finished_at": None}
    world.change("ash", sa.update(Job).where(col(Job.id) == mine.id).values(result))
    world.change("ash", sa.update(DocumentVersion).where(col(DocumentVersion.id) == mine.version_id).values(state=version))
    assert _kinds(world, repair=False) >= {"job_without_workflow"}
    assert _kinds(world, repair=True) >= {"job_without_workflow"}
    world.run_jobs()
    assert _kinds(world, repair=True) == set()
    [ended] = [job for job in world.all("ash", Job) if job.id == mine.id]
    assert (ended.state, ended.stage, ended.finished_at is None) == (result["state"], "done", False)
    world.check_invariants()


def test_a_job_whose_version_is_live_already_ends_as_succeeded(world: World) -> None:
    world.change("ash", sa.update(Job).values(state="running"))
    assert _kinds(world, repair=True) == {"job_without_workflow"}
    world.run_jobs()
    assert {job.state for job in world.all("ash", Job)} == {"succeeded"}
    world.check_invariants()


def test_a_running_job_whose_version_failed_ends_with_it_and_its_remains_go(world: World) -> None:
    world.bring("ash", "three", text_of("ash", 9, 2))
    world.queue.waiting.clear()
    world.change("ash", sa.update(DocumentVersion).where(col(DocumentVersion.state) == "queued").values(state="failed"))
    assert _kinds(world, repair=False) == {"job_unlike_version", "quota_use"}
    assert _kinds(world, repair=True) == {"job_unlike_version", "quota_use", "remains"}
    assert _kinds(world, repair=True) == set()
    [job] = [job for job in world.all("ash", Job) if job.state != "succeeded"]
    assert (job.state, job.stage, job.error_code) == ("failed", "done", "internal_error")
    assert job.finished_at is not None


def test_jobs_in_the_queue_are_left_to_it(world: World) -> None:
    """Also one that recorded its result and is still collecting."""
    world.bring("ash", "one", text_of("ash", 5, 2))
    [(_, job_id)] = world.queue.waiting
    assert world.reconciler.check(repair=True).findings == []
    [remains] = [version for version in world.all("ash", DocumentVersion) if version.state == "superseded"]
    blob = world.blobs.put(remains.id, b"about to be collected")
    changed = sa.update(DocumentVersion).where(col(DocumentVersion.id) == remains.id).values(content_blob=blob)
    world.change("ash", changed, sa.update(Job).where(col(Job.id) == job_id).values(state="succeeded"))
    assert "remains" not in _kinds(world, repair=False)
    world.queue.waiting.clear()
    assert "remains" in _kinds(world, repair=False)


def test_a_chunk_that_no_version_places_goes_with_its_point(world: World) -> None:
    [placed, *_] = world.all("ash", VersionChunk)
    world.change("ash", sa.delete(VersionChunk).where(col(VersionChunk.chunk_id) == placed.chunk_id))
    assert _kinds(world, repair=True) == {"quota_use", "remains", "term_counts"}
    assert placed.chunk_id not in world.vectors("ash").ids()
    world.check_invariants()


def test_points_of_a_tenant_that_is_gone_are_deleted(world: World) -> None:
    gone = world.store.for_tenant(VectorScope("ten_gone"), world.embedding.space)
    vector = np.ones(world.embedding.space.dimensions, np.float32)
    gone.upsert([Point(f"00000000-0000-4000-8000-{number:012}", "col", "doc", vector) for number in range(1200)])
    before = [world.snapshot(name) for name in world.contexts]
    for repair in (False, True):
        [finding] = world.reconciler.check(repair=repair).findings
        assert finding == Finding("points_of_unknown_tenant", "ten_gone", repair, 1200)
    assert gone.count() == 0
    assert world.reconciler.check(repair=True).findings == []
    assert [world.snapshot(name) for name in world.contexts] == before


def test_chunks_of_another_model_are_told_and_not_touched(world: World) -> None:
    with world.database.system_write() as session:
        session.add(SpaceRow(id="sp_old", dimensions=3, description={}, created_at=0))
    world.vectors("ash").delete_points(world.vectors("ash").ids())
    world.change("ash", sa.update(Collection).values(space_id="sp_old"))
    [finding] = world.reconciler.check(repair=True).findings
    assert (finding.kind, finding.tenant_id, finding.repaired) == (
        "chunk_of_other_space",
        world.contexts["ash"].tenant_id,
        False,
    )
    assert finding.count == len(world.all("ash", Chunk))
    assert finding.advice == ADVICE["chunk_of_other_space"]
    assert world.vectors("ash").ids() == []


def test_a_missing_content_is_told_with_what_to_do(world: World) -> None:
    [first, *_] = [version for version in world.all("ash", DocumentVersion) if version.state == "live"]
    world.blobs.delete(first.text_blob)
    for repair in (False, True):
        report = world.reconciler.check(repair=repair)
        [finding] = report.findings
        assert (finding.kind, finding.subject, finding.repaired) == ("version_without_blob", first.document_id, False)
        assert finding.advice == ADVICE["version_without_blob"]
        assert not report.whole


def test_contents_that_a_living_process_may_still_name_are_kept(world: World) -> None:
    world.instances.register("worker")
    api = world.instances.register("api")
    written = world.blobs.put("ver_new", b"a submission between its file and its row")
    assert world.reconciler.check(repair=True).findings == []
    started = _started(world, api)
    os.utime(world.blobs.path(written), (started - 0.5, started - 0.5))
    assert world.reconciler.check(repair=True).findings == []
    os.utime(world.blobs.path(written), (started - 2, started - 2))
    assert _kinds(world, repair=True) == {"blob_without_version"}
    assert written not in world.files()


def test_a_content_that_was_taken_for_remains_is_not_acknowledged(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    put = BlobStore.put

    def and_suspended(store: BlobStore, owner: str, content: bytes) -> str:
        name = put(store, owner, content)
        os.utime(store.path(name), (LONG_AGO_S, LONG_AGO_S))
        world.reconciler.check(repair=True)
        return name

    before = world.rows("ash"), world.rows("elm")
    with monkeypatch.context() as suspended:
        suspended.setattr(BlobStore, "put", and_suspended)
        with pytest.raises(Unavailable):
            world.bring("ash", "late", "Brought by a process that was taken for dead.")
    assert (world.rows("ash"), world.rows("elm")) == before


def _started(world: World, instance_id: str) -> float:
    with world.database.system_read() as session:
        return session.scalars(select(Instance).where(col(Instance.id) == instance_id)).one().started_at / 1000


def test_the_text_of_a_waiting_version_is_kept_for_the_step_that_is_run_again(world: World) -> None:
    world.bring("ash", "three", "Not read yet.")
    [waiting] = [version for version in world.all("ash", DocumentVersion) if version.state == "queued"]
    text = old_blob(world, waiting.id, b"Not read yet.\n")
    assert world.reconciler.check(repair=True).findings == []
    assert text in world.files()


@pytest.mark.parametrize("collected", [True, False])
def test_a_document_deleted_while_its_chunks_are_restored_does_not_come_back(world: World, collected: bool) -> None:
    """The engine forgot everything, and the deletion comes between embedding and writing. A point written then, between the
    collector's deletion of points and of rows, would stay."""
    world.vectors("ash").delete_points(world.vectors("ash").ids())
    embed, space = world.embedding.embed_batch, world.embedding.space

    def embed_and_delete(*args: object, **options: object) -> object:
        embedded = embed(*args, **options)  # type: ignore[arg-type]
        for shown in world.of("ash").list(collection=None, after=None, limit=10)[0]:
            world.of("ash").delete(shown.document.id)
        if collected:
            world.run_jobs()
        return embedded

    world.embedding.embed_batch = embed_and_delete  # type: ignore[assignment, method-assign]
    world.reconciler.check(repair=True)
    assert world.store.for_tenant(world.contexts["ash"], space).ids() == []


def test_an_orphan_that_a_job_takes_up_meanwhile_is_kept(world: World) -> None:
    """Between the first look and the transaction its row is written, as a new version's reading step does."""
    [chunk, *_] = world.all("ash", Chunk)
    places = [place for place in world.all("ash", VersionChunk) if place.chunk_id == chunk.id]
    world.change(
        "ash",
        sa.delete(VersionChunk).where(col(VersionChunk.chunk_id) == chunk.id),
        sa.delete(Chunk).where(col(Chunk.id) == chunk.id),
    )
    vectors = type(world.vectors("ash"))
    existing = vectors.existing

    def take_up(self: object, ids: list[str]) -> set[str]:
        found = existing(self, ids)  # type: ignore[arg-type]
        if chunk.id in ids and chunk.id not in {row.id for row in world.all("ash", Chunk)}:
            with world.database.write(world.contexts["ash"]) as session:
                session.add(Chunk(**chunk.model_dump()))
                session.flush()
                session.add_all(VersionChunk(**place.model_dump()) for place in places)
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vectors, "existing", take_up)
        assert world.reconciler.check(repair=True).findings == []
    assert chunk.id in world.vectors("ash").ids()
    world.check_invariants()


def test_progress_ends_where_it_said(world: World) -> None:
    seen: list[tuple[int, int]] = []
    world.reconciler.check(repair=False, progress=lambda done, of: seen.append((done, of)))
    assert [done for done, _ in seen] == [*range(1, len(seen) + 1)]
    assert {of for _, of in seen} == {len(seen)}


def test_findings_add_up_and_every_kind_is_explained() -> None:
    report = Report()
    for subject in ("x", "y"):
        report.add(Finding("point_without_chunk", "ten", True, 500, subject))
    assert report.findings == [Finding("point_without_chunk", "ten", True, 1000, "x")]
    assert report.whole
    report.add(Finding("version_without_blob", "ten", False))
    assert not report.whole
    assert {kind for damage in DAMAGES for kind in damage.kinds} <= set(KINDS)
    assert set(ADVICE) < set(KINDS)


def _kinds(world: World, *, repair: bool) -> set[str]:
    return {finding.kind for finding in world.reconciler.check(repair=repair).findings}


def test_an_engine_that_is_away_has_lost_nothing(world: World) -> None:
    class Away(MemoryStore):
        def health(self) -> object:  # type: ignore[override]
            return type("Health", (), {"ok": False, "spaces": {}})()

    world.reconciler = type(world.reconciler)(world.parts(Away()))
    assert not world.reconciler.engine_lost_points()
