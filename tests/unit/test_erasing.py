"""Sessions and subjects are erased: nothing of them is left anywhere, and nothing of anybody else's is touched."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session
from sqlmodel import SQLModel, col, select

from config.clock import system_clock
from config.database import Database, HasTenant
from config.errors import Forbidden, NotFound
from config.vault import Vault
from ingestion.attached import AttachedDocuments
from ingestion.erasing import reach
from ingestion.erasing.reach import KEPT, LAST, REFERENCES, Table, Whose, reached, tables
from ingestion.erasing.removal import Erasing
from ingestion.erasing.requests import Erasures, TenantErasures
from ingestion.submission import Submission
from ingestion.tables import Erasure
from ingestion.turn_vectors import TurnEmbedding
from rag.embedding.cache import DiskVectorCache
from rag.recall.tables import TurnVector
from rag.sessions.sessions import Sessions
from rag.sessions.tables import EXPIRED, ChatSession, SessionTag, Turn
from rag.sessions.values import NewSession, NewTurn
from rag.store.memory import MemoryStore
from tenants.context import TenantContext
from tenants.idempotency import Call, Claim, IdempotencyStore, Result
from tenants.quotas import UNLIMITED, used_of
from tests.world import TENANTS, World

ASH, ELM = TENANTS
POSTGRESQL_DAILY = False
#: What a session or a document fills by itself; every other table is given a row by `plant`.
FILLED = {ChatSession, SessionTag, Turn, TurnVector}
numbers = itertools.count(1)


@dataclass
class Room:
    world: World
    results: IdempotencyStore

    def context(self, tenant: str, subject: str | None = None) -> TenantContext:
        return replace(self.world.contexts[tenant], subject=subject)

    def erasures(self, tenant: str, subject: str | None = None) -> TenantErasures:
        return Erasures(self.world.database, system_clock, self.results).for_tenant(self.context(tenant, subject))

    def erasing(self, database: Database | None = None) -> Erasing:
        world = self.world
        parts = (database or world.database, system_clock, world.registry, self.results, world.blobs, world.store)
        return Erasing(*parts, world.collector, world.embedding, grace_ms=0)

    def settle(self, erasure: Erasure) -> Erasure:
        for _ in range(3):
            self.erasing().run_once()
        done = self.erasures(ASH).get(erasure.id)
        assert done.state == "done"
        return done

    def talk(self, tenant: str, subject: str) -> str:
        """A session that has something in every table; each text of it has the subject's name in it."""
        context, said = self.context(tenant), f"canary of {subject}"
        new = NewSession(subject=subject, title=said, tags=[said], metadata={"note": said})
        session = Sessions(self.world.database, system_clock, UNLIMITED).for_tenant(context)
        chat = session.create(new)
        turns = [NewTurn("user", f"{said} {number}", speaker=said, metadata={"x": said}) for number in range(3)]
        session.append(chat.id, turns)
        world = self.world
        while TurnEmbedding(
            world.database, system_clock, world.embedding, world.ledger, world.registry.context_of_job
        ).run_once():
            pass
        attached = AttachedDocuments(self.world.documents, self.world.embedding.space).for_tenant(context)
        for number in (1, 2):  # the second is another version of it
            content = f"{said}, version {number}, on paper.".encode()
            attached.submit(chat.id, Submission(content, external_id=said, title=said, media_type="text/plain"))
            self.world.run_jobs()
        self._answer(context, chat.id, subject, said)
        self.plant(context, chat.id, subject, said)
        return chat.id

    def _answer(self, context: TenantContext, session_id: str, subject: str, said: str) -> None:
        owner = context.tenant_id
        for route, key in (("POST /v1/memories", "1"), (f"POST /v1/sessions/{session_id}/turns", "2")):
            named = subject if key == "1" else None
            claim = self.results.claim(Call(owner, owner, route, f"{said} {next(numbers)}", b"", named))
            assert isinstance(claim, Claim)
            self.results.finish(claim, Result(200, said.encode(), None if named else session_id))

    def plant(self, context: TenantContext, session_id: str, subject: str, said: str) -> None:
        made: dict[str, dict[str, Any]] = {"sessions": {"id": session_id}}
        with self.world.database.write(context) as sql:
            made["turns"] = {"id": sql.scalars(select(col(Turn.id)).where(col(Turn.session_id) == session_id)).first()}
            documents = reach.documents_family()
            for table in reversed(tables()):
                if table in FILLED or table in documents:
                    continue
                row = _row(table, {"tenant_id": context.tenant_id, "session_id": session_id, "subject": subject}, made, said)
                made[str(table.__tablename__)] = row
                sql.execute(sa.insert(table), [row])

    def traces_of(self, subject: str) -> list[str]:
        """Every place where the subject's name is found."""
        found, name = [], subject.encode()
        with self.world.database.system_read() as sql:
            for table in SQLModel.metadata.sorted_tables:
                rows = sql.execute(sa.select(table)).all()
                found += [table.name for row in rows if subject in str(row)]
        found += [path.name for path in (self.world.folder / "blobs").glob("??/*") if name in path.read_bytes()]
        if not self.world.database.is_postgresql:  # beside the file itself, whose pages `secure_delete` clears
            file = Path(self.world.database.engine.url.database or "")
            found += [path.name for path in file.parent.glob(f"{file.name}-*") if name in path.read_bytes()]
        return found

    def counted(self, tenant: str, subject: str) -> dict[str, int]:
        return {name: len([1 for row in rows if subject in str(row)]) for name, rows in self.world.rows(tenant).items()}


