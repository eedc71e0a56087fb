"""With a document its vectors leave the embedding cache, whenever it is deleted; an edit alone takes none away."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from config.clock import system_clock
from config.database import Database
from config.errors import LeaseLost, NotFound
from ingestion.intake.submission import Submission
from ingestion.jobs.jobs import Jobs
from ingestion.jobs.rows import After
from rag.corpus import Document, FormerText
from rag.embedding.cache import DiskVectorCache
from rag.embedding.hashing import HashRuntime
from rag.splitting.chunking import embedded_text
from rag.store.memory import MemoryStore
from tests.world import DAMAGES, World, text_of

POSTGRESQL_DAILY = False


@pytest.fixture
def world(sql_url: str, tmp_path: Path) -> Iterator[World]:
    database = Database(sql_url)
    world = World(database, MemoryStore(), tmp_path, cache=DiskVectorCache(tmp_path / "cache", max_bytes=1 << 24))
    yield world
    world.close()
    database.close()


def held(world: World, name: str) -> int:
    return world.cache.stats(world.contexts[name]).vectors


def test_what_an_edit_removed_is_kept_for_taking_it_back_and_goes_with_the_document(world: World) -> None:
    for name in ("ash", "elm"):
        for number in (1, 2, 1):  # the third is the first again
            world.bring(name, "one", text_of(name, number, 4))
            world.run_jobs()
            world.bring(name, "other", text_of(name, 9, 2))
            world.run_jobs()
    before = held(world, "ash")
    assert before > 2
    assert world.all("ash", FormerText) != []
    elm = held(world, "elm")
    world.of("ash").delete(_document(world, "ash", "one").id)
    world.run_jobs()
    left = held(world, "ash")
    assert 0 < left < before
    assert world.all("ash", FormerText) == []
    world.of("ash").delete(_document(world, "ash", "other").id)
    world.run_jobs()
    assert held(world, "ash") == 0
    assert held(world, "elm") == elm > 0


def _document(world: World, name: str, external_id: str) -> Any:
    return next(row for row in world.all(name, Document) if row.external_id == external_id)


def test_what_is_embedded_while_its_document_is_deleted_is_not_kept(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    document = world.bring("ash", "one", text_of("ash", 1, 3))
    embed = world.embedding.embed_batch

    def deleted_meanwhile(*given: Any, **named: Any) -> Any:
        embedded = embed(*given, **named)
        monkeypatch.undo()
        world.of("ash").delete(document)
        with world.database.read(world.contexts["ash"]) as session:
            collection = session.get_one(Document, document).collection_id
        world.collector.collect(world.contexts["ash"], collection, document, None)
        assert held(world, "ash") == 0
        world.cache.put(world.contexts["ash"], world.embedding.space, dict(zip(given[2], embedded.vectors, strict=True)))
        return embedded

    monkeypatch.setattr(world.embedding, "embed_batch", deleted_meanwhile)
    world.run_jobs()
    assert held(world, "ash") == 0
    assert world.all("ash", FormerText) == []


def test_what_a_worker_put_there_as_its_last_act_goes_with_the_job(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The document's delete comes to its end while a batch is at the model; the worker caches the batch, and dies."""
    for name in ("ash", "elm"):
        world.bring(name, "kept", text_of(name, 5, 2))
        world.run_jobs()
    kept, others = held(world, "ash"), held(world, "elm")
    document = world.bring("ash", "one", text_of("ash", 1, 3))
    ingest = world.queue.waiting[0]
    embed = world.embedding.embed_batch

    def dies(*given: Any, **named: Any) -> Any:
        world.of("ash").delete(document)
        world.queue.waiting.remove(ingest) if ingest in world.queue.waiting else None
        monkeypatch.undo()
        world.run_jobs()
        assert world.all("ash", Document)[0].external_id == "kept"
        assert held(world, "ash") == kept
        embed(*given, **named)
        raise KeyboardInterrupt

    monkeypatch.setattr(world.embedding, "embed_batch", dies)
    with pytest.raises(KeyboardInterrupt):
        world.run_jobs()
    assert held(world, "ash") > kept
    assert world.all("ash", FormerText) != []
    world.run_jobs()
    assert held(world, "ash") == kept
    assert world.all("ash", FormerText) == []
    assert held(world, "elm") == others


def test_what_a_late_owner_embedded_of_a_deleted_document_is_not_kept(world: World) -> None:
    document = world.bring("ash", "one", text_of("ash", 1, 3))
    late = world.pipeline.take_up(world.contexts["ash"], world.queue.waiting[0][1])
    assert late is not None
    world.pipeline.read(late)
    count = world.pipeline._batches.embed

    def overtaken(*given: Any) -> Any:
        found = count(*given)
        world.cache.forget(world.contexts["ash"])
        world.of("ash").delete(document)
        world.run_jobs()
        world.cache.put(world.contexts["ash"], world.embedding.space, dict.fromkeys(_texts(found), found_vector(world)))
        return found

    world.pipeline._batches.embed = overtaken  # type: ignore[method-assign]
    with pytest.raises(LeaseLost):
        world.pipeline.complete(late, 0)
    assert held(world, "ash") == 0
    assert world.all("ash", FormerText) == []


