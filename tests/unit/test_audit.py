"""Appending to the audit record, sealing it, keeping it for so long, and reading it."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy import event as sql
from sqlmodel import select

from config.database import Database
from tenants.audit import record as audit
from tenants.audit.archive import CheckpointArchive
from tenants.audit.record import Wanted
from tenants.audit.sealer import DAY_MS, UNANSWERED_MS, Sealer
from tenants.audit.tables import AuditHour, AuditIntent
from tests.audit_record import CHECKPOINTS, ENTRIES, SIGNER, Record, event
from tests.postgresql import server
from tests.support import FakeScope
from tests.unit.conftest import SetClock


@pytest.fixture
def record(database: Database, clock: SetClock, tmp_path: Path) -> Record:
    return Record(database, clock, CheckpointArchive(tmp_path / "archive"))


def test_an_append_is_one_insert_and_nothing_else(record: Record) -> None:
    record.fill("a", 3)
    seen: list[str] = []
    sql.listen(record.database.engine, "before_cursor_execute", lambda *args: seen.append(args[2]))
    record.log.append(event("a"))
    assert [statement.split()[0] for statement in seen if "set_config" not in statement and "BEGIN" not in statement] == [
        "INSERT"
    ]


def test_writers_of_one_tenant_wait_neither_for_each_other_nor_for_the_sealer(clock: SetClock) -> None:
    """All 32 have appended before the first of them commits, and the sealer seals in between: a chain that was written
    with the entries would let in one at a time, and the barrier would break. SQLite has one writer, whoever it is."""
    with server().database() as url:
        database = Database(url)
        record, together = Record(database, clock), threading.Barrier(33)
        record.log.append(event("a", 100))

        def write(number: int) -> None:
            with database.write(FakeScope("a")) as session:
                record.log.add(session, event("a", number))
                session.flush()
                together.wait(30)
                together.wait(30)

        with ThreadPoolExecutor(32) as pool:
            writers = [pool.submit(write, number) for number in range(32)]
            together.wait(30)
            sealed = record.sealer.run_once()
            together.wait(30)
            for writer in writers:
                writer.result()
        assert sealed == 1
        assert record.sealer.run_once() == 32
        report = record.verified()
        assert report.sound
        assert report.entries == 33
        database.close()


def test_two_sealers_that_meet_give_each_place_once(record: Record, clock: SetClock) -> None:
    record.fill("a", 2)
    for number in range(60):
        record.log.append(event("a" if number % 3 else "b", number))
    second = Sealer(record.database, clock, SIGNER, None, keep_days=30)
    with ThreadPoolExecutor(2) as pool:
        sealed = sum(pool.map(lambda sealer: sealer.run_once(), (record.sealer, second)))
    sealed += record.sealer.run_once()
    assert sealed == 60
    assert (record.verified("a").entries, record.verified("b").entries) == (42, 20)
    assert record.verified("a").sound
    assert record.verified("b").sound


# --- crashes

DIES = """
import os, signal, sys
from config.clock import system_clock
from config.database import Database
from tests.audit_record import event
from tenants.audit.record import AuditLog
log = AuditLog(Database(sys.argv[1]), system_clock)
log.begin(event("a", 7, action="POST /v1/collections"))
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_process_that_is_killed_within_a_change_leaves_its_entry(record: Record, clock: SetClock) -> None:
    url = record.database.engine.url.render_as_string(hide_password=False)
    done = subprocess.run([sys.executable, "-c", DIES, url], check=False, capture_output=True, text=True)
    assert done.returncode == -9, done.stderr
    with record.database.system_read() as session:
        begun = session.scalars(select(AuditIntent)).one()
    clock.now = begun.at + UNANSWERED_MS
    record.sealer.run_once()
    assert record.log.of("a") == []  # it may still be running
    clock.now += 1
    record.sealer.run_once()
    [entry] = record.log.of("a")
    assert (entry.action, entry.principal_id, entry.request_id) == ("POST /v1/collections", "key_x", "req-7")
    assert (entry.status, entry.detail, entry.position) == (0, {"outcome": "unknown"}, 1)
    assert record.verified().sound
    record.sealer.run_once()
    assert len(record.log.of("a")) == 1
    assert record.log.of("b") == []


def test_a_request_that_is_answered_leaves_one_entry(record: Record, clock: SetClock) -> None:
    for tenant_id in ("a", None):
        record.log.append(event(tenant_id), intent=record.log.begin(event(tenant_id, status=0)))
    clock.now += 2 * UNANSWERED_MS
    record.sealer.run_once()
    assert [entry.status for entry in (*record.log.of("a"), *record.log.of(None))] == [200, 200]
    with record.database.system_read() as session:
        assert session.scalars(select(AuditIntent)).all() == []


# --- retention