def _row(table: Table, known: dict[str, Any], made: dict[str, dict[str, Any]], said: str) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for column in table.__table__.columns:  # type: ignore[attr-defined]
        parent = next((key.column for key in column.foreign_keys), None)
        if column.name in known:
            row[column.name] = known[column.name]
        elif parent is not None:
            row[column.name] = made[parent.table.name][parent.name]
        elif isinstance(column.type, sa.JSON):
            row[column.name] = [said]
        elif isinstance(column.type, sa.LargeBinary):
            row[column.name] = said.encode()
        elif isinstance(column.type, sa.Boolean):
            row[column.name] = False
        else:
            row[column.name] = next(numbers) if isinstance(column.type, sa.Integer | sa.Float) else f"{said} {next(numbers)}"
    return row


@pytest.fixture
def room(sql_url: str, tmp_path: Path) -> Iterator[Room]:
    database = Database(sql_url)
    cache = DiskVectorCache(tmp_path / "cache", max_bytes=1 << 24)
    world = World(database, MemoryStore(), tmp_path, cache=cache)
    yield Room(world, IdempotencyStore(database, system_clock, Vault([bytes(32)])))
    world.close()
    database.close()


def test_every_table_that_tells_of_a_session_or_a_subject_is_reached_or_says_why_not(room: Room) -> None:
    named = {table.name for table in SQLModel.metadata.sorted_tables if {"session_id", "subject"} & {*table.columns.keys()}}
    answered = {table.__tablename__ for table in tables()} | KEPT.keys() | {"idempotency_records"}
    assert named <= answered
    assert answered >= {"turns", "session_tags", "feedback", "collections", "jobs", "chunks", *LAST, *REFERENCES}
    for name in named - KEPT.keys():  # else a sweep would go through whole tables for each session
        table = SQLModel.metadata.tables[name]
        first = [[*index.columns.keys()] for index in table.indexes] + [[*table.primary_key.columns.keys()]]
        first += [[*each.columns.keys()] for each in table.constraints if isinstance(each, sa.UniqueConstraint)]
        if "session_id" in table.columns:
            assert any(
                columns[: columns.index("session_id")] in ([], ["tenant_id"]) for columns in first if "session_id" in columns
            ), name


def test_an_erased_subject_leaves_no_trace_anywhere_and_others_all_of_theirs(room: Room) -> None:
    erased, same_name = room.talk(ASH, "subject-a"), room.talk(ELM, "subject-a")
    others = room.talk(ASH, "subject-b")
    cache = room.world.cache.stats(room.context(ASH)).vectors
    elm, bob = room.world.rows(ELM), room.counted(ASH, "subject-b")
    assert len(room.traces_of("subject-a")) > 20
    row = room.erasures(ASH).of_subject("subject-a")
    with pytest.raises(NotFound):
        Sessions(room.world.database, system_clock).for_tenant(room.context(ASH)).get(erased)
    assert room.erasures(ASH).of_subject("subject-a").id == row.id, "it runs already"
    done = room.settle(row)
    assert room.world.rows(ELM) == elm
    assert room.counted(ASH, "subject-b") == bob
    room.erasures(ELM).of_subject("subject-a")
    for _ in range(3):
        room.erasing().run_once()
    assert room.traces_of("subject-a") == []
    assert {name: count for name, count in done.before.items() if count}.keys() > {"turns", "chunks", "points", "kept_results"}
    assert done.before.keys() == done.after.keys()
    assert not any(done.after.values())
    assert room.world.cache.stats(room.context(ASH)).vectors == cache - 5, "two versions, three turns"
    assert [row.id for row in room.world.all(ASH, ChatSession)] == [others]
    assert same_name not in {row.id for row in room.world.all(ELM, ChatSession)}
    assert len(room.world.vectors(ASH).ids()) == 1
    with room.world.database.read(room.context(ASH)) as sql:
        used = used_of(sql, room.context(ASH).tenant_id)
    assert (used.sessions, used.documents) == (1, 1)


