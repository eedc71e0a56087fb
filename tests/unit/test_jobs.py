"""Jobs as their tenant sees them: who sees which, and how cancelling and retrying decide their end."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session
from sqlmodel import col, select

from config.database import Database
from config.errors import InvalidInput, NotFound, Unavailable
from config.ids import new_id
from ingestion.jobs.jobs import Jobs, TenantJobs, Wanted
from ingestion.jobs.tables import Job
from ingestion.queue.workflow import MemoryQueue
from rag.corpus import Collection, Document, DocumentVersion, SpaceRow
from tenants.context import Principal, PrincipalKind, TenantContext
from tenants.tables import Event
from tests.unit.conftest import NOON, SetClock

A, B = (TenantContext(name, b"salt", Principal(PrincipalKind.KEY, f"key-{name}", frozenset())) for name in "ab")


@dataclass
class Room:
    """Jobs of two tenants, on rows that are written as the pipeline writes them."""

    database: Database
    clock: SetClock
    queue: MemoryQueue

    def of(self, context: TenantContext, **bounds: Any) -> TenantJobs:
        given = {name: frozenset(values) for name, values in bounds.items()}
        return Jobs(self.database, self.clock, self.queue).for_tenant(replace(context, **given))

    def document(self, context: TenantContext = A, *versions: tuple[str, list[str]], collection: str = "default") -> str:
        """A document whose versions have these states and labels, each with its job; return its id."""
        now, tenant = self.clock(), context.tenant_id
        document_id = new_id("doc")
        with self.database.write(context) as session:
            found = session.scalars(select(Collection).where(col(Collection.name) == collection)).first()
            found = found or Collection(id=new_id("col"), tenant_id=tenant, name=collection, space_id="sp", created_at=now)
            session.add(found)
            session.flush()
            live = max((number for number, (state, _) in enumerate(versions, 1) if state == "live"), default=0)
            common = {"tenant_id": tenant, "created_at": now}
            document = Document(id=document_id, collection_id=found.id, external_id=document_id, **common)
            document.live_number, document.last_number = live, len(versions)
            session.add(document)
            session.flush()
            for number, (state, labels) in enumerate(versions, 1):
                session.add(
                    DocumentVersion(
                        id=f"{document_id}-{number}", document_id=document_id, number=number, state=state, labels=labels,
                        digest="d", title="t", media_type="text/plain", attributes={}, chunking={},
                        bytes=1, content_blob="b", **common,
                    )
                )  # fmt: skip
                ended = {"live": "succeeded", "superseded": "succeeded", "queued": "running"}.get(state, state)
                job = Job(id=f"{document_id}-job-{number}", kind="ingest", collection_id=found.id, document_id=document_id,
                          version_id=f"{document_id}-{number}", state=ended, updated_at=now, **common)  # fmt: skip
                job.stage = "embedding" if state == "queued" else "done"
                session.add(job)
        return document_id

    def job(self, context: TenantContext = A, state: str = "queued", **options: Any) -> str:
        return f"{self.document(context, (state, []), **options)}-job-1"

    def change(self, table: type[Any], key: str, **values: Any) -> None:
        with self.database.write(A) as session:
            row = session.get_one(table, key)
            for name, value in values.items():
                setattr(row, name, value)
            session.add(row)

    def version(self, job_id: str) -> DocumentVersion:
        with self.database.read(A) as session:
            return session.get_one(DocumentVersion, job_id.replace("-job", ""))

    def events(self) -> list[tuple[str, str]]:
        with self.database.read(A) as session:
            return [(row.type, row.subject) for row in session.scalars(select(Event).order_by(col(Event.seq)))]


@pytest.fixture
def room(database: Database, clock: SetClock) -> Room:
    with database.system_write() as session:
        session.add(SpaceRow(id="sp", dimensions=1, description={}, created_at=0))
    return Room(database, clock, MemoryQueue())


def _listed(handle: TenantJobs, **options: Any) -> list[str]:
    """All pages of a list, each with at most two jobs."""
    found: list[str] = []
    after = None
    while True:
        page, after = handle.list(Wanted(**options), after=after, limit=2)
        assert len(page) == 2 or after is None, "a hidden job left a gap"
        found += [job.id for job in page]
        if after is None:
            return found
        assert after == page[-1].id


CALLS: dict[str, Callable[[TenantJobs, str], object]] = {
    "get": TenantJobs.get,
    "cancel": TenantJobs.cancel,
    "retry": TenantJobs.retry,
}


@pytest.mark.parametrize("call", CALLS)
def test_a_foreign_job_is_missing(room: Room, call: str) -> None:
    job = room.job(A)
    for context, wanted in ((B, job), (A, job[:-1] + "9")):
        with pytest.raises(NotFound, match=r"There is no such job\.$"):
            CALLS[call](room.of(context), wanted)
    assert room.of(B).row(job) is None
    assert room.version(job).state == "queued"
    assert room.queue.waiting == type(room.queue.waiting)()


@pytest.mark.parametrize("call", ["cancel", "retry"])
def test_a_job_that_goes_with_its_collection_while_its_document_is_waited_for_is_missing(
    room: Room, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, others, seen = room.job(state="failed"), room.job(B, "failed"), TenantJobs._seen

    def meanwhile(self: TenantJobs, session: Session, job_id: str) -> Job:
        found = seen(self, session, job_id)
        session.execute(sa.delete(Job).where(col(Job.id) == job_id))
        return found

    monkeypatch.setattr(TenantJobs, "_seen", meanwhile)
    with pytest.raises(NotFound):
        getattr(room.of(A), call)(mine)
    monkeypatch.undo()
    assert room.of(B).get(others).state == "failed"


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("bounds", [{"collections": ["other"]}, {"labels": ["blue"]}, {"labels": []}], ids=str)
def test_a_job_outside_a_keys_bounds_is_missing(room: Room, call: str, bounds: dict[str, list[str]]) -> None:
    job = f"{room.document(A, ('queued', ['red']))}-job-1"
    with pytest.raises(NotFound):
        CALLS[call](room.of(A, **bounds), job)
    assert room.of(A, collections=["default"], labels=["red", "blue"]).get(job).id == job


def test_a_list_shows_own_jobs_newest_first_and_in_whole_pages(room: Room) -> None:
    own = [room.job(A) for _ in range(5)]
    room.job(B)
    assert sorted(_listed(room.of(A))) == sorted(own)
    assert _listed(room.of(A)) == sorted(own, reverse=True)


def test_a_list_hides_what_the_keys_bounds_hide_without_a_trace(room: Room) -> None:
    red = [f"{room.document(A, ('live', ['red']))}-job-1" for _ in range(3)]
    open_ = [room.job(A, "live") for _ in range(3)]
    elsewhere = room.job(A, "live", collection="minutes")
    for _ in range(3):
        room.document(A, ("live", ["blue"]))
    assert set(_listed(room.of(A, labels=["red"]))) == {*red, *open_, elsewhere}
    assert set(_listed(room.of(A, labels=[]))) == {*open_, elsewhere}
    assert set(_listed(room.of(A, labels=["red"], collections=["minutes"]))) == {elsewhere}
    assert room.of(A, labels=[], collections=["default"]).list(limit=3)[1] is None, "a cursor told of hidden jobs"


def test_every_label_of_the_live_and_of_the_newest_version_is_needed(room: Room) -> None:
    shown = room.document(A, ("superseded", ["blue"]), ("live", ["red"]), ("queued", ["green"]))
    both = room.document(A, ("live", ["red", "blue"]))
    assert set(_listed(room.of(A, labels=["red", "green"]))) == {f"{shown}-job-{number}" for number in (1, 2, 3)}
    assert _listed(room.of(A, labels=["red"])) == []
    assert _listed(room.of(A, labels=["red", "blue"])) == [f"{both}-job-1"]


def test_of_a_purged_document_only_keys_without_labels_see_the_jobs(room: Room) -> None:
    job = room.job(A, "live")
    with room.database.write(A) as session:
        for table in (DocumentVersion, Document):
            for row in session.scalars(select(table)):
                session.delete(row)
            session.flush()
    assert _listed(room.of(A)) == [job]
    assert _listed(room.of(A, labels=["red"])) == []


def test_a_list_is_narrowed_by_collection_and_state(room: Room) -> None:
    queued, failed = room.job(A), room.job(A, "failed")
    minutes = room.job(A, "failed", collection="minutes")
    assert set(_listed(room.of(A), state="failed")) == {failed, minutes}
    assert set(_listed(room.of(A), collection="default")) == {queued, failed}
    assert _listed(room.of(A), collection="minutes", state="failed") == [minutes]
    for handle, name in ((room.of(A), "none"), (room.of(B), "minutes"), (room.of(A, collections=["default"]), "minutes")):
        with pytest.raises(NotFound, match=f"There is no collection '{name}'"):
            handle.list(Wanted(collection=name), limit=2)


@pytest.mark.parametrize("state", ["queued", "running"])
def test_cancelling_ends_job_and_version_in_one_transaction(room: Room, state: str) -> None:
    job_id = room.job(A)
    room.change(Job, job_id, state=state)
    room.clock.now += 5
    job = room.of(A).cancel(job_id)
    assert (job.state, job.stage, job.updated_at, job.finished_at) == ("cancelled", "collecting", NOON + 5, None)
    assert room.of(A).get(job_id) == job
    version = room.version(job_id)
    assert (version.state, version.ended_at) == ("cancelled", NOON + 5)
    assert room.events() == [("job.cancelled", job_id), ("document.cancelled", job.document_id)]
    assert room.of(A).cancel(job_id) == job
    assert len(room.events()) == 2


@pytest.mark.parametrize("state", ["live", "failed", "superseded"])
def test_what_has_ended_is_not_cancelled(room: Room, state: str) -> None:
    job_id = room.job(A, state)
    before = room.of(A).get(job_id)
    assert room.of(A).cancel(job_id) == before
    assert room.version(job_id).state == state
    assert room.events() == []


def test_a_version_that_became_live_first_stays_live(room: Room) -> None:
    """Between the switch and the end of its job."""
    job_id = room.job(A, "live")
    room.change(Job, job_id, state="running", stage="embedding")
    assert room.of(A).cancel(job_id).state == "running"
    assert room.version(job_id).state == "live"


def test_a_delete_is_neither_cancelled_nor_retried(room: Room) -> None:
    job_id = room.job(A, "failed")
    room.change(Job, job_id, kind="delete", state="running")
    for call in (room.of(A).cancel, room.of(A).retry):
        with pytest.raises(InvalidInput, match="delete"):
            call(job_id)
    assert room.events() == []


@pytest.mark.parametrize("state", ["failed", "cancelled"])
def test_a_retry_is_a_new_job_for_the_same_version(room: Room, state: str) -> None:
    job_id = room.job(A, state)
    room.change(DocumentVersion, room.version(job_id).id, parser_deaths=2, read_starts=10, ended_at=NOON)
    again = room.of(A).retry(job_id)
    assert (again.state, again.stage, again.retry_of) == ("queued", "waiting", job_id)
    assert [*room.queue.waiting] == [("a", again.id)]
    version = room.version(job_id)
    assert (version.state, version.ended_at, version.parser_deaths, version.read_starts) == ("queued", None, 0, 0)
    assert again.version_id == version.id
    assert room.of(A).get(job_id).state == state
    assert room.events() == [("job.queued", again.id)]


def test_retrying_twice_gives_one_job_and_a_retry_can_be_retried(room: Room) -> None:
    job_id = room.job(A, "failed")
    with ThreadPoolExecutor(8) as pool:
        answers = {job.id for job in pool.map(lambda _: room.of(A).retry(job_id), range(16))}
    assert len(answers) == len(room.queue.waiting) == 1
    (again,) = answers
    room.change(Job, again, state="failed", stage="done")
    room.change(DocumentVersion, room.version(job_id).id, state="failed")
    third = room.of(A).retry(again)
    assert third.retry_of == again
    assert room.of(A).retry(job_id).id == again


def test_cancelling_and_retrying_at_once_leave_job_and_version_in_agreement(room: Room) -> None:
    job_id = room.job(A)

    def call(number: int) -> None:
        handle = room.of(A)
        if number % 2:
            handle.cancel(job_id)
        else:
            with pytest.raises((InvalidInput, Unavailable)):
                handle.retry(job_id)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(call, range(16)))
    assert room.version(job_id).state == room.of(A).get(job_id).state == "cancelled"
    assert not room.queue.waiting


def _newer(room: Room, job_id: str) -> None:
    document = room.of(A).get(job_id).document_id
    room.change(Document, document, last_number=2)


REFUSED: dict[str, tuple[Callable[[Room, str], None], str]] = {
    "running": (lambda room, job: room.change(Job, job, state="running"), "this one is running"),
    "succeeded": (lambda room, job: room.change(Job, job, state="succeeded"), "this one is succeeded"),
    "newer": (_newer, "newer version"),
    "gone": (lambda room, job: room.change(DocumentVersion, room.version(job).id, content_blob=""), "bring the document"),
    "deleted": (lambda room, job: room.change(Document, room.of(A).get(job).document_id, deleted_at=1), "was deleted"),
}


@pytest.mark.parametrize("why", REFUSED)
def test_a_retry_that_cannot_be_is_refused_with_its_reason(room: Room, why: str) -> None:
    job_id, (change, reason) = room.job(A, "failed"), REFUSED[why]
    change(room, job_id)
    with pytest.raises(InvalidInput, match=reason):
        room.of(A).retry(job_id)
    assert not room.queue.waiting
    assert room.version(job_id).state == "failed"


def test_a_cancelled_job_can_be_retried_once_its_worker_has_let_go(room: Room) -> None:
    job_id = room.job(A)
    room.of(A).cancel(job_id)
    with pytest.raises(Unavailable) as refused:
        room.of(A).retry(job_id)
    assert refused.value.retry_after_s == 1
    room.change(Job, job_id, stage="done", finished_at=NOON)
    assert room.of(A).retry(job_id).retry_of == job_id
