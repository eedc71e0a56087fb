"""Sessions whose time is up: gone at once, told of once, removed in pieces; whatever dies in between, nothing is half there."""

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
from rag.sessions.tables import ERASED, ChatSession, SessionTag, Turn
from rag.sessions.values import NewSession, NewTurn
from tenants.events import EventLog
from tenants.quotas import UNLIMITED, used_of
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
    monkeypatch.setattr(sweeping, "ROWS", 4)
    monkeypatch.setattr(sweeping, "PAGE", 2)


def _made(sessions: Sessions, scope: FakeScope, count: int, turns: int = 3, ttl_s: int | None = 10) -> list[str]:
    handle = sessions.for_tenant(scope)
    ids = [handle.create(NewSession("ann", tags=["t"], idle_ttl_s=ttl_s)).id for _ in range(count)]
    for session_id in ids:
        handle.append(session_id, [NewTurn("user", str(number)) for number in range(turns)])
    return ids


def _owners(database: Database) -> dict[str, set[str]]:
    """Of which sessions there is anything, by table."""
    columns = (ChatSession.id, SessionTag.session_id, Turn.session_id)
    with database.system_read() as session:
        return {str(column.class_.__tablename__): {*session.scalars(select(col(column)))} for column in columns}  # type: ignore[attr-defined]


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
    assert _swept(sessions).run_once() == 12  # each ended, and each removed
    assert _owners(sessions.database) == {"sessions": {*kept}, "session_tags": {*kept}, "turns": {*kept}}
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
    died = True
    at = 0
    while died:
        ids, at, died = _made_anew(sessions, clock), at + 1, False
        try:
            with _dying(sessions.database, at):
                _swept(sessions).run_once()
        except Death:
            died = True
            _as_whole(sessions, ids)
            _swept(sessions).run_once()
        assert _owners(sessions.database) == {"sessions": set(), "session_tags": set(), "turns": set()}, at
        assert {*ids} <= {*_expired(sessions.database, clock, A)}
        with sessions.database.read(A) as session:
            assert used_of(session, "a").sessions == 0
    assert 4 < at < 20


def _made_anew(sessions: Sessions, clock: SetClock) -> list[str]:
    ids = _made(sessions, A, 2, turns=6)
    clock.now += 10_000
    return ids


def _as_whole(sessions: Sessions, ids: list[str]) -> None:
    """Nothing of them is reached, and what is left of them hangs on a session's row."""
    for session_id in ids:
        with pytest.raises(NotFound):
            sessions.for_tenant(A).turns(session_id, limit=9)
    left = _owners(sessions.database)
    assert left["turns"] | left["session_tags"] <= left["sessions"]


class Keeper:
    """A companion with rows of its own, which go before the turns."""

    def __init__(self) -> None:
        self.rows: dict[str, int] = {}
        self.calls: list[int] = []

    def forked(self, *_given: object) -> None: ...

    def clear(self, session: object, session_id: str, limit: int) -> int:
        taken = min(limit, self.rows.get(session_id, 0))
        self.rows[session_id] = self.rows.get(session_id, 0) - taken
        self.calls.append(taken)
        return taken


@pytest.mark.usefixtures("small_pieces")
def test_what_companions_keep_goes_first_and_in_pieces(database: Database, clock: SetClock) -> None:
    keeper = Keeper()
    sessions = Sessions(database, clock, UNLIMITED, companions=[keeper])
    (first, second) = _made(sessions, A, 2)
    keeper.rows = {first: 9, second: 1}
    with database.write(A) as session:  # as whoever erases them in two steps does
        session.execute(sa.update(ChatSession).values(state=ERASED), execution_options={"synchronize_session": False})
    assert _swept(sessions).run_once() == 2
    assert set(keeper.rows.values()) == {0}
    assert max(keeper.calls) == 4
    assert _owners(database)["turns"] == set()


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
