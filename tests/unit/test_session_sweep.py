"""Sessions whose time is up: gone at once, ended in pieces and told of once, whatever dies in between."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import sqlalchemy as sa
from sqlmodel import col, select

from config.database import Database
from config.errors import NotFound
from rag.sessions import sweeping
from rag.sessions.sessions import Sessions
from rag.sessions.sweeping import SessionSweeper
from rag.sessions.tables import EXPIRED, ChatSession, Turn
from rag.sessions.values import NewSession, NewTurn
from tenants.events import EventLog
from tenants.limits.quotas import UNLIMITED, used_of
from tests.support import FakeScope
from tests.unit.conftest import SetClock
from tests.unit.test_sessions import telling

A, B = FakeScope("a"), FakeScope("b")


class Death(BaseException):
    """The process ends here."""


@pytest.fixture
def sessions(database: Database, clock: SetClock) -> Sessions:
    return Sessions(database, clock, UNLIMITED, telling(clock))


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeping, "PAGE", 2)


def _made(sessions: Sessions, scope: FakeScope, count: int, ttl_s: int | None = 10) -> list[str]:
    handle = sessions.for_tenant(scope)
    ids = [handle.create(NewSession("ann", tags=["t"], idle_ttl_s=ttl_s)).id for _ in range(count)]
    for session_id in ids:
        handle.append(session_id, [NewTurn("user", "hello")])
    return ids


def _ended(database: Database) -> dict[str, int | None]:
    """Sessions that are expired, and when they were ended."""
    with database.system_read() as session:
        rows = session.scalars(select(ChatSession).where(col(ChatSession.state) == EXPIRED)).all()
    return {row.id: row.expires_at for row in rows}


def _expired(database: Database, clock: SetClock, scope: FakeScope) -> list[str]:
    rows, _ = EventLog(database, clock).for_tenant(scope).list(type="session.expired", limit=100)
    return sorted(row.subject for row in rows)


def _swept(sessions: Sessions) -> SessionSweeper:
    return SessionSweeper(sessions, pause=lambda _seconds: None)


@pytest.mark.usefixtures("small_pieces")
def test_what_is_over_goes_and_nothing_else(sessions: Sessions, clock: SetClock) -> None:
    gone = {scope.tenant_id: _made(sessions, scope, 3) for scope in (A, B)}
    kept = [*_made(sessions, A, 1, ttl_s=None), *_made(sessions, B, 1, ttl_s=60)]
    assert _swept(sessions).run_once() == 0
    clock.now += 10_000
    with pytest.raises(NotFound):
        sessions.for_tenant(A).get(gone["a"][0])
    assert _swept(sessions).run_once() == 6
    assert _ended(sessions.database) == dict.fromkeys([*gone["a"], *gone["b"]], clock.now)
    with sessions.database.system_read() as session:  # rows are removed by others
        assert {*gone["a"], *gone["b"], *kept} == {*session.scalars(select(col(Turn.session_id)))}
    for scope in (A, B):
        assert _expired(sessions.database, clock, scope) == sorted(gone[scope.tenant_id])
        with sessions.database.read(scope) as session:
            assert used_of(session, scope.tenant_id).sessions == 1
    assert _swept(sessions).run_once() == 0


@contextmanager
def _dying(database: Database, at: int) -> Iterator[None]:
    """The process dies at so many commits from here on, before it is carried out."""
    left = at

    def commits(_connection: sa.Connection) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise Death

    sa.event.listen(database.engine, "commit", commits)
    try:
        yield
    finally:
        sa.event.remove(database.engine, "commit", commits)


@pytest.mark.usefixtures("small_pieces")
def test_a_sweep_that_dies_at_any_commit_is_finished_by_the_next(sessions: Sessions, clock: SetClock) -> None:
    died, at = True, 0
    while died:
        ids, at, died = _made(sessions, A, 5), at + 1, False
        clock.now += 10_000
        try:
            with _dying(sessions.database, at):
                _swept(sessions).run_once()
        except Death:
            died = True
            _as_one(sessions, ids, clock)
            _swept(sessions).run_once()
        assert {*ids} <= _ended(sessions.database).keys()
        assert {*ids} <= {*_expired(sessions.database, clock, A)}
        with sessions.database.read(A) as session:
            assert used_of(session, "a").sessions == 0
    assert at > 3


def _as_one(sessions: Sessions, ids: list[str], clock: SetClock) -> None:
    """Nothing of them is reached; who is ended is told of and not counted, and nobody else."""
    for session_id in ids:
        with pytest.raises(NotFound):
            sessions.for_tenant(A).turns(session_id, limit=9)
    ended = {*ids} & _ended(sessions.database).keys()
    assert ended == {*ids} & {*_expired(sessions.database, clock, A)}
    with sessions.database.read(A) as session:
        assert used_of(session, "a").sessions == len(ids) - len(ended)


def test_one_that_lives_again_meanwhile_is_left(sessions: Sessions, clock: SetClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between looking for what is due and ending it, somebody gave it more time."""
    (session_id,) = _made(sessions, A, 1)
    due = clock.now + 10_000
    sweeper, read = _swept(sessions), sessions.database.system_read

    def looked() -> object:
        clock.now = due
        found = read()
        clock.now = due - 1
        sessions.for_tenant(A).update(session_id, {"idle_ttl_s": 60})
        clock.now = due
        return found

    with monkeypatch.context() as patch:
        patch.setattr(Database, "system_read", lambda _self: looked())
        assert sweeper._expire() in (0, None)
    assert sessions.for_tenant(A).get(session_id).state == "open"
    assert _expired(sessions.database, clock, A) == []
