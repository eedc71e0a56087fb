"""Sessions whose old turns were made small: exported as before, and erased, expired or removed with their tenant to the last
row and cached vector.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlmodel import col, select

from config.clock import system_clock
from config.database import Database
from config.vault import Vault
from ingestion.conversations.attached import AttachedDocuments
from ingestion.conversations.exporting import Exports
from ingestion.conversations.turn_vectors import TurnEmbedding
from ingestion.removal.tenants import owned_tables
from rag.embedding.cache import DiskVectorCache
from rag.recall.tables import TurnVector
from rag.sessions.compacting import SessionCompactor
from rag.sessions.sessions import Sessions
from rag.sessions.tables import PIECE, ChatSession, TurnArchive
from rag.sessions.values import NewSession, NewTurn
from rag.store.memory import MemoryStore
from tenants.idempotency import IdempotencyStore
from tenants.limits.quotas import UNLIMITED
from tests.unit.erasing_room import ASH, ELM, Room
from tests.world import World

POSTGRESQL_DAILY = False


@pytest.fixture
def room(sql_url: str, tmp_path: Path) -> Iterator[Room]:
    database = Database(sql_url)
    world = World(database, MemoryStore(), tmp_path, cache=DiskVectorCache(tmp_path / "cache", max_bytes=1 << 24))
    yield Room(world, IdempotencyStore(database, system_clock, Vault([bytes(32)])))
    world.close()
    database.close()


def _talk(room: Room, tenant: str, subject: str, *, old: bool = True) -> str:
    """A session whose turns have vectors, and whose first PIECE turns are compacted if they are `old`."""
    world = room.world
    sessions = Sessions(world.database, system_clock, UNLIMITED)
    handle = sessions.for_tenant(room.context(tenant))
    made = handle.create(NewSession(subject, max_turns=5, when_full="archive")).id
    turns = [NewTurn("user", f"canary of {subject} {n}", speaker=subject, metadata={"x": subject}) for n in range(PIECE + 5)]
    handle.append(made, turns if old else turns[:5])
    while TurnEmbedding(world.database, system_clock, world.embedding, world.ledger, world.registry.context_of_job).run_once():
        pass
    return made


def _compact(room: Room) -> int:
    sessions = Sessions(room.world.database, system_clock)
    return SessionCompactor(sessions, pause=lambda _seconds: None).run_once()


def test_the_export_of_a_session_is_as_before(room: Room) -> None:
    ours, theirs = _talk(room, ASH, "subject-a"), _talk(room, ELM, "subject-a")
    handles = Exports(AttachedDocuments(room.world.documents, room.world.embedding.space))

    def exported() -> list[str]:
        lines = [
            line
            for tenant, session_id in ((ASH, ours), (ELM, theirs))
            for line in handles.for_tenant(room.context(tenant)).of_session(session_id)
        ]
        return [*map(str, lines)]

    before = exported()
    assert _compact(room) == 2 * PIECE
    assert exported() == before
    assert len(before) == 2 * (1 + PIECE + 5 + 1)


@pytest.mark.parametrize("damaged", [False, True])
def test_nothing_is_left_of_what_is_erased_or_expires(room: Room, damaged: bool) -> None:
    erased, expired, same = _talk(room, ASH, "subject-a"), _talk(room, ASH, "subject-c"), _talk(room, ELM, "subject-a")
    other = _talk(room, ASH, "subject-b", old=False)
    assert room.world.cache.stats(room.context(ASH)).vectors == 2 * (PIECE + 5) + 5
    assert _compact(room) == 3 * PIECE
    if damaged:
        with room.world.database.system_write() as sql:
            sql.execute(
                sa.update(TurnArchive).where(col(TurnArchive.session_id) == erased).values(packed=b"x"),
                execution_options={"synchronize_session": False},
            )
    elm = room.world.rows(ELM)
    row = room.erasures(ASH).of_session(erased)
    assert (row.before["turn_archives"], row.before["turn_vectors"]) == (1, PIECE + 5)  # of packed turns too
    room.expire(ASH, expired)
    done = room.settle(row)
    assert {done.after[name] for name in ("turn_archives", "turn_vectors", "turns")} == {0}
    assert room.world.all(ASH, TurnArchive) == []
    assert {vector.session_id for vector in room.world.all(ASH, TurnVector)} == {other}
    assert [one.id for one in room.world.all(ASH, ChatSession)] == [other]
    assert room.traces_of("subject-c") == []
    assert room.world.rows(ELM) == elm
    # of a text that cannot be read it is not known which vector is its own: none is left, and none of another tenant's goes
    assert room.world.cache.stats(room.context(ASH)).vectors == (0 if damaged else 5)
    assert room.world.cache.stats(room.context(ELM)).vectors == PIECE + 5
    with room.world.database.read(room.context(ELM)) as sql:
        assert sql.scalars(select(col(TurnArchive.session_id))).all() == [same]


def test_they_are_counted_and_removed_with_the_tenant() -> None:
    names = [table.name for table in owned_tables()]
    assert names.index("turn_archives") < names.index("sessions")
