"""Sessions and subjects are erased: nothing of them is left anywhere, and nothing of anybody else's is touched."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session
from sqlmodel import SQLModel, select

from config.clock import system_clock
from config.database import Database, HasTenant
from config.errors import Forbidden, NotFound
from config.vault import Vault
from ingestion.erasing.reach import KEPT, LAST, REFERENCES, Table, Whose, count, reached, tables
from rag.embedding.cache import DiskVectorCache
from rag.sessions.sessions import Sessions
from rag.sessions.tables import ChatSession
from rag.store.memory import MemoryStore
from tenants.idempotency import IdempotencyStore
from tenants.limits.quotas import used_of
from tests.unit.erasing_room import ASH, ELM, Room
from tests.world import World

POSTGRESQL_DAILY = False


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


def test_rows_of_sessions_are_found_without_going_through_all_of_their_tenants(room: Room) -> None:
    database, sent = room.world.database, list[tuple[str, object]]()
    if database.is_postgresql:
        return  # plans by what the tables hold
    sa.event.listen(database.engine, "before_cursor_execute", lambda *args: sent.append((args[2], args[3])))
    with database.read(room.context(ASH)) as session:
        count(session, Whose([f"ses_{number}" for number in range(100)]))
        counts = [each for each in sent if "count(*)" in each[0]]
        plans = [session.connection().exec_driver_sql(f"EXPLAIN QUERY PLAN {text}", given).all() for text, given in counts]
    tables_asked = [text.partition("FROM ")[2].split()[0] for text, _given in counts]
    steps = {table: [row.detail for row in plan] for table, plan in zip(tables_asked, plans, strict=True)}
    through = {table for table, plan in steps.items() if any("SCAN" in one or "(tenant_id=?)" in one for one in plan)}
    assert {"sessions", "turns", "turn_vectors", "chunks", "documents"} <= steps.keys() - through
    assert through <= {"jobs", "job_dependencies", "sketch_bands", "memory_sources"}  # they hold little, or for a while only


def test_an_erased_subject_leaves_no_trace_anywhere_and_others_all_of_theirs(room: Room) -> None:
    erased, same_name = room.talk(ASH, "subject-a"), room.talk(ELM, "subject-a")
    others = room.talk(ASH, "subject-b")
    cache = room.world.cache.stats(room.context(ASH)).vectors
    elm, bob = room.world.rows(ELM), room.counted(ASH, "subject-b")
    assert {"memory_versions", "session_recaps", "traces"} <= {*room.traces_of("subject-a")}
    assert len(room.traces_of("subject-a")) > 20
    assert len(room.residents) == 3
    room.leave(room.context(ASH), erased, "subject-a")  # under way: written when all else is gone
    row = room.erasures(ASH).of_subject("subject-a")
    with pytest.raises(NotFound):
        Sessions(room.world.database, system_clock).for_tenant(room.context(ASH)).get(erased)
    assert len(room.residents) == 2
    assert room.erasures(ASH).of_subject("subject-a").id == row.id, "it runs already"
    done = room.settle(row)
    room.tracer.flush()
    assert room.world.rows(ELM) == elm
    assert room.counted(ASH, "subject-b") == bob
    room.erasures(ELM).of_subject("subject-a")
    for _ in range(3):
        room.erasing().run_once()
    assert room.traces_of("subject-a") == []
    assert {name: count for name, count in done.before.items() if count}.keys() > {"turns", "chunks", "points", "kept_results"}
    assert done.before.keys() == done.after.keys()
    assert not any(done.after.values())
    assert room.world.cache.stats(room.context(ASH)).vectors == cache - 7, "two versions, three turns, two memories"
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
    there = reached(table, whose)  # None: of a subject it has rows, of a session none
    return sa.select(sa.func.count()).select_from(table).where(sa.false() if there is None else there)


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


def test_what_expired_is_removed_without_being_asked_when_requests_under_way_have_ended(room: Room) -> None:
    expired, other = room.talk(ASH, "subject-a"), room.talk(ASH, "subject-b")
    same, points, files = room.talk(ELM, "subject-a"), len(room.world.vectors(ASH).ids()), len(room.world.files())
    cache = room.world.cache.stats(room.context(ASH)).vectors
    room.expire(ASH, expired)
    room.erasing(grace_ms=5_000).run_once()
    assert {one.id for one in room.world.all(ASH, ChatSession)} == {expired, other}
    room.erasing().run_once()
    with room.world.database.read(room.context(ASH)) as sql:
        assert not any(sql.scalar(_count(table, Whose((expired,)))) for table in tables())
    assert [one.id for one in room.world.all(ASH, ChatSession)] == [other]
    assert [one.id for one in room.world.all(ELM, ChatSession)] == [same]
    assert len(room.world.vectors(ASH).ids()) < points
    assert len(room.world.files()) < files
    assert room.world.cache.stats(room.context(ASH)).vectors == cache - 6, "two versions, three turns, and its memory"
    with room.world.database.read(room.context(ASH)) as sql:
        assert used_of(sql, room.context(ASH).tenant_id).sessions == 1


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
    erased, expired = room.talk(ASH, "subject-a"), room.talk(ASH, "subject-c")
    room.talk(ASH, "subject-b")
    bob = room.counted(ASH, "subject-b")
    row = room.erasures(ASH).of_session(erased)
    room.expire(ASH, expired)
    dying, deaths = Dying(room.world.database), 0
    while room.erasures(ASH).get(row.id).state == "running":
        dying.left = deaths  # one step further each time
        try:
            room.erasing(dying).run_once()
        except Death:
            deaths += 1
    assert deaths > 5
    assert room.counted(ASH, "subject-b") == bob
    with room.world.database.read(room.context(ASH)) as sql:
        assert not any(sql.scalar(_count(table, Whose((erased, expired)))) for table in tables())
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
