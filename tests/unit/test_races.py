"""Writers that meet at the same rows, on both databases: SQLite lets one write at a time, PostgreSQL all of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session
from sqlmodel import select

from config.clock import system_clock
from config.database import Database
from config.errors import NotFound
from config.profiles import BUILT_IN
from ingestion.intake.documents import Submitted
from ingestion.intake.submission import Submission
from ingestion.jobs.tables import Job
from ingestion.pipeline.chunk_rows import claim_slots
from ingestion.removal.collections import Removal
from rag.collections import Collections
from rag.corpus import Collection, Document, DocumentVersion, NumericSlot, SpaceRow
from rag.embedding.hashing import HashRuntime
from rag.profiles import Profiles
from rag.store.conditions import NUMBER_SLOTS
from rag.store.memory import MemoryStore
from tenants.events import EventLog, emit
from tenants.identity.keys import KeyRing, make_secret
from tenants.tables import ApiKey
from tests.postgresql import server
from tests.support import FakeScope
from tests.world import TENANTS, World, text_of

AT_ONCE = 8


def _together(work: Callable[[int], Any]) -> list[Any]:
    """`work` of each number, begun at the same moment."""
    start = threading.Barrier(AT_ONCE)

    def begin(number: int) -> Any:
        start.wait(20)
        return work(number)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(begin, range(AT_ONCE)))


@pytest.fixture
def world(database: Database, tmp_path: Path) -> Iterator[World]:
    world = World(database, MemoryStore(), tmp_path)
    yield world
    world.close()


def test_first_submissions_under_one_name_become_versions_of_one_document(world: World) -> None:
    name, other = TENANTS
    for round_ in range(4):
        documents = _together(lambda n, key=f"doc-{round_}": world.bring(name, key, text_of(name, n, 1)))  # type: ignore[misc]
        assert len(set(documents)) == 1
    rows = world.all(name, Document)
    assert [row.last_number for row in rows] == [AT_ONCE] * 4
    for row in rows:
        versions = [version for version in world.all(name, DocumentVersion) if version.document_id == row.id]
        assert sorted(version.number for version in versions) == [*range(1, AT_ONCE + 1)]
    assert len(world.all(name, Job)) == 4 * AT_ONCE
    assert world.files() == {version.content_blob for version in world.all(name, DocumentVersion)}
    assert world.all(other, Document) == []


def test_the_same_submission_at_once_is_one_version(world: World) -> None:
    name = TENANTS[0]
    assert len(set(_together(lambda _: world.bring(name, "doc", text_of(name, 1, 1))))) == 1
    assert len(world.all(name, DocumentVersion)) == len(world.all(name, Job)) == 1
    assert world.files() == {version.content_blob for version in world.all(name, DocumentVersion)}


def test_documents_that_bring_new_numbers_at_once_get_a_slot_each(world: World) -> None:
    name = TENANTS[0]
    world.bring(name, "doc", text_of(name, 1, 1))
    [collection] = world.all(name, Collection)
    tenant_id = world.contexts[name].tenant_id

    def claim(number: int) -> None:
        with world.database.write(world.contexts[name]) as session:
            claim_slots(session, DocumentVersion(tenant_id=tenant_id, attributes={f"k{number}": number}), collection.id)

    _together(claim)
    slots = {row.slot: row.key for row in world.all(name, NumericSlot)}
    assert len(slots) == min(NUMBER_SLOTS, AT_ONCE)
    assert len(set(slots.values())) == len(slots)
    assert world.all(TENANTS[1], NumericSlot) == []


@pytest.mark.parametrize("attributes", [{}, {"floor": 3}])
def test_what_is_brought_into_a_collection_that_goes_is_refused(
    world: World, monkeypatch: pytest.MonkeyPatch, attributes: dict[str, Any]
) -> None:
    name, other = TENANTS
    collections, removal = world.documents.collections, Removal(world.database, world.documents.collections)
    for each in TENANTS:
        collections.for_tenant(world.contexts[each]).create("papers")
    put = world.blobs.put

    def meanwhile(owner: str, content: bytes) -> str:
        removal.remove(world.contexts[name], "papers")
        return put(owner, content)

    with monkeypatch.context() as race:
        race.setattr(world.blobs, "put", meanwhile)
        with pytest.raises(NotFound):
            world.bring(name, "doc", text_of(name, 1, 1), collection="papers", attributes=attributes)
    assert (world.files(), world.all(name, Document), world.all(name, Job)) == (set(), [], [])
    world.bring(other, "doc", text_of(other, 1, 1), collection="papers", attributes=attributes)


def test_one_of_several_who_delete_a_collection_does_it(world: World) -> None:
    name, other = TENANTS
    collections, removal = world.documents.collections, Removal(world.database, world.documents.collections)
    for each in TENANTS:
        collections.for_tenant(world.contexts[each]).create("papers")

    def remove(_: int) -> str:
        try:
            return removal.remove(world.contexts[name], "papers").name
        except NotFound:
            return "not found"

    found = _together(remove)
    assert sorted(found) == ["not found"] * (AT_ONCE - 1) + ["papers"]
    assert world.all(name, Collection) == []
    assert [row.name for row in world.all(other, Collection)] == ["papers"]


def test_processes_that_start_together_make_the_space_and_the_operators_key_once(database: Database) -> None:
    secret = make_secret("key_operator")
    runtime = HashRuntime()
    profiles = Profiles(BUILT_IN, runtime)

    def start(_: int) -> None:
        Collections(database, system_clock, runtime.fingerprint, profiles).register_space()
        KeyRing(database, system_clock).ensure_operator(secret)

    _together(start)
    with database.system_read() as session:
        assert len(session.scalars(select(SpaceRow)).all()) == len(session.scalars(select(ApiKey)).all()) == 1


def _job(database: Database, tenant: str) -> None:
    with database.write(FakeScope(tenant)) as session:
        common = {"kind": "ingest", "collection_id": "c", "document_id": "d", "created_at": 0, "updated_at": 0}
        session.add(Job(id=f"job_{tenant}", tenant_id=tenant, **common))


def test_a_reader_of_events_passes_none_over_and_writers_never_lock_each_other_out(database: Database) -> None:
    """Half of the writers hold their row early, half touch it only at the commit, where they also take their turn."""
    for tenant in "ab":
        _job(database, tenant)
    done, seen = threading.Event(), []

    def write(number: int) -> None:
        tenant = "ab"[number % 2]
        for turn in range(12):
            with database.write(FakeScope(tenant)) as session:
                emit(session, system_clock, tenant, "job.seen", f"{number}:{turn}")
                job = session.get_one(Job, f"job_{tenant}")
                job.chunks_done = turn * 100 + number
                if number < AT_ONCE // 2:
                    session.flush()

    def read() -> None:
        last, log = None, EventLog(database, system_clock).for_tenant(FakeScope("a"))
        while True:
            ending = done.is_set()
            rows, _ = log.list(after=last, limit=100)
            seen.extend(rows)
            last = rows[-1].id if rows else last
            if ending and not rows:
                return

    with ThreadPoolExecutor(1) as pool:
        reader = pool.submit(read)
        try:
            _together(write)
        finally:
            done.set()
        reader.result(60)
    assert len(seen) == len({event.subject for event in seen}) == 12 * AT_ONCE // 2
    assert {event.tenant_id for event in seen} == {"a"}


class TestLostConnections:
    """On PostgreSQL a commit can be done and its answer lost."""

    @pytest.fixture
    def sql_url(self) -> Iterator[str]:
        with server().database() as url:
            yield url

    def _submit(self, world: World, record: Callable[[Session, Submitted], None]) -> None:
        content = text_of(TENANTS[0], 1, 1).encode()
        world.of(TENANTS[0]).submit(Submission(content, external_id="doc", media_type="text/plain"), record=record)

    def test_what_was_refused_leaves_no_content(self, world: World) -> None:
        def refuse(_session: Session, _submitted: Submitted) -> None:
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            self._submit(world, refuse)
        assert world.files() == set()

    def test_a_commit_whose_answer_was_lost_keeps_its_content(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        dialect = world.database.engine.dialect
        commit = dialect.do_commit

        def lose(connection: Any) -> None:
            commit(connection)
            raw = connection.dbapi_connection
            server().run(f"SELECT pg_terminate_backend({raw.info.backend_pid})")
            raw.execute("SELECT 1")

        def record(_session: Session, _submitted: Submitted) -> None:
            monkeypatch.setattr(dialect, "do_commit", lose)

        with pytest.raises(OperationalError):
            self._submit(world, record)
        monkeypatch.undo()
        [version] = world.all(TENANTS[0], DocumentVersion)
        assert world.files() == {version.content_blob}
        world.reconciler.check(repair=True)  # the durable queue's entry came with the commit; the one in memory did not
        world.run_jobs()
        assert world.answer(TENANTS[0])

    def test_what_a_lost_connection_left_is_deleted_by_a_repair(self, world: World) -> None:
        def lose(session: Session, _submitted: Submitted) -> None:
            pid = session.connection().exec_driver_sql("SELECT pg_backend_pid()").scalar()
            server().run(f"SELECT pg_terminate_backend({pid})")

        with pytest.raises(OperationalError):
            self._submit(world, lose)
        assert world.all(TENANTS[0], DocumentVersion) == []
        assert len(world.files()) == 1
        world.queue.waiting.clear()
        world.age()
        assert {finding.kind for finding in world.reconciler.check(repair=True).findings} == {"blob_without_version"}
        assert world.files() == set()