def _texts(found: Any) -> list[str]:
    return [embedded_text(chunk.context, chunk.text) for chunk in found[0].missing]


def found_vector(world: World) -> Any:
    return HashRuntime().embed(["any"])[0]


def test_of_two_jobs_of_a_deleted_document_the_last_forgets_the_names(world: World) -> None:
    document = world.bring("ash", "one", text_of("ash", 1, 3))
    world.bring("ash", "one", text_of("ash", 2, 3))
    leases = [world.pipeline.take_up(world.contexts["ash"], job_id) for _, job_id in [*world.queue.waiting]]
    world.queue.waiting.clear()
    for lease in leases:
        assert lease is not None
        world.pipeline.read(lease)
    world.of("ash").delete(document)
    world.run_jobs()
    names = world.all("ash", FormerText)
    assert names != []
    for lease, left in zip(leases, (names, []), strict=True):
        world.pipeline.fail(lease, "document_deleted", None)
        world.pipeline.collect(lease)
        assert [row.key for row in world.all("ash", FormerText)] == [row.key for row in left]


def test_a_job_whose_document_is_deleted_while_it_collects_forgets_the_names(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The delete comes to its end between the job's look at the document and the job's own end."""
    for name in ("elm", "ash"):
        document = world.bring(name, "one", text_of(name, 1, 3))
        world.run_jobs()
        world.bring(name, "one", text_of(name, 2, 3))
        world.run_jobs()
    others = held(world, "elm")
    world.bring("ash", "one", text_of("ash", 3, 3))
    drop = world.collector._drop_dead_versions

    def deleted_meanwhile(*given: Any) -> None:
        monkeypatch.undo()
        world.of("ash").delete(document)
        world.run_jobs()
        assert world.all("ash", FormerText) != []  # the delete leaves them to the job
        drop(*given)

    monkeypatch.setattr(world.collector, "_drop_dead_versions", deleted_meanwhile)
    world.run_jobs()
    assert (world.all("ash", FormerText), held(world, "ash")) == ([], 0)
    assert world.all("elm", FormerText) != []
    assert held(world, "elm") == others


def test_a_held_job_of_a_deleted_document_forgets_the_names_when_it_is_cancelled(world: World) -> None:
    first = world.of("ash").submit(Submission(b"what comes first", external_id="first", media_type="text/plain")).job
    assert first is not None
    [waiting] = world.queue.waiting
    world.queue.waiting.clear()
    document = world.bring("ash", "one", text_of("ash", 1, 3))
    world.run_jobs()
    again = Submission(text_of("ash", 2, 3).encode(), external_id="one", media_type="text/plain")
    held_job = world.of("ash").submit(again, after=After((first.id,))).job
    assert held_job is not None
    world.of("ash").delete(document)
    world.run_jobs()
    assert world.all("ash", FormerText) != []
    jobs = Jobs(world.database, system_clock, world.queue)
    with pytest.raises(NotFound):
        jobs.for_tenant(world.contexts["elm"]).cancel(held_job.id)
    jobs.for_tenant(world.contexts["ash"]).cancel(held_job.id)
    world.run_jobs()
    ended = jobs.for_tenant(world.contexts["ash"]).get(held_job.id)
    assert (ended.state, ended.stage) == ("cancelled", "done")
    assert world.all("ash", FormerText) == []
    world.queue.waiting.append(waiting)
    world.run_jobs()


def test_a_repair_erases_what_names_without_a_document_lead_to_but_not_what_a_job_may_yet_write(world: World) -> None:
    damage = next(damage for damage in DAMAGES if "names_without_document" in damage.kinds)
    for name in ("ash", "elm"):
        damage.do(world, name)
        assert held(world, name) == 1
    document = world.bring("ash", "one", text_of("ash", 1, 3))
    world.bring("ash", "one", text_of("ash", 2, 3))
    job = world.queue.waiting.pop()
    world.run_jobs()
    world.of("ash").delete(document)
    world.run_jobs()
    world.queue.running.add(job[1])
    found = world.reconciler.check(repair=True).findings
    assert [(finding.kind, finding.repaired) for finding in found] == [("names_without_document", True)] * 2
    assert {row.document_id for row in world.all("ash", FormerText)} == {document}
    assert (held(world, "ash"), held(world, "elm"), world.all("elm", FormerText)) == (0, 0, [])
    world.queue.running.clear()
    world.queue.waiting.append(job)
    world.run_jobs()
    assert world.all("ash", FormerText) == []
