"""A batch of documents has the outcomes that the same documents have one by one, and one transaction."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session
from sqlmodel import col

from config.database import Database
from config.errors import BudgetExhausted, CarrelError, Forbidden, InvalidInput, NotFound, Unavailable
from ingestion.intake.bulk import BulkDocuments, Outcome, TenantBulk
from ingestion.intake.documents import Submitted
from ingestion.intake.submission import Submission
from ingestion.jobs.tables import Job
from rag.corpus import Document, DocumentVersion
from rag.store.memory import MemoryStore
from tenants.tables import Tenant
from tests.world import TENANTS, World


@pytest.fixture
def world(sql_url: str, tmp_path: Path) -> Iterator[World]:
    database = Database(sql_url)
    world = World(database, MemoryStore(), tmp_path)
    yield world
    world.close()
    database.close()


def bulk(world: World, name: str) -> TenantBulk:
    documents = world.documents
    parts = [getattr(documents, field) for field in ("database", "clock", "collections", "blobs", "queue", "ledger", "limits")]
    return BulkDocuments(*parts).for_tenant(world.contexts[name])


def of(name: str, text: str, **fields: object) -> Submission:
    return Submission(text.encode(), external_id=name, media_type="text/plain", **fields)  # type: ignore[arg-type]


class Noted:
    """What was recorded, by transaction."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []

    def __call__(self, _session: Session, submitted: Sequence[Submitted]) -> None:
        self.calls.append([one.shown.document.external_id for one in submitted])


def take(world: World, items: Sequence[Submission | CarrelError], *, most: int = 100, name: str = "ash") -> list[Outcome]:
    return bulk(world, name).take(items, most_refused=most, record=Noted())


def test_a_batch_is_one_transaction_and_becomes_live(world: World) -> None:
    commits: list[object] = []
    take(world, [of("first", "An oak.")])
    event.listen(world.database.engine, "commit", commits.append)
    noted = Noted()
    outcomes = bulk(world, "ash").take(
        [of(f"d{number}", f"Oak {number}.") for number in range(5)], most_refused=1, record=noted
    )
    assert len(commits) == 1
    assert noted.calls == [[f"d{number}" for number in range(5)]]
    assert all(isinstance(outcome, Submitted) and outcome.job is not None for outcome in outcomes)
    world.run_jobs()
    assert len(world.all("ash", Document)) == 6
    assert world.all("elm", Document) == []


def test_what_is_live_is_told_so_and_writes_nothing(world: World) -> None:
    take(world, [of("one", "An oak.")])
    world.run_jobs()
    before = world.snapshot("ash")
    [live] = take(world, [of("one", "An oak.")])
    assert isinstance(live, Submitted)
    assert live.job is None
    assert world.snapshot("ash") == before


def test_lines_of_one_name_follow_one_another(world: World) -> None:
    """The third is what is live when the batch begins, and yet another version: the second comes between."""
    take(world, [of("one", "An oak.")])
    world.run_jobs()
    outcomes = take(world, [of("one", "A pine."), of("one", "A pine."), of("one", "An oak.")])
    assert [outcome.shown.version.number for outcome in outcomes if isinstance(outcome, Submitted)] == [2, 2, 3]
    world.run_jobs()
    [document] = world.all("ash", Document)
    live = next(version for version in world.all("ash", DocumentVersion) if version.id == document.live_version_id)
    assert live.number == 3
    world.age()


def test_each_refusal_is_its_own_and_the_last_allowed_one_ends_it(world: World) -> None:
    broken = InvalidInput("No JSON.")
    items = [of("a", "Oak."), broken, of("b", ""), of("c", "Oak.", collection="nowhere"), of("d", "Oak.")]
    kinds = [type(outcome) for outcome in take(world, items)]
    assert kinds == [Submitted, InvalidInput, InvalidInput, NotFound, Submitted]
    assert len(take(world, items, most=2)) == 3
    assert {document.external_id for document in world.all("ash", Document)} == {"a", "d"}


def test_what_fails_a_batch_is_found_one_by_one(world: World) -> None:
    """A name that is another reader's is met inside the transaction only."""
    take(world, [of("hidden", "An oak.", labels=["red"])])
    world.run_jobs()
    world.contexts["ash"] = replace(world.contexts["ash"], labels=frozenset({"blue"}))
    noted = Noted()
    items = [of("a", "Oak."), of("hidden", "Pine."), of("b", "Oak."), of("hidden", "Ash."), of("c", "Oak.")]
    outcomes = bulk(world, "ash").take(items, most_refused=2, record=noted)
    assert [type(outcome) for outcome in outcomes] == [Submitted, Forbidden, Submitted, Forbidden]
    assert noted.calls == [["a"], ["b"]]
    world.age()
    world.run_jobs()
    assert world.files() == {
        blob for version in world.all("ash", DocumentVersion) for blob in (version.content_blob, version.text_blob) if blob
    }


def test_a_refusal_that_would_not_stand_ends_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    put, calls = world.blobs.put_all, 0

    def full_later(contents: Sequence[tuple[str, bytes]]) -> list[str]:
        nonlocal calls
        calls += 1
        if calls != 2:  # the batch, and the second of those one by one
            raise Unavailable("The disk is full.")
        return put(contents)

    monkeypatch.setattr(world.blobs, "put_all", full_later)
    outcomes = take(world, [of("a", "Oak."), of("b", "Oak."), of("c", "Oak.")])
    assert [type(outcome) for outcome in outcomes] == [Submitted, Unavailable]


def test_an_exhausted_budget_refuses_what_would_cost(world: World) -> None:
    take(world, [of("one", "An oak.")])
    world.run_jobs()
    with world.database.system_write() as session:
        session.execute(sa.update(Tenant).where(col(Tenant.name) == "ash").values(monthly_tokens=0))
    outcomes = take(world, [of("two", "A pine."), of("one", "An oak."), of("one", "An oak.", labels=["red"]), of("x", "Y.")])
    assert [type(outcome) for outcome in outcomes] == [BudgetExhausted, Submitted, Submitted, BudgetExhausted]


@pytest.mark.parametrize("kind", [IntegrityError, RuntimeError])
def test_a_transaction_that_breaks_leaves_no_content(
    world: World, monkeypatch: pytest.MonkeyPatch, kind: type[Exception]
) -> None:
    calls = 0

    def break_once(_session: Session, _submitted: Sequence[Submitted]) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise IntegrityError("", {}, Exception()) if kind is IntegrityError else RuntimeError()

    items = [of("a", "Oak."), of("b", "Oak.")]
    if kind is IntegrityError:
        assert len(bulk(world, "ash").take(items, most_refused=1, record=break_once)) == 2
    else:
        with pytest.raises(RuntimeError):
            bulk(world, "ash").take(items, most_refused=1, record=break_once)
    expected = 2 if kind is IntegrityError else 0
    assert len(world.files()) == len(world.all("ash", Document)) == len(world.all("ash", Job)) == expected
    assert all(world.all(name, Document) == [] for name in TENANTS[1:])
