"""Near-duplicates on both databases: what is flagged, linked and skipped, and what becomes of it when the original goes."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import col, select

from config.clock import system_clock
from config.database import Database
from ingestion.intake.catalogue import Shown
from ingestion.jobs.jobs import Jobs
from ingestion.jobs.tables import Job
from ingestion.queue.workflow import Step, process
from rag.corpus import Chunk, Document, DocumentVersion, Sketch, SketchBand
from rag.store.memory import MemoryStore
from tenants.tables import Event, LedgerEntry
from tests.world import TENANTS, World

POSTGRESQL_DAILY = False
MINE, OTHERS = TENANTS
_CHANCE = random.Random(11)
WORDS = _CHANCE.choices([f"oak{number}" for number in range(900)], k=600)
TEXT = " ".join(WORDS)
LIKE = " ".join([*WORDS[:300], "pine", *WORDS[301:]])  # 0.99
UNLIKE = " ".join(reversed(WORDS))


@pytest.fixture
def world(database: Database, tmp_path: Path) -> Iterator[World]:
    world = World(database, MemoryStore(), tmp_path, keep_failed_days=1)
    for name in TENANTS:
        world.documents.collections.for_tenant(world.contexts[name]).ensure_default()
    world.bring(OTHERS, "theirs", " ".join(WORDS[::2]))
    world.run_jobs()
    yield world
    world.close()


def _policy(world: World, policy: str, name: str = MINE) -> None:
    world.documents.collections.for_tenant(world.contexts[name]).update("default", near_duplicates=policy)


def _brought(world: World, external_id: str, text: str, name: str = MINE, **fields: Any) -> str:
    document_id = world.bring(name, external_id, text, **fields)
    world.run_jobs()
    return document_id


def _shown(world: World, document_id: str, name: str = MINE, **bounds: frozenset[str]) -> Shown:
    return world.documents.for_tenant(replace(world.contexts[name], **bounds)).get(document_id)  # type: ignore[arg-type]


def _job(world: World, document_id: str) -> Job:
    jobs: list[Job] = [job for job in world.all(MINE, Job) if job.document_id == document_id]
    return max(jobs, key=lambda job: job.id)


def _found(world: World, name: str = MINE) -> set[str]:
    return {row[0] for row in world.answer(name)}


def _charged(world: World) -> int:
    return sum(entry.tokens for entry in world.all(MINE, LedgerEntry))


def _consistent(world: World) -> None:
    """Sketches are those of live versions that have chunks of their own; every link leads to a live version."""
    for name in TENANTS:
        versions: list[DocumentVersion] = world.all(name, DocumentVersion)
        live = {version.id for version in versions if version.state == "live"}
        linked = [version for version in versions if version.linked]
        assert {version.id for version in linked} <= live
        assert {version.near_version_id for version in linked} <= live
        assert {row.version_id for row in world.all(name, Sketch)} == live - {version.id for version in linked}
        assert {row.version_id for row in world.all(name, SketchBand)} == live - {version.id for version in linked}


def test_a_near_duplicate_is_flagged_and_kept(world: World) -> None:
    for name in (OTHERS, MINE):
        first, second = (_brought(world, key, text, name) for key, text in (("one", TEXT), ("two", LIKE)))
        other = _brought(world, "three", UNLIKE, name)
        near = _shown(world, second, name).near
        assert near is not None
        assert (near.document_id, near.linked) == (first, False)
        assert near.similarity > 0.95
        assert _shown(world, first, name).near is _shown(world, other, name).near is None
    assert _found(world) == {"one", "two", "three"}
    with world.database.read(world.contexts[MINE]) as session:
        [event] = session.scalars(select(Event).where(col(Event.type) == "document.near_duplicate"))
    assert (event.subject, event.data["near_document_id"], event.data["outcome"]) == (second, first, "kept")
    [listed] = [shown for shown in world.of(MINE).list(collection=None, after=None, limit=9)[0] if shown.near]
    assert listed.document.id == second
    _consistent(world)
    world.check_invariants()


def test_other_tenants_and_collections_are_never_compared_with(world: World) -> None:
    world.documents.collections.for_tenant(world.contexts[MINE]).create("minutes", near_duplicates="skip")
    _brought(world, "one", TEXT, OTHERS)
    here = _brought(world, "one", TEXT)
    there = _brought(world, "one", TEXT, collection="minutes")
    assert [_shown(world, one).near for one in (here, there)] == [None, None]
    assert {chunk.document_id for chunk in world.all(MINE, Chunk)} == {here, there}


def test_a_new_version_is_not_a_duplicate_of_its_own_document(world: World) -> None:
    _policy(world, "skip")
    for text in (TEXT, LIKE):
        document = _brought(world, "one", text)
    assert (_shown(world, document).version.number, _shown(world, document).near) == (2, None)
    _consistent(world)


def test_a_threshold_is_the_collections(world: World) -> None:
    some = " ".join(_changed(WORDS, 14))  # about 0.87
    _brought(world, "one", TEXT)
    assert _shown(world, _brought(world, "two", some)).near is None
    world.documents.collections.for_tenant(world.contexts[MINE]).update("default", near_threshold=0.8)
    assert _shown(world, _brought(world, "three", " ".join(_changed(WORDS, 14, start=5)))).near is not None


def _changed(words: list[str], count: int, start: int = 0) -> list[str]:
    step = len(words) // count
    return ["pine" if at % step == start and at // step < count else word for at, word in enumerate(words)]


def test_what_hides_the_original_hides_the_flag(world: World) -> None:
    red = _brought(world, "one", TEXT, labels=["red"])
    free = _brought(world, "two", LIKE)
    assert _shown(world, free, labels=frozenset({"red"})).near is not None
    assert _shown(world, free, labels=frozenset()).near is None
    listed, _ = world.documents.for_tenant(replace(world.contexts[MINE], labels=frozenset())).list(
        collection=None, after=None, limit=9
    )
    assert [(shown.document.id, shown.near) for shown in listed] == [(free, None)]
    world.of(MINE).delete(red)
    world.run_jobs()
    assert _shown(world, free).near is None


def test_skipped_is_not_live_costs_nothing_and_names_the_original(world: World) -> None:
    _policy(world, "skip")
    first = _brought(world, "one", TEXT)
    charged = _charged(world)
    second = _brought(world, "two", LIKE)
    job, shown = _job(world, second), _shown(world, second)
    assert (job.state, job.outcome, job.stage, job.tokens_charged) == ("succeeded", "skipped", "done", 0)
    assert (shown.version.state, shown.document.live_version_id) == ("skipped", None)
    assert shown.near is not None
    assert shown.near.document_id == first
    assert _charged(world) == charged
    assert _found(world) == {"one"}
    _consistent(world)
    world.check_invariants()
    world.of(MINE).delete(first)
    world.run_jobs()
    assert _shown(world, _brought(world, "two", LIKE)).version.state == "live"


def test_what_is_live_already_is_replaced_and_not_skipped(world: World) -> None:
    _policy(world, "skip")
    _brought(world, "one", TEXT)
    _brought(world, "two", UNLIKE)
    second = _brought(world, "two", LIKE)
    assert (_shown(world, second).version.number, _shown(world, second).version.state) == (2, "live")
    assert _shown(world, second).near is not None


def test_linked_is_live_without_chunks_and_found_through_the_original(world: World) -> None:
    _policy(world, "link")
    first = _brought(world, "one", TEXT)
    before, charged = world.vectors(MINE).ids(), _charged(world)
    second = _brought(world, "two", LIKE)
    job, shown = _job(world, second), _shown(world, second)
    assert (job.state, job.outcome, job.chunks_total, job.tokens_charged) == ("succeeded", "linked", 0, 0)
    assert (shown.version.state, shown.near and (shown.near.document_id, shown.near.linked)) == ("live", (first, True))
    assert world.of(MINE).text(second)[1] == LIKE + "\n"
    assert (world.vectors(MINE).ids(), _charged(world), _found(world)) == (before, charged, {"one"})
    third = _brought(world, "three", LIKE)
    near = _shown(world, third).near
    assert near is not None
    assert near.document_id == first, "a linked document is no original"
    world.of(MINE).delete(second)
    world.run_jobs()
    assert (world.vectors(MINE).ids(), _found(world)) == (before, {"one"})
    _consistent(world)
    world.check_invariants()


@pytest.mark.parametrize("difference", [{"labels": ["red"]}, {"attributes": {"year": 2026}}], ids=str)
def test_what_other_readers_or_filters_find_is_not_linked(world: World, difference: dict[str, Any]) -> None:
    _policy(world, "link")
    _brought(world, "one", TEXT)
    second = _brought(world, "two", LIKE, **difference)
    near = _shown(world, second).near
    assert near is not None
    assert not near.linked
    assert _found(world) == {"one", "two"}


def test_an_original_with_the_same_labels_comes_first(world: World) -> None:
    _policy(world, "link")
    _brought(world, "equal", LIKE)
    red = _brought(world, "alike", TEXT, labels=["red"])
    near = _shown(world, _brought(world, "new", LIKE, labels=["red"])).near
    assert near is not None
    assert (near.document_id, near.linked) == (red, True)


def test_nothing_is_skipped_for_a_document_that_its_readers_may_not_see(world: World) -> None:
    _policy(world, "skip")
    _brought(world, "one", TEXT, labels=["red"])
    assert _shown(world, _brought(world, "two", LIKE)).version.state == "live"


@pytest.mark.parametrize("change", ["delete", "replace"])
def test_when_the_original_goes_what_was_linked_is_found_by_itself(world: World, change: str) -> None:
    _policy(world, "link")
    for name in TENANTS:
        _policy(world, "link", name)
        for key in ("one", "two", "three"):
            _brought(world, key, TEXT, name)
    theirs = world.snapshot(OTHERS)[:2]
    first = next(row.id for row in world.all(MINE, Document) if row.external_id == "one")
    if change == "delete":
        world.of(MINE).delete(first)
    else:
        world.bring(MINE, "one", UNLIKE)
    world.run_jobs()
    texts = [row[4] for row in sorted(world.answer(MINE), key=lambda row: (row[0], row[2]))]
    assert " ".join(WORDS[:20]) in " ".join(texts)
    assert len(_found(world)) == (1 if change == "delete" else 2), "the second is found, the third through it"
    assert {version.state for version in world.all(MINE, DocumentVersion)} - {"superseded"} == {"live"}
    assert world.snapshot(OTHERS)[:2] == theirs
    _consistent(world)
    world.check_invariants()


def test_an_original_that_goes_between_reading_and_the_switch_is_noticed(world: World) -> None:
    """Whatever the policy: the text is read again, and embedded."""
    for policy in ("link", "skip"):
        _policy(world, policy)
        first = _brought(world, "one", TEXT)
        second = world.bring(MINE, "two", LIKE)
        job, steps = _job(world, second), world.steps(None)
        lease = steps.take_up(world.contexts[MINE].tenant_id, job.id)
        assert lease is not None
        assert steps.read(lease) == {"batches": 0}
        world.of(MINE).delete(first)
        world.run_jobs()
        assert (_job(world, second).outcome, _shown(world, second).version.state) == (None, "live")
        assert _found(world) == {"two"}
        _consistent(world)
        world.of(MINE).delete(second)
        world.run_jobs()


def test_two_that_are_read_at_the_same_moment_are_flagged_all_the_same(world: World) -> None:
    documents = [world.bring(MINE, key, TEXT) for key in ("one", "two")]
    steps = world.steps(None)
    leases = [steps.take_up(world.contexts[MINE].tenant_id, _job(world, document).id) for document in documents]
    for lease in leases:
        steps.read(lease)
    world.run_jobs()
    nears = [_shown(world, document).near for document in documents]
    assert [near and near.document_id for near in nears] == [None, documents[0]]


class Killed(BaseException):
    pass


@pytest.mark.parametrize("policy", ["keep", "link", "skip"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_kill_at_any_step_changes_nothing_in_the_end(world: World, policy: str, when: str) -> None:
    for name in ("one", "two"):
        _policy(world, policy)
        _brought(world, f"{name} original", TEXT + f" {name}", labels=[name])
    for killed_in in ("read", "complete"):
        document = world.bring(MINE, f"{killed_in}", LIKE + " one", labels=["one"])
        steps = world.steps(None)
        step: Step = getattr(steps, killed_in)

        def dies(*args: Any, step: Step = step) -> Any:
            if when == "after":
                step(*args)
            raise Killed

        with pytest.raises(Killed):
            process(replace(steps, **{killed_in: dies}), *world.queue.waiting[0])
        world.run_jobs()
        shown = _shown(world, document)
        assert shown.near is not None
        assert shown.version.state == ("skipped" if policy == "skip" else "live")
        assert shown.near.linked == (policy == "link")
    with world.database.read(world.contexts[MINE]) as session:
        events = session.scalars(select(Event).where(col(Event.type) == "document.near_duplicate")).all()
    assert len({event.subject for event in events}) == len(events) >= 2
    _consistent(world)
    world.check_invariants()


def test_a_link_that_lost_its_original_is_found_and_mended(world: World) -> None:
    _policy(world, "link")
    first = _brought(world, "one", TEXT)
    _brought(world, "two", TEXT)
    world.of(MINE).delete(first)
    world.queue.waiting.clear()  # the delete's worker is gone for good
    found = {finding.kind for finding in world.reconciler.check(repair=False).findings}
    assert "link_without_original" in found
    world.reconciler.check(repair=True)
    world.run_jobs()
    assert _found(world) == {"two"}
    assert [finding.kind for finding in world.reconciler.check(repair=True).findings] == []
    _consistent(world)


def test_a_retry_of_a_failed_duplicate_leaves_no_second_sketch(world: World) -> None:
    _brought(world, "one", TEXT)
    document = world.bring(MINE, "two", LIKE)
    jobs = Jobs(world.database, system_clock, world.queue).for_tenant(world.contexts[MINE])
    steps = world.steps(None)
    lease = steps.take_up(world.contexts[MINE].tenant_id, _job(world, document).id)
    steps.read(lease)
    jobs.cancel(_job(world, document).id)
    world.run_jobs()
    _consistent(world)
    jobs.retry(_job(world, document).id)
    world.run_jobs()
    assert _shown(world, document).near is not None
    _consistent(world)