def test_one_session_is_erased_and_another_of_the_subject_stays(room: Room) -> None:
    erased, other = room.talk(ASH, "subject-a"), room.talk(ASH, "subject-a")
    for context in ("subject-b", None):
        with pytest.raises(NotFound):
            room.erasures(ASH if context else ELM, context).of_session(erased)
    row = room.erasures(ASH, "subject-a").of_session(erased)
    with pytest.raises(NotFound):
        room.erasures(ASH).of_session(erased)
    room.settle(row)
    with room.world.database.read(room.context(ASH)) as sql:
        left = {str(table.__tablename__): sql.scalar(_count(table, Whose((erased,)))) for table in tables()}
        stays = {str(table.__tablename__): sql.scalar(_count(table, Whose((other,)))) for table in tables()}
    assert not any(left.values())
    assert {"turns", "documents", "session_tags", "jobs"} <= {name for name, count in stays.items() if count}
    assert [one.id for one in room.world.all(ASH, ChatSession)] == [other]


def _count(table: Table, whose: Whose) -> sa.Select[tuple[int]]:
    there = reached(table, whose)
    assert there is not None
    return sa.select(sa.func.count()).select_from(table).where(there)


def test_a_subject_erases_itself_and_sees_its_receipt_and_no_other_does(room: Room) -> None:
    room.talk(ASH, "subject-a")
    with pytest.raises(Forbidden):
        room.erasures(ASH, "subject-b").of_subject("subject-a")
    row = room.settle(room.erasures(ASH, "subject-a").of_subject("subject-a"))
    assert room.erasures(ASH, "subject-a").get(row.id).state == "done"
    for tenant, subject in ((ASH, "subject-b"), (ELM, None), (ELM, "subject-a")):
        with pytest.raises(NotFound):
            room.erasures(tenant, subject).get(row.id)
    nobody = room.settle(room.erasures(ASH).of_subject("never seen"))
    assert not any(nobody.before.values())


def test_what_expired_is_removed_without_being_asked(room: Room) -> None:
    expired, other = room.talk(ASH, "subject-a"), room.talk(ASH, "subject-b")
    with room.world.database.write(room.context(ASH)) as sql:
        chat = sql.get_one(ChatSession, expired)
        chat.state, chat.expires_at = EXPIRED, system_clock() - 1
    room.erasing().run_once()
    with room.world.database.read(room.context(ASH)) as sql:
        assert not any(sql.scalar(_count(table, Whose((expired,)))) for table in tables())
    assert [one.id for one in room.world.all(ASH, ChatSession)] == [other]


class Death(BaseException):
    """Of the process, before a transaction that it was about to make."""


class Dying(Database):
    """Dies before the `left`-th write from now."""

    def __init__(self, database: Database) -> None:
        self.__dict__.update(database.__dict__)
        self.left = 10**9

    def write(self, scope: HasTenant) -> AbstractContextManager[Session]:
        self.left -= 1
        if self.left < 0:
            raise Death
        return super().write(scope)


def test_an_erasure_that_dies_anywhere_is_finished_by_the_next_process(room: Room) -> None:
    room.talk(ASH, "subject-a")
    room.talk(ASH, "subject-b")
    bob = room.counted(ASH, "subject-b")
    row = room.erasures(ASH).of_session(room.world.all(ASH, ChatSession)[0].id)
    dying, deaths = Dying(room.world.database), 0
    while room.erasures(ASH).get(row.id).state == "running":
        dying.left = deaths  # one step further each time
        try:
            room.erasing(dying).run_once()
        except Death:
            deaths += 1
    assert deaths > 5
    assert room.counted(ASH, "subject-b") == bob
    room.settle(room.erasures(ASH).of_subject("subject-a"))
    assert room.traces_of("subject-a") == []


def test_what_is_deleted_is_overwritten_in_the_file_and_its_log_emptied(room: Room) -> None:
    database = room.world.database
    if database.is_postgresql:
        assert database.checkpoint(), "vacuum does that"
        return
    with database.engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA secure_delete").scalar() == 1
    log = Path(f"{database.engine.url.database}-wal")
    assert log.stat().st_size > 0
    with database.read(room.context(ASH)) as sql:
        sql.scalars(select(ChatSession)).all()
        room.talk(ASH, "subject-a")
        assert not database.checkpoint(), "somebody reads what was there before"
    assert database.checkpoint()
    assert log.stat().st_size == 0
