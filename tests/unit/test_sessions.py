"""Sessions as their handle keeps them: what is appended stays in order and once, and nobody reaches another tenant's or
another subject's.
"""

from __future__ import annotations

import pytest

from config.database import Database
from config.errors import Forbidden, IdempotencyKeyReused, InvalidInput, NotFound
from rag.sessions.sessions import Sessions, TenantSessions
from rag.sessions.values import NewSession, NewTurn
from tests.support import FakeScope
from tests.unit.conftest import NOON, SetClock

A, B = FakeScope("a"), FakeScope("b")
ANN, BOB = FakeScope("a", subject="ann"), FakeScope("a", subject="bob")


@pytest.fixture
def sessions(database: Database, clock: SetClock) -> Sessions:
    return Sessions(database, clock)


def _said(handle: TenantSessions, session_id: str) -> list[tuple[int, str]]:
    return [(turn.seq, turn.content) for turn in handle.turns(session_id, limit=100)]


def test_turns_are_numbered_in_the_order_of_their_appending(sessions: Sessions, clock: SetClock) -> None:
    handle = sessions.for_tenant(A)
    made = handle.create(NewSession("ann", "Ferns", ["b", "a", "b"], {"app": 1}))
    handle.append(made.id, [NewTurn("user", "Which ferns like shade?", said_at=5)])
    clock.now += 1000
    appended = handle.append(made.id, [NewTurn("assistant", "Most do."), NewTurn("user", "All?", speaker="Ann")])
    assert (appended.new, [turn.seq for turn in appended.turns]) == (2, [2, 3])
    shown = handle.get(made.id)
    assert (shown.subject, shown.title, shown.tags, shown.data) == ("ann", "Ferns", ["a", "b"], {"app": 1})
    assert (shown.turns, shown.last_active_at) == (3, NOON + 1000)
    assert shown.tokens == sum(turn.tokens for turn in handle.turns(made.id, limit=9)) > 5
    assert _said(handle, made.id) == [(1, "Which ferns like shade?"), (2, "Most do."), (3, "All?")]
    assert [turn.seq for turn in handle.turns(made.id, after=3, limit=1, newest_first=True)] == [2]
    assert [turn.said_at for turn in handle.turns(made.id, limit=2)] == [5, NOON + 1000]


def test_a_key_stands_for_one_turn(sessions: Sessions) -> None:
    handle = sessions.for_tenant(A)
    made, other = handle.create(NewSession("ann")), handle.create(NewSession("ann"))
    first = handle.append(made.id, [NewTurn("user", "one", idempotency_key="k")])
    again = handle.append(made.id, [NewTurn("user", "one", idempotency_key="k"), NewTurn("user", "two", idempotency_key="l")])
    assert (again.new, again.turns[0].id, again.turns[1].seq) == (1, first.turns[0].id, 2)
    with pytest.raises(IdempotencyKeyReused):
        handle.append(made.id, [NewTurn("user", "three"), NewTurn("assistant", "one", idempotency_key="k")])
    with pytest.raises(InvalidInput):
        handle.append(made.id, [NewTurn("user", "x", idempotency_key="m"), NewTurn("user", "y", idempotency_key="m")])
    assert _said(handle, made.id) == [(1, "one"), (2, "two")]
    assert handle.append(other.id, [NewTurn("user", "other", idempotency_key="k")]).new == 1


def test_nobody_reaches_sessions_of_another_tenant_or_subject(sessions: Sessions) -> None:
    anns = sessions.for_tenant(ANN).create(NewSession())
    assert anns.subject == "ann"
    with pytest.raises(Forbidden):
        sessions.for_tenant(ANN).create(NewSession("bob"))
    with pytest.raises(InvalidInput, match="subject"):
        sessions.for_tenant(A).create(NewSession())
    turn = sessions.for_tenant(A).append(anns.id, [NewTurn("user", "mine")]).turns[0]
    for stranger in (B, BOB):
        handle = sessions.for_tenant(stranger)
        for attempt in (
            lambda handle=handle: handle.get(anns.id),
            lambda handle=handle: handle.turns(anns.id, limit=1),
            lambda handle=handle: handle.turn(anns.id, turn.id),
            lambda handle=handle: handle.append(anns.id, [NewTurn("user", "theirs")]),
        ):
            with pytest.raises(NotFound):
                attempt()
    assert sessions.for_tenant(ANN).turn(anns.id, turn.id).content == "mine"


def test_a_session_whose_time_is_up_is_not_there(sessions: Sessions, clock: SetClock) -> None:
    handle = sessions.for_tenant(A)
    idle, absolute = handle.create(NewSession("ann", idle_ttl_s=10)), handle.create(NewSession("ann", absolute_ttl_s=15))
    clock.now += 9_000
    for each in (idle, absolute):
        handle.append(each.id, [NewTurn("user", "still here")])
    clock.now += 6_000
    handle.append(idle.id, [NewTurn("user", "again")])
    with pytest.raises(NotFound):
        handle.append(absolute.id, [NewTurn("user", "too late")])
    clock.now += 10_000
    with pytest.raises(NotFound):
        handle.get(idle.id)


def test_a_batch_is_bounded(sessions: Sessions) -> None:
    handle = sessions.for_tenant(A)
    made = handle.create(NewSession("ann"))
    for count in (0, 501):
        with pytest.raises(InvalidInput):
            handle.append(made.id, [NewTurn("user", "x")] * count)
    assert handle.get(made.id).turns == 0