def test_what_remains_after_a_purge_is_verifiable(record: Record, clock: SetClock) -> None:
    record.fill("a", 300)
    record.fill("b", 3)
    clock.now += 20 * DAY_MS
    record.fill("a", 10, first=300)
    clock.now += 15 * DAY_MS
    assert record.sealer.purge() == 303
    report = record.verified()
    assert report.sound, report.findings
    assert (report.after, report.entries, report.through) == (300, 10, 310)
    gone = record.verified("b")
    assert gone.sound
    assert (gone.after, gone.entries) == (3, 0)
    record.fill("b", 2)
    record.fill("a", 5, first=310)
    assert (record.verified("a").through, record.verified("b").through) == (315, 5)
    clock.now += 40 * DAY_MS
    record.sealer.purge()
    assert record.verified("a").sound
    assert (record.verified("a").after, record.verified("a").entries) == (315, 0)
    assert record.sealer.purge() == 0


def test_a_cut_that_nobody_signed_does_not_hide_what_was_removed(record: Record) -> None:
    for first in (0, 10):
        record.fill("a", 10, first)
    first_ten = sa.and_(ENTRIES.c.tenant_id == "a", ENTRIES.c.position <= 10)
    cut = sa.update(CHECKPOINTS).where(CHECKPOINTS.c.chain == "a", CHECKPOINTS.c.first == 1).values(first=0)
    record.change(sa.delete(ENTRIES).where(first_ten), cut)
    found = record.verified().findings
    assert ("checkpoint", 1, 10) in [(one.kind, one.first, one.last) for one in found]


def test_a_purge_that_died_halfway_is_finished_by_the_next(
    record: Record, clock: SetClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    record.fill("a", 600)
    clock.now += 31 * DAY_MS
    monkeypatch.setattr("tenants.audit.sealer.PURGE_PAGES", 1)
    assert record.sealer.purge() == 250
    report = record.verified()
    assert report.sound, report.findings
    assert report.after == 600
    monkeypatch.undo()
    assert record.sealer.purge() == 350
    assert record.verified().sound


def test_a_checkpoint_reaches_the_archive_whoever_died_before(record: Record, clock: SetClock, tmp_path: Path) -> None:
    plain, folder = Record(record.database, clock), tmp_path / "archive"
    plain.fill("a", 3)
    plain.fill("b", 1)
    assert not folder.exists()
    record.fill("a", 3)
    archive = CheckpointArchive(folder)
    assert ([one.last for one in archive.read("a")], [one.last for one in archive.read("b")]) == ([3, 6], [1])
    with (folder / "a.ndjson").open("ab") as file:
        file.write(b'{"chain": "a", "first": 7, "la')  # a process died here
    record.fill("a", 2)
    assert [one.last for one in archive.read("a")] == [3, 6, 8]
    assert record.verified().sound
    assert archive.through("c") == 0


# --- reading


def test_a_list_shows_a_tenants_own_entries_newest_first_and_by_what_is_asked(record: Record, clock: SetClock) -> None:
    began = clock.now
    record.fill("a", 30)
    record.fill("b", 3)
    record.log.append(event("a", 50, status=403, action="DELETE /v1/documents/{document_id}"))
    assert {entry.detail["passages"][0] for entry in record.log.of("a", limit=2)} == {"p50", "p29"}
    wanted = {
        Wanted(decision="denied"): 1,
        Wanted(action="POST /v1/query"): 30,
        Wanted(principal="key_x"): 31,
        Wanted(principal="key_y"): 0,
        Wanted(target="/v1/x/2"): 11,  # 2 and 20 to 29
        Wanted(since=began + 11, until=began + 21): 10,
        Wanted(since=clock.now + 1): 0,
    }
    for each, count in wanted.items():
        assert len(record.log.page("a", each)[0]) == count, each
    assert len(record.log.of("b")) == 3


def test_a_filtered_page_goes_through_so_many_entries_and_says_where_to_go_on(
    record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "LOOKED_AT", 10)
    record.log.append(event("a", 1, status=403))
    record.fill("a", 35)
    for wanted, expected, least in ((Wanted(decision="denied"), 1, 3), (Wanted(), 36, 9), (Wanted(decision="allowed"), 35, 9)):
        found, after, pages = [], None, 0
        while pages == 0 or after is not None:
            rows, after = record.log.page("a", wanted, after=after, limit=4)
            found, pages = [*found, *rows], pages + 1
        assert len({row.id for row in found}) == len(found) == expected
        assert pages >= least


def test_sealing_counts_each_entry_once_in_its_hour(record: Record, clock: SetClock) -> None:
    record.fill("a", 5)
    clock.now += 3_600_000
    for status in (403, 500, 0, 200):
        record.log.append(event("a", status=status, action="POST /v1/documents"))
    record.fill(None, 2)
    record.sealer.run_once()
    with record.database.system_read() as session:
        rows = sorted(session.scalars(select(AuditHour)).all(), key=lambda row: row.hour)
    assert [(row.tenant_id, row.requests, row.queries, row.denied, row.failed) for row in rows] == [
        ("a", 5, 5, 0, 0),
        ("a", 4, 0, 1, 2),
    ]
