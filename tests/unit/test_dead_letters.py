"""Dead letters on both databases: which jobs are listed, what retrying many does, and what a retry pays."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from config.clock import system_clock
from config.database import Database
from config.errors import NotFound
from ingestion.jobs.jobs import Jobs, TenantJobs, Wanted
from ingestion.jobs.leases import Lease
from ingestion.jobs.tables import Job
from ingestion.pipeline.batches import BATCH_CHUNKS
from ingestion.queue.workflow import Outcome, process
from ingestion.readers.base import Parsed
from ingestion.sandbox import ParserDied, ParserTimedOut
from rag.corpus import Document, DocumentVersion
from rag.store.memory import MemoryStore
from tenants.tables import LedgerEntry
from tests.isolation.stand_ins import RewoundCache
from tests.world import TENANTS, InProcessReader, World, text_of

POSTGRESQL_DAILY = False
MINE, OTHERS = TENANTS
DEAD = Wanted(dead=True)


class Fatal(InProcessReader):
    """Dies of contents that say so."""

    def read(self, path: Path, media_type: str, *_note: object) -> Parsed:
        if b"poison" in path.read_bytes():
            raise ParserDied("The reader crashed.")
        if b"endless" in path.read_bytes():
            raise ParserTimedOut("The reader took too long.")
        return super().read(path, media_type)


@pytest.fixture
def world(database: Database, tmp_path: Path) -> Iterator[World]:
    world = World(database, MemoryStore(), tmp_path, keep_failed_days=1, cache=RewoundCache())
    world.pipeline._reading._sandbox = Fatal()  # type: ignore[assignment]
    for name in TENANTS:
        world.bring(name, "fine", "a fine text")
        for number in range(2):
            world.bring(name, f"poison {number}", f"poison {number}")
        world.run_jobs()
    yield world
    world.close()


def _jobs(world: World, name: str = MINE, **bounds: Any) -> TenantJobs:
    return Jobs(world.database, system_clock, world.queue).for_tenant(replace(world.contexts[name], **bounds))


def _dead(world: World, wanted: Wanted = DEAD, name: str = MINE, **bounds: Any) -> list[Job]:
    return _jobs(world, name, **bounds).list(wanted, limit=50)[0]


def _cured(world: World) -> None:
    world.pipeline._reading._sandbox = InProcessReader()  # type: ignore[assignment]


def test_documents_that_end_their_reader_are_parked_and_listed(world: World) -> None:
    dead = _dead(world)
    assert [(job.state, job.error_code) for job in dead] == [("failed", "document_parked")] * 2
    assert _dead(world, Wanted(dead=True, error_code="engine_unavailable")) == []
    assert len(_dead(world, Wanted(error_code="document_parked"))) == 2
    assert {job.id for job in _dead(world, name=OTHERS)}.isdisjoint(job.id for job in dead)
    deaths = [version.parser_deaths for version in world.all(MINE, DocumentVersion) if version.state == "failed"]
    assert deaths == [2, 2]


def test_a_reader_that_ran_out_of_time_is_not_tried_again(world: World) -> None:
    for name in TENANTS:
        world.bring(name, "endless", "endless")
    world.run_jobs()
    for name in TENANTS:
        assert len(_dead(world, Wanted(error_code="document_parked"), name)) == 3
        assert sorted(version.parser_deaths for version in world.all(name, DocumentVersion)) == [0, 1, 2, 2]


def test_an_explicit_retry_counts_deaths_anew(world: World) -> None:
    job = _dead(world)[0]
    again = _jobs(world).retry(job.id)
    world.run_jobs()  # still poison: it dies twice more, and is parked again
    parked = _jobs(world).get(again.id)
    assert (parked.state, parked.error_code) == ("failed", "document_parked")
    assert [one.id for one in _dead(world) if one.document_id == job.document_id] == [again.id]
    _cured(world)
    last = _jobs(world).retry(again.id)
    world.run_jobs()
    assert _jobs(world).get(last.id).state == "succeeded"
    assert [one.document_id for one in _dead(world)] == [_dead(world)[0].document_id] != [job.document_id]


def test_what_was_replaced_or_deleted_is_dead_no_more(world: World) -> None:
    first, second = _dead(world)
    world.of(MINE).delete(first.document_id)
    assert [job.id for job in _dead(world)] == [second.id]
    world.bring(MINE, "poison 0", "a mended text")
    assert _dead(world) == []
    world.run_jobs()
    assert _dead(world) == []
    assert len(_dead(world, name=OTHERS)) == 2


def test_retrying_all_retries_each_dead_job_once_oldest_first(world: World) -> None:
    dead = _dead(world)
    _cured(world)
    one, more = _jobs(world).retry_all(DEAD, limit=1)
    assert ([job.retry_of for job in one], more) == ([min(job.id for job in dead)], True)
    rest, more = _jobs(world).retry_all(DEAD)
    assert ([job.retry_of for job in rest], more) == ([max(job.id for job in dead)], False)
    assert _jobs(world).retry_all(DEAD) == ([], False)
    world.run_jobs()
    assert {_jobs(world).get(job.id).state for job in (*one, *rest)} == {"succeeded"}
    assert len(_dead(world, name=OTHERS)) == 2


def test_what_fails_again_is_not_retried_by_the_same_round(world: World) -> None:
    newest = _dead(world)[0].id
    assert len(_jobs(world).retry_all(DEAD, through=newest)[0]) == 2
    world.run_jobs()
    assert len(_dead(world)) == 2
    assert _jobs(world).retry_all(DEAD, through=newest) == ([], False)


def test_retrying_all_is_confined_to_what_was_asked_for(world: World) -> None:
    assert _jobs(world).retry_all(Wanted(error_code="other")) == ([], False)
    assert _jobs(world, collections=frozenset({"other"})).retry_all(DEAD) == ([], False)
    with pytest.raises(NotFound):
        _jobs(world).retry_all(Wanted(collection="none"))
    assert len(_jobs(world).retry_all(Wanted(error_code="document_parked", collection="default"))[0]) == 2
    assert len(_dead(world, name=OTHERS)) == 2


def test_retrying_all_passes_over_what_the_keys_labels_hide(world: World) -> None:
    world.bring(MINE, "red", "poison red", labels=["red"])
    world.run_jobs()
    red = {job.document_id for job in _dead(world)} - {job.document_id for job in _dead(world, labels=frozenset())}
    assert len(red) == 1
    assert len(_jobs(world, labels=frozenset()).retry_all(DEAD)[0]) == 2
    assert {job.document_id for job in _dead(world)} == red


def test_a_retry_goes_on_behind_what_was_embedded_and_pays_for_nothing_twice(world: World) -> None:
    document = world.bring(MINE, "long", text_of(MINE, 1, 90))
    [(tenant_id, job_id)] = [item for item in world.queue.waiting if _jobs(world).row(item[1])]
    steps, before = world.steps(None), _charged(world)

    def away(lease: Lease, number: int) -> Outcome | None:
        gone = {"code": "engine_unavailable", "detail": "gone", "retry": False}
        return gone if number == 1 else world.steps(None).embed_batch(lease, number)

    process(replace(steps, embed_batch=away), tenant_id, job_id)
    world.queue.waiting.clear()
    failed, first = _jobs(world).get(job_id), _charged(world) - before
    assert (failed.state, failed.chunks_done, first > 0) == ("failed", BATCH_CHUNKS, True)
    again = _jobs(world).retry(job_id)
    world.run_jobs()
    ended = _jobs(world).get(again.id)
    assert (ended.state, ended.chunks_done) == ("succeeded", ended.chunks_total)
    assert ended.chunks_total > 2 * BATCH_CHUNKS
    # The version's: what was charged for the first batch is one entry, which both jobs count.
    assert _charged(world) - before == ended.tokens_charged == ended.tokens_total - ended.tokens_cached
    assert document in {row.id for row in world.all(MINE, Document) if row.live_version_id}


def _charged(world: World) -> int:
    return sum(entry.tokens for entry in world.all(MINE, LedgerEntry))
