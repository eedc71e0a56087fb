"""The whole service on PostgreSQL, where the setting of its URL is all that changes for users."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import sqlalchemy as sa

from carrel_client import APIError, Carrel
from config.clock import system_clock
from config.database import Database
from ingestion.jobs.tables import Job
from tenants.audit.record import AuditLog
from tenants.registry import TenantRegistry
from tests.postgresql import server
from tests.support import FakeScope, Service, carrel, environment, start_service, wait_for


class Stand:
    """A service on a database that had not a single table when it started."""

    def __init__(self, folder: Path, url: str) -> None:
        self.env = environment(folder / "data", embedding_runtime="hash", database_url=url, hold_lease_seconds=5)
        self.folder, self.database = folder, Database(url, pool_size=2)
        self.service: Service = start_service(folder / "data", self.env)

    def restart(self) -> None:
        self.service.stop()
        self.service = start_service(self.folder / "data", self.env)

    def scope(self, name: str) -> FakeScope:
        return FakeScope(TenantRegistry(self.database, system_clock).get(name).id)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    with server().database(empty=True) as url:
        stand = Stand(tmp_path_factory.mktemp("postgresql"), url)
        yield stand
        stand.service.stop()
        stand.database.close()


@pytest.fixture
def stand(running: Stand) -> Iterator[Stand]:
    yield running
    running.service.close_clients()


def _text(name: str, number: int, boards: int = 3) -> str:
    return "\n\n".join(f"Shelf board {board}: " + f"oak {name} w{number} " * 12 for board in range(boards))


def _bring(client: Carrel, name: str, numbers: range) -> None:
    brought = [client.documents.create(text=_text(name, number), external_id=f"doc-{number}") for number in numbers]
    for one in brought:
        one.wait(timeout_s=60)


def _found(client: Carrel) -> list[tuple[str, int, int, str]]:
    return sorted((p.external_id, p.start, p.end, p.text) for p in client.query("oak shelf", top_k=50).passages)


@contextmanager
def _worker_stopped(service: Service) -> Iterator[None]:
    """Jobs stay queued meanwhile."""
    worker = wait_for(lambda: service.child("worker"), what="a worker")
    os.kill(worker, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(worker, signal.SIGCONT)


def test_documents_are_brought_found_replaced_and_deleted_by_their_tenant_alone(stand: Stand) -> None:
    (one, mine), (other, theirs) = stand.service.tenant(), stand.service.tenant()
    _bring(mine, one, range(3))
    _bring(theirs, other, range(2))
    assert {passage[0] for passage in _found(mine)} == {"doc-0", "doc-1", "doc-2"}
    assert all(passage[3] in _text(one, int(passage[0][-1])) for passage in _found(mine))
    assert {passage[0] for passage in _found(theirs)} == {"doc-0", "doc-1"}
    documents = {document.external_id: document for document in mine.documents.list()}
    for foreign in (theirs.documents.get, theirs.documents.text, theirs.documents.delete):
        with pytest.raises(APIError) as refused:
            foreign(documents["doc-0"].id)
        assert refused.value.status == 404
    mine.documents.create(text=_text(one, 9), external_id="doc-1").wait()
    mine.jobs.wait(mine.documents.delete(documents["doc-0"].id).id)
    found = _found(mine)
    assert {passage[0] for passage in found} == {"doc-1", "doc-2"}
    assert all(passage[3] in _text(one, {"doc-1": 9, "doc-2": 2}[passage[0]]) for passage in found)
    assert mine.usage().used > 0
    assert mine.usage().held == 0


def test_events_follow_one_another_and_the_record_names_who_did_what(stand: Stand) -> None:
    (one, mine), (other, theirs) = stand.service.tenant(), stand.service.tenant()
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda pair: _bring(pair[1], pair[0], range(4)), [(one, mine), (other, theirs)]))
    with stand.service.admin as admin:
        admin.admin.tenants.update(one, monthly_tokens=10**6)
        key = next(iter(admin.admin.keys.list(tenant=one)))
        admin.admin.keys.revoke(key.id)
    with pytest.raises(APIError):
        mine.usage()
    fresh = stand.service.client(stand.service.key(one))
    events = [*fresh.events.list()]
    for subject in {event.subject for event in events if event.type.startswith("document.")}:
        kinds = [event.type for event in events if event.subject == subject]
        assert kinds[0] == "document.queued", kinds
    assert {event.type for event in events} >= {"tenant.created", "budget.changed", "key.revoked", "job.queued"}
    foreign = {event.id for event in theirs.events.list()}
    assert foreign
    assert foreign.isdisjoint(event.id for event in events)
    entries = AuditLog(stand.database, system_clock).of(stand.scope(one).tenant_id)
    assert sum((entry.action, entry.status) == ("POST /v1/documents", 202) for entry in entries) == 4


def test_a_waiting_job_is_cancelled_and_never_found(stand: Stand) -> None:
    one, mine = stand.service.tenant()
    with _worker_stopped(stand.service):
        submitted = mine.documents.create(text=_text(one, 1), external_id="doc-1")
        assert submitted.job is not None
        assert mine.jobs.cancel(submitted.job.id).state == "cancelled"
        assert [job.state for job in mine.jobs.list()] == ["cancelled"]
    job_id = submitted.job.id
    wait_for(lambda: mine.jobs.get(job_id).stage == "done", what="the cancelled job's remains to be removed")
    assert mine.documents.get(submitted.document.id).state == "cancelled"
    assert _found(mine) == []


def test_requests_that_come_again_have_one_effect(stand: Stand) -> None:
    one, mine = stand.service.tenant()

    def create(_: int) -> str:
        return mine.documents.create(text=_text(one, 1), external_id="doc", idempotency_key="the-same").document.id

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(create, range(16)))) == 1
    assert len([*mine.documents.list()]) == 1
    with stand.database.read(stand.scope(one)) as session:
        assert session.scalar(sa.select(sa.func.count()).select_from(Job)) == 1


@pytest.mark.full
def test_a_restart_and_a_killed_worker_lose_and_double_nothing(stand: Stand) -> None:
    names = [stand.service.tenant()[0] for _ in range(2)]
    keys = {name: stand.service.key(name) for name in names}
    for name in names:
        client = stand.service.client(keys[name])
        for number in range(6):
            client.documents.create(text=_text(name, number, 40), external_id=f"doc-{number}")
    stand.service.kill("worker")
    stand.restart()
    for name in names:
        client = stand.service.client(keys[name])
        for job in [*client.jobs.list()]:
            assert client.jobs.wait(job.id, timeout_s=60).state == "succeeded"
        passages = client.query("oak shelf", top_k=50).passages
        assert len(passages) == 50
        assert all(passage.text in _text(name, int(passage.external_id[-1]), 40) for passage in passages)
        assert len([*client.documents.list()]) == 6
        wait_for(lambda client=client: client.usage().held == 0, what="nothing to be held")  # type: ignore[misc]


@pytest.mark.full
def test_a_doctor_repairs_what_was_lost_and_finds_nothing_after_it(stand: Stand) -> None:
    one, mine = stand.service.tenant()
    _bring(mine, one, range(2))
    before, used = _found(mine), mine.usage().used
    with stand.database.write(stand.scope(one)) as session:
        session.connection().exec_driver_sql("UPDATE budget_windows SET used = used + 7")
        session.connection().exec_driver_sql("UPDATE documents SET live_number = 7")
    with _worker_stopped(stand.service):  # it would repair the same
        first = carrel("doctor", "--repair", "--json", env=stand.env)
    assert first.returncode == 0, first.stdout + first.stderr
    assert {"budget_window", "live_version"} <= {finding["kind"] for finding in json.loads(first.stdout)["findings"]}
    assert (mine.usage().used, _found(mine)) == (used, before)
    again = carrel("doctor", "--repair", "--json", env=stand.env)
    assert json.loads(again.stdout)["findings"] == []


def test_connections_that_the_database_dropped_are_replaced(stand: Stand) -> None:
    """What a restart of the database looks like from here."""
    one, mine = stand.service.tenant()
    _bring(mine, one, range(1))
    name = stand.database.engine.url.database
    server().run(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
    with suppress(APIError):  # a request that was under way
        mine.usage()
    assert len(_found(mine)) >= 1
    _bring(mine, one, range(1, 3))
    assert {passage[0] for passage in _found(mine)} == {"doc-0", "doc-1", "doc-2"}
