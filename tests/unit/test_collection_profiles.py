"""Collections and their profiles on both databases: what a change does to what is brought, and to what was."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import col, select

from config.clock import system_clock
from config.database import Database
from config.errors import BudgetExhausted, InvalidInput, NotFound, SetupError
from config.profiles import BUILT_IN, PRIORITIES, Profile
from ingestion.intake.documents import Submitted
from ingestion.intake.submission import Submission
from ingestion.jobs.jobs import Jobs
from ingestion.jobs.tables import Job
from rag.collections import Collections
from rag.corpus import Chunk, Collection, DocumentVersion
from rag.embedding.hashing import HashRuntime
from rag.profiles import Profiles
from rag.store.memory import MemoryStore
from tests.world import TENANTS, World

MINE, OTHERS = TENANTS
TEXT = "\n\n".join(f"Shelf {number} holds oak and pine, and a ladder leans on it." for number in range(40))
OPERATORS = {**BUILT_IN, "urgent": Profile(priority="high")}


@pytest.fixture
def world(database: Database, tmp_path: Path) -> Iterator[World]:
    world = World(database, MemoryStore(), tmp_path, keep_failed_days=1)
    for name in TENANTS:
        world.documents.collections.for_tenant(world.contexts[name]).create("shelves")
    yield world
    world.close()


def _bring(world: World, name: str = MINE, text: str = TEXT) -> Submitted:
    submission = Submission(text.encode(), external_id="one", media_type="text/plain", collection="shelves")
    return world.of(name).submit(submission)


def _choose(world: World, profile: str, name: str = MINE) -> None:
    world.documents.collections.for_tenant(world.contexts[name]).update("shelves", profile=profile)


def _edit(world: World, **profiles: Profile) -> None:
    """As if the service had been started again with another file."""
    world.documents.collections.profiles = Profiles({**OPERATORS, **profiles}, HashRuntime())


def _longest(world: World, name: str = MINE) -> int:
    chunks: list[Chunk] = world.all(name, Chunk)
    return max(len(chunk.text) for chunk in chunks)


def _version(world: World, name: str = MINE) -> DocumentVersion:
    versions: list[DocumentVersion] = world.all(name, DocumentVersion)
    return max(versions, key=lambda version: version.number)


def test_a_change_holds_for_what_is_brought_from_then_on(world: World) -> None:
    for name in TENANTS:
        _bring(world, name)
    world.run_jobs()
    before = world.snapshot(MINE)
    _choose(world, "precise")
    assert world.snapshot(MINE)[1:] == before[1:]
    assert _bring(world, OTHERS).job is None
    changed = _bring(world)
    assert (changed.job is not None, changed.shown.version.profile) == (True, "precise")
    world.run_jobs()
    assert _longest(world) <= 96
    assert _longest(world, OTHERS) > 96
    version = _version(world)
    assert (version.number, version.state, version.profile) == (2, "live", "precise")
    assert version.chunking == asdict(world.documents.collections.profiles.get("precise").chunking)
    assert _bring(world).job is None
    world.check_invariants()


def test_a_profile_of_the_same_chunking_makes_nothing_anew(world: World) -> None:
    _bring(world)
    world.run_jobs()
    _choose(world, "economy")
    assert _bring(world).job is None
    assert _version(world).profile == "standard"


def test_what_is_queued_is_done_as_it_was_brought_whatever_changes_meanwhile(world: World) -> None:
    _choose(world, "precise")
    _bring(world)
    _edit(world, precise=Profile(chunk_tokens=200))
    _choose(world, "standard")
    world.run_jobs()
    assert _longest(world) <= 96


def test_a_retry_is_done_as_its_version_was_brought(world: World) -> None:
    _edit(world)
    _choose(world, "precise")
    jobs = Jobs(world.database, system_clock, world.queue).for_tenant(world.contexts[MINE])
    submitted = _bring(world)
    assert submitted.job is not None
    jobs.cancel(submitted.job.id)
    world.run_jobs()
    _edit(world, precise=Profile(chunk_tokens=200, priority="low"))
    again = jobs.retry(submitted.job.id)
    world.run_jobs()
    assert (again.priority, _longest(world) <= 96) == (PRIORITIES["normal"], True)


@pytest.mark.parametrize(("profile", "priority"), [("standard", "normal"), ("economy", "low"), ("urgent", "high")])
def test_jobs_and_their_retries_have_the_profiles_priority(world: World, profile: str, priority: str) -> None:
    _edit(world)
    _choose(world, profile)
    jobs = Jobs(world.database, system_clock, world.queue).for_tenant(world.contexts[MINE])
    submitted = _bring(world)
    assert submitted.job is not None
    jobs.cancel(submitted.job.id)
    world.run_jobs()
    _choose(world, "standard")
    jobs.retry(submitted.job.id)
    assert [job.priority for job in world.all(MINE, Job)] == [PRIORITIES[priority]] * 2
    assert PRIORITIES["high"] < PRIORITIES["normal"] < PRIORITIES["low"]


def test_other_chunks_of_a_known_text_need_a_budget(world: World) -> None:
    _bring(world)
    world.run_jobs()
    world.registry.update(world.contexts[MINE].tenant_id, {"monthly_tokens": 1})
    assert _bring(world).job is None
    _choose(world, "precise")
    with pytest.raises(BudgetExhausted):
        _bring(world)


def test_a_profile_is_one_tenants_choice(world: World) -> None:
    _choose(world, "precise")
    for name, profile in ((MINE, "precise"), (OTHERS, "standard")):
        [(row, documents)] = world.documents.collections.for_tenant(world.contexts[name]).list(after=None, limit=9)
        assert (row.name, row.profile, documents) == ("shelves", profile, 0)


def test_a_change_answers_with_the_collection_as_lists_show_it(world: World) -> None:
    for name in TENANTS:
        _bring(world, name)
    world.run_jobs()
    handle = world.documents.collections.for_tenant(world.contexts[MINE])
    row, documents = handle.update("shelves", profile="economy")
    assert [(row.model_dump(), documents)] == [(r.model_dump(), n) for r, n in handle.list(after=None, limit=9)]
    assert documents == 1


def test_what_is_not_there_is_refused_and_changes_nothing(world: World) -> None:
    handle = world.documents.collections.for_tenant(world.contexts[MINE])
    calls: list[tuple[Any, type[Exception], str]] = [
        (lambda: handle.create("new", profile="none"), InvalidInput, "economy, precise, standard"),
        (lambda: handle.update("shelves", profile="none"), InvalidInput, "economy, precise, standard"),
        (lambda: handle.update("missing", profile="precise"), NotFound, "missing"),
    ]
    for call, error, said in calls:
        with pytest.raises(error, match=said):
            call()
    assert [(row.name, row.profile) for row, _ in handle.list(after=None, limit=9)] == [("shelves", "standard")]


def test_a_profile_in_use_that_is_gone_is_named_when_the_service_starts(world: World) -> None:
    _edit(world)
    _choose(world, "urgent", OTHERS)
    runtime = HashRuntime()
    world.documents.collections.require_profiles()
    without = Collections(world.database, system_clock, runtime.fingerprint, Profiles(BUILT_IN, runtime))
    with pytest.raises(SetupError, match=r"not there: urgent\. .*CARREL_PROFILES_FILE"):
        without.require_profiles()
    with world.database.system_write() as session:
        session.scalars(select(Collection).where(col(Collection.profile) == "urgent")).one().profile = "economy"
    without.require_profiles()


def test_a_document_of_a_collection_whose_profile_is_gone_is_refused(world: World) -> None:
    _edit(world)
    _choose(world, "urgent")
    world.documents.collections.profiles = Profiles(BUILT_IN, HashRuntime())
    with pytest.raises(InvalidInput, match="'urgent'") as refused:
        _bring(world)
    assert refused.value.field == "collection"
    assert world.files() == set()
