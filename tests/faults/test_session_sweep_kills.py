"""A sweeper that is killed outright, again and again: no turn is left without its session, and what others have is whole."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlmodel import SQLModel, col, select

from config.clock import system_clock
from config.database import Database
from rag.sessions.sessions import Sessions
from rag.sessions.tables import ChatSession, Turn
from rag.sessions.values import NewSession, NewTurn
from tenants.quotas import UNLIMITED, used_of
from tenants.tables import Tenant
from tests.support import FakeScope, wait_for

pytestmark = pytest.mark.full
A, B = FakeScope("a"), FakeScope("b")
OVER, TURNS = 150, 30


def _filled(database: Database) -> None:
    SQLModel.metadata.create_all(database.engine)
    with database.system_write() as session:
        session.add_all([Tenant(id=name, name=name, cache_salt=name.encode() * 32, created_at=0) for name in "ab"])
    sessions = Sessions(database, system_clock, UNLIMITED)
    for scope in (A, B):
        handle = sessions.for_tenant(scope)
        for _ in range(OVER):
            made = handle.create(NewSession("ann", tags=["t"], absolute_ttl_s=3600))
            handle.append(made.id, [NewTurn("user", str(number)) for number in range(TURNS)])
        kept = handle.create(NewSession("ann"))
        handle.append(kept.id, [NewTurn("user", "stays")])
    with database.system_write() as session:
        session.execute(sa.update(ChatSession).where(col(ChatSession.expires_at).is_not(None)).values(expires_at=1))


def _turns(database: Database) -> int:
    """How many there are, each of a session that is there."""
    with database.system_read() as session:
        owners = {*session.scalars(select(col(ChatSession.id)))}
        turns = session.scalars(select(col(Turn.session_id))).all()
    assert {*turns} <= owners
    return len(turns)


def test_a_sweep_survives_kills(tmp_path: Path) -> None:
    chance, database = random.Random(7), Database(f"sqlite:///{tmp_path / 'carrel.db'}")
    _filled(database)
    left, kills = _turns(database), 0
    while left > 2:
        command = [sys.executable, str(Path(__file__).with_name("session_sweeper.py")), database.url]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            goal = max(2, left - chance.randrange(500, 2500))
            wait_for(lambda goal=goal: _turns(database) <= goal, what="some turns removed")  # type: ignore[misc]
            process.kill()
        left, kills = _turns(database), kills + 1
    assert kills >= 4
    sessions = Sessions(database, system_clock, UNLIMITED)
    for scope in (A, B):
        (kept,) = sessions.for_tenant(scope).list(limit=9)
        assert [turn.content for turn in sessions.for_tenant(scope).turns(kept.id, limit=9)] == ["stays"]
        with database.read(scope) as session:
            assert used_of(session, scope.tenant_id).sessions == 1
    database.close()
