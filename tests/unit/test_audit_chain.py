"""The audit chain: whatever is done to sealed entries behind the service's back is found, and where."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

from config.database import Database
from config.ids import new_id
from tenants.audit.archive import CheckpointArchive
from tenants.audit.chain import FIELDS, link
from tests.audit_record import CHECKPOINTS, ENTRIES, OTHER, SIGNER, Record, event, verify
from tests.unit.conftest import SetClock

Rows = list[sa.Row[tuple[object, ...]]]


@pytest.fixture
def record(database: Database, clock: SetClock, tmp_path: Path) -> Record:
    return Record(database, clock, CheckpointArchive(tmp_path / "archive"))


def test_each_chain_is_sealed_and_verified_by_itself(record: Record) -> None:
    record.fill("a", 300)
    record.fill("b", 3)
    record.fill(None, 2)
    record.fill("a", 7, first=300)
    for tenant_id, count, checkpoints in (("a", 307, 3), ("b", 3, 1), (None, 2, 1)):
        report = record.verified(tenant_id)
        assert report.sound, report.findings
        assert (report.entries, report.through, report.checkpoints, report.unsealed) == (count, count, checkpoints, 0)
        assert report.chain == (tenant_id or "operator")
        assert all(f'"tenant_id": {json.dumps(tenant_id)}' in line for line in record.lines(tenant_id) if '"entry"' in line)
    assert record.sealer.run_once() == 0


def test_what_is_not_sealed_yet_is_named_as_such(record: Record) -> None:
    record.fill("a", 3)
    record.log.append(event("a", 4))
    report = record.verified()
    assert report.sound
    assert (report.entries, report.unsealed, report.through) == (3, 1, 3)


def test_chains_that_always_have_something_hold_up_no_other(record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tenants.audit.sealer.CHAINS", 1)
    for number in range(4):
        for tenant_id in ("a", "b", None):
            record.log.append(event(tenant_id, number))
        record.sealer.run_once()
    assert [len(record.rows(tenant_id)) >= 2 for tenant_id in ("a", "b", None)] == [True] * 3


# --- tampering. Each returns the positions that may be named, the first of which must be.

Tampering = Callable[[Record, int, int], tuple[set[int], set[str]]]
TAMPERINGS: dict[str, Tampering] = {}


def tampering(do: Tampering) -> Tampering:
    TAMPERINGS[do.__name__.strip("_")] = do
    return do


def _at(position: int) -> sa.ColumnElement[bool]:
    return sa.and_(ENTRIES.c.tenant_id == "a", ENTRIES.c.position == position)


@tampering
def _edit(record: Record, position: int, choice: int) -> tuple[set[int], set[str]]:
    values = [
        *({"at": 5}, {"request_id": "req-forged"}, {"principal_kind": "operator"}, {"principal_id": "key_y"}),
        *({"action": "GET /"}, {"target": "/"}, {"decision": "denied"}, {"status": 403}, {"detail": {"passages": []}}),
        {"id": new_id("aud")},
    ]
    record.change(sa.update(ENTRIES).where(_at(position)).values(values[choice % len(values)]))
    return {position}, {"changed"}


@tampering
def _hash(record: Record, position: int, _choice: int) -> tuple[set[int], set[str]]:
    record.change(sa.update(ENTRIES).where(_at(position)).values(hash=b"x" * 32))
    return {position, position + 1}, {"changed"}


@tampering
def _removal(record: Record, position: int, _choice: int) -> tuple[set[int], set[str]]:
    record.change(sa.delete(ENTRIES).where(_at(position)))
    return {position}, {"missing"}


@tampering
def _removal_and_closing_the_gap(record: Record, position: int, _choice: int) -> tuple[set[int], set[str]]:
    behind = sa.and_(ENTRIES.c.tenant_id == "a", ENTRIES.c.position > position)
    record.change(
        sa.delete(ENTRIES).where(_at(position)), sa.update(ENTRIES).where(behind).values(position=ENTRIES.c.position - 1)
    )
    return {position}, {"changed", "missing", "rewritten"}


@tampering
def _reorder(record: Record, position: int, choice: int) -> tuple[set[int], set[str]]:
    count = len(record.rows())
    other = 1 + (position + choice % (count - 1)) % count
    places = {position: other, other: position}
    moved = sa.case(places, value=ENTRIES.c.position)
    both = sa.and_(ENTRIES.c.tenant_id == "a", ENTRIES.c.position.in_([*places]))
    record.change(sa.update(ENTRIES).where(both).values(position=moved))
    return {position, other, position + 1, other + 1}, {"changed"}


@tampering
def _insertion(record: Record, position: int, _choice: int) -> tuple[set[int], set[str]]:
    values = {**record.rows()[position - 1]._mapping, "id": new_id("aud"), "principal_id": "key_forged"}
    record.change(sa.insert(ENTRIES).values(values))
    return {position, position + 1}, {"inserted", "changed"}


@tampering
def _insertion_that_moves_the_rest(record: Record, position: int, _choice: int) -> tuple[set[int], set[str]]:
    values = {**record.rows()[position - 1]._mapping, "id": new_id("aud")}
    behind = sa.and_(ENTRIES.c.tenant_id == "a", ENTRIES.c.position >= position)
    record.change(sa.update(ENTRIES).where(behind).values(position=ENTRIES.c.position + 1), sa.insert(ENTRIES).values(values))
    return {position, position + 1}, {"changed", "rewritten", "unsigned"}


@tampering
def _edit_with_new_hashes(record: Record, position: int, _choice: int) -> tuple[set[int], set[str]]:
    """By somebody who knows how the chain is made, and has no key: located to the batch."""
    rows = record.rows()
    head, forged = (None if position == 1 else rows[position - 2].hash), []
    if head is None:
        return _edit(record, position, 0)
    for row in rows[position - 1 :]:
        entry = {**row._mapping, **({"status": 418} if row.position == position else {})}
        head = link(head, {name: entry[name] for name in FIELDS})  # type: ignore[arg-type]
        forged.append({"entry": row.id, "digest": head, "as_status": entry["status"]})
    values = {"hash": sa.bindparam("digest"), "status": sa.bindparam("as_status")}
    record.change(sa.update(ENTRIES).where(ENTRIES.c.id == sa.bindparam("entry")).values(values), rows=forged)
    first, last = _batch(record, position)
    return {*range(first, last + 1), *(row.position for row in rows[last:])}, {"rewritten", "changed"}  # type: ignore[arg-type]


@tampering
def _unsealing(record: Record, position: int, _choice: int) -> tuple[set[int], set[str]]:
    record.change(sa.update(ENTRIES).where(_at(position)).values(position=None, hash=None))
    return {position}, {"missing"}


@tampering
def _checkpoint_removed(record: Record, position: int, _choice: int) -> tuple[set[int], set[str]]:
    first, last = _batch(record, position)
    record.change(sa.delete(CHECKPOINTS).where(CHECKPOINTS.c.chain == "a", CHECKPOINTS.c.first == first))
    return {*range(first, last + 1)}, {"checkpoint", "unsigned", "archive"}


@tampering
def _checkpoint_altered(record: Record, position: int, choice: int) -> tuple[set[int], set[str]]:
    first, last = _batch(record, position)
    values = [{"head": b"y" * 32}, {"before": b"y" * 32}, {"at": 1}, {"signature": b"y" * 64}, {"key": b"y" * 32}]
    wrong = sa.update(CHECKPOINTS).where(CHECKPOINTS.c.chain == "a", CHECKPOINTS.c.first == first)
    record.change(wrong.values(values[choice % len(values)]))
    return {*range(first, last + 1), last + 1}, {"checkpoint", "unsigned", "archive"}


@tampering
def _checkpoint_signed_by_another(record: Record, position: int, _choice: int) -> tuple[set[int], set[str]]:
    first, last = _batch(record, position)
    forged = OTHER.sign("a", first=first, last=last, before=b"b" * 32, head=b"h" * 32, at=1)
    values = {"before": b"b" * 32, "head": b"h" * 32, "at": 1, "key": bytes.fromhex(forged.key)}
    wrong = sa.update(CHECKPOINTS).where(CHECKPOINTS.c.chain == "a", CHECKPOINTS.c.first == first)
    record.change(wrong.values({**values, "signature": bytes.fromhex(forged.signature)}))
    return {*range(first, last + 1), last + 1}, {"checkpoint", "unsigned", "archive"}


@tampering
def _rollback(record: Record, position: int, _choice: int) -> tuple[set[int], set[str]]:
    """The end of the chain is taken away with its checkpoints, cleanly: only what is outside the database tells."""
    first, _ = _batch(record, position)
    record.change(
        sa.delete(ENTRIES).where(ENTRIES.c.tenant_id == "a", ENTRIES.c.position >= first),
        sa.delete(CHECKPOINTS).where(CHECKPOINTS.c.chain == "a", CHECKPOINTS.c.first >= first),
    )
    return {*range(first, 10_001)}, {"archive"}


def _batch(record: Record, position: int) -> tuple[int, int]:
    with record.database.system_read() as session:
        covers = sa.and_(CHECKPOINTS.c.chain == "a", CHECKPOINTS.c.first <= position, CHECKPOINTS.c.last >= position)
        first, last = session.execute(sa.select(CHECKPOINTS.c.first, CHECKPOINTS.c.last).where(covers)).one()
    return int(first), int(last)


def _try_everything(record: Record, count: int, rounds: int, seed: int) -> None:
    chance = random.Random(seed)
    for number in range(rounds):
        for name, do in TAMPERINGS.items():
            position = (count, 1)[number] if number < 2 else chance.randint(1, count)
            before = record.rows(), _all(record, CHECKPOINTS)
            where, kinds = do(record, position, chance.randrange(10**6))
            report = record.verified()
            assert report.findings, f"{name} at {position} is not found"
            named = {place for found in report.findings for place in range(found.first, found.last + 1)}
            assert where & named, (name, position, report.findings)
            assert {found.kind for found in report.findings} <= kinds, (name, position, report.findings)
            if kinds <= {"changed", "missing", "inserted"}:
                assert named <= where, (name, position, report.findings)
            _restore(record, *before)
    assert record.verified().sound


def _all(record: Record, table: sa.Table) -> Rows:
    with record.database.system_read() as session:
        return [*session.execute(sa.select(table).where(table.c.tenant_id == "a"))]


def _restore(record: Record, entries: Rows, checkpoints: Rows) -> None:
    for table, rows in ((ENTRIES, entries), (CHECKPOINTS, checkpoints)):
        everything = sa.delete(table).where(table.c.tenant_id == "a")
        record.change(everything, sa.insert(table), rows=[dict(row._mapping) for row in rows])


def test_whatever_is_done_to_sealed_entries_is_found_and_located(record: Record) -> None:
    for first in range(0, 30, 10):
        record.fill("a", 10, first)
    record.fill("b", 5)
    _try_everything(record, 30, rounds=2, seed=7)
    assert record.verified("b").sound


@pytest.mark.full
@pytest.mark.timeout(1800)
def test_whatever_is_done_to_ten_thousand_entries_is_found_and_located(record: Record) -> None:
    for first in range(0, 10_000, 2_000):
        record.fill("a", 2_000, first)
    _try_everything(record, 10_000, rounds=3, seed=8)


def test_an_export_is_verified_without_the_database(record: Record) -> None:
    for first in range(0, 30, 10):
        record.fill("a", 10, first)
    lines = record.lines("a")
    assert verify(lines, trusted=None).sound
    assert verify(lines, trusted=None).keys == [SIGNER.public]
    chance = random.Random(3)
    for _ in range(60):
        place = chance.randrange(1, len(lines) - 1)
        damaged = chance.choice(
            [
                [*lines[:place], *lines[place + 1 :]],
                [*lines[:place], lines[place], *lines[place:]],
                [*lines[: place - 1], lines[place], lines[place - 1], *lines[place + 1 :]] if place > 1 else lines[1:],
                [*lines[:place], re.sub(r"req-\d+|[0-9a-f]{40}", "forged", lines[place], count=1), *lines[place + 1 :]],
                lines[:place],
                [*lines[:place], chance.choice(["", "5", "{}", "[]", "{", lines[0], lines[-1]]), *lines[place:]],
            ]
        )
        assert not verify(damaged).sound
    foreign = verify(lines, trusted=[OTHER.public])
    assert "checkpoint" in {found.kind for found in foreign.findings}
    assert foreign.through == 0


def test_an_export_can_begin_in_the_middle(record: Record) -> None:
    for first in range(0, 30, 10):
        record.fill("a", 10, first)
    report = record.verified(from_position=15)
    assert report.sound, report.findings
    assert (report.after, report.entries, report.through) == (10, 20, 30)
    behind = record.verified(from_position=2**70)
    assert (behind.findings, behind.after, behind.entries) == ([], 30, 0)


def test_more_findings_than_are_listed_are_counted() -> None:
    report = verify([*["nonsense"] * 1_499, "[" * 100_000])
    assert (len(report.findings), report.more_findings) == (1_000, 501)
