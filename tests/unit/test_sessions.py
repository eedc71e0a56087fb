"""Sessions as their handle keeps them: turns stay in order and are there once, bounds hold, and nobody reaches another
tenant's or another subject's.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import chain
from typing import Any

import pytest

from config.clock import Clock
from config.database import Database
from config.errors import BudgetExhausted, Conflict, Forbidden, IdempotencyKeyReused, InvalidInput, NotFound, QuotaExceeded
from config.plans import Plan
from rag.sessions.sessions import Sessions, TenantSessions
from rag.sessions.spending import SessionMeter
from rag.sessions.tables import ChatSession
from rag.sessions.values import NewSession, NewTurn
from tenants.events import EventLog, emit
from tenants.limits.plans import LimitsInForce, Plans
from tenants.limits.quotas import Quotas, used_of
from tests.support import BookedFreeMeter, FakeScope
from tests.unit.conftest import NOON, SetClock

A, B = FakeScope("a"), FakeScope("b")
ANN, BOB = FakeScope("a", subject="ann"), FakeScope("a", subject="bob")


def telling(clock: Clock) -> Callable[..., None]:
    return lambda session, tenant_id, event, subject, **data: emit(session, clock, tenant_id, event, subject, **data)


@pytest.fixture
def sessions(database: Database, clock: SetClock) -> Sessions:
    return Sessions(database, clock, tell=telling(clock))


def _said(handle: TenantSessions, session_id: str) -> list[tuple[int, str]]:
    return [(turn.seq, turn.content) for turn in handle.turns(session_id, limit=100)]


def _say(handle: TenantSessions, session_id: str, *contents: str) -> list[str]:
    """Append and return the ids."""
    return [turn.id for turn in handle.append(session_id, [NewTurn("user", content) for content in contents]).turns]


def _events(database: Database, clock: SetClock, scope: FakeScope) -> list[tuple[str, str]]:
    rows, _ = EventLog(database, clock).for_tenant(scope).list(limit=100)
    return [(row.type, row.subject) for row in rows]


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
    one = NewTurn("user", "one", metadata={"a": 1, "b": [2]}, idempotency_key="k")
    first = handle.append(made.id, [one])
    again = handle.append(made.id, [one, NewTurn("user", "two", idempotency_key="l")])
    assert (again.new, again.turns[0].id, again.turns[1].seq) == (1, first.turns[0].id, 2)
    for changed in ({"content": "One"}, {"role": "assistant"}, {"metadata": {"a": 1}}, {"said_at": 7}, {"speaker": "x"}):
        with pytest.raises(IdempotencyKeyReused):
            handle.append(made.id, [NewTurn("user", "three"), replace(one, **changed)])
    with pytest.raises(InvalidInput):
        handle.append(made.id, [NewTurn("user", "x", idempotency_key="m"), NewTurn("user", "y", idempotency_key="m")])
    assert _said(handle, made.id) == [(1, "one"), (2, "two")]
    assert handle.append(other.id, [replace(one, content="other")]).new == 1


def test_sixteen_writers_leave_no_gap_and_nothing_twice(sessions: Sessions) -> None:
    handle = sessions.for_tenant(A)
    made = handle.create(NewSession("ann"))

    def write(writer: int) -> list[int]:
        """Each batch is sent by two writers, under the same keys."""
        seqs: list[int] = []
        for batch in range(2):
            turns = [NewTurn("user", f"{writer // 2} {batch} {n}", idempotency_key=f"{writer // 2}/{batch}/{n}") for n in "ab"]
            seqs += [turn.seq for turn in handle.append(made.id, turns).turns]
        return seqs

    with ThreadPoolExecutor(16) as pool:
        seqs = list(pool.map(write, range(16)))
    assert seqs[::2] == seqs[1::2]
    said = _said(handle, made.id)
    assert [seq for seq, _ in said] == list(range(1, 33)) == sorted(chain(*seqs[::2]))
    assert len({content for _, content in said}) == 32 == handle.get(made.id).turns
    batches = [content.rpartition(" ")[0] for _, content in said]
    assert batches[::2] == batches[1::2]  # nothing of another call comes between the turns of one


def test_nobody_reaches_sessions_of_another_tenant_or_subject(sessions: Sessions) -> None:
    anns = sessions.for_tenant(ANN).create(NewSession(tags=["t"]))
    assert anns.subject == "ann"
    with pytest.raises(Forbidden):
        sessions.for_tenant(ANN).create(NewSession("bob"))
    with pytest.raises(Forbidden):
        sessions.for_tenant(ANN).list(subject="bob", limit=9)
    with pytest.raises(InvalidInput, match="subject"):
        sessions.for_tenant(A).create(NewSession())
    turn = sessions.for_tenant(A).append(anns.id, [NewTurn("user", "mine")]).turns[0]
    calls: list[Callable[[TenantSessions], Any]] = [
        lambda handle: handle.get(anns.id),
        lambda handle: handle.update(anns.id, {"title": "theirs"}),
        lambda handle: handle.turns(anns.id, limit=1),
        lambda handle: handle.turn(anns.id, turn.id),
        lambda handle: handle.append(anns.id, [NewTurn("user", "theirs")]),
        lambda handle: handle.close(anns.id),
        lambda handle: handle.archive(anns.id),
        lambda handle: handle.resume(anns.id),
        lambda handle: handle.fork(anns.id),
    ]
    for stranger in (B, BOB):
        handle = sessions.for_tenant(stranger)
        for call in calls:
            with pytest.raises(NotFound):
                call(handle)
        own = handle.create(NewSession("bob"))
        with pytest.raises(NotFound):
            handle.turn(own.id, turn.id)
        with pytest.raises(NotFound):
            handle.fork(own.id, turn_id=turn.id)
        assert [each.id for each in handle.list(limit=9)] == [own.id]
        assert handle.list(tag="t", limit=9) == []
    assert sessions.for_tenant(ANN).get(anns.id) == sessions.for_tenant(A).get(anns.id)
    assert sessions.for_tenant(ANN).turn(anns.id, turn.id).content == "mine"


def test_lists_are_by_subject_tag_and_state_newest_first(sessions: Sessions) -> None:
    handle = sessions.for_tenant(A)
    made = [handle.create(NewSession(subject, tags=tags)) for subject in ("ann", "bob") for tags in (["x"], ["x", "y"], [])]
    handle.close(made[1].id)

    def listed(**wanted: Any) -> list[int]:
        """Page by page, one on each."""
        found: list[ChatSession] = []
        while page := handle.list(limit=1, after=found[-1].id if found else None, **wanted):
            found += page
        return sorted((made.index(each) for each in found), key=lambda index: made[index].id, reverse=True)

    ids = {session.id: number for number, session in enumerate(made)}
    assert [ids[each.id] for each in handle.list(limit=9)] == sorted(range(6), key=lambda n: made[n].id, reverse=True)
    made = [handle.get(each.id) for each in made]
    assert sorted(listed(subject="bob")) == [3, 4, 5]
    assert sorted(listed(tag="x")) == [0, 1, 3, 4]
    assert sorted(listed(tag="y", subject="ann")) == [1] == listed(state="closed")
    handle.update(made[0].id, {"tags": ["z"], "title": "Z", "metadata": {"n": 1}})
    assert [(each.title, each.tags, each.data) for each in handle.list(tag="z", limit=9)] == [("Z", ["z"], {"n": 1})]
    assert ids[made[0].id] not in [ids[each.id] for each in handle.list(tag="x", limit=9)]


def test_states_lead_to_one_another_and_are_told(sessions: Sessions, database: Database, clock: SetClock) -> None:
    handle = sessions.for_tenant(A)
    made = handle.create(NewSession("ann"))
    steps = [(handle.close, "closed"), (handle.close, "closed"), (handle.archive, "archived"), (handle.resume, "open")]
    for step, state in (*steps, (handle.archive, "archived")):
        assert step(made.id).state == state == handle.get(made.id).state
        if state != "open":
            with pytest.raises(Conflict, match=state):
                handle.append(made.id, [NewTurn("user", "x")])
    with pytest.raises(Conflict):
        handle.close(made.id)
    names = ["created", "closed", "archived", "resumed", "archived"]
    assert _events(database, clock, A) == [(f"session.{name}", made.id) for name in names]
    assert _events(database, clock, B) == []


def test_a_session_whose_time_is_up_is_not_there(sessions: Sessions, clock: SetClock) -> None:
    handle = sessions.for_tenant(A)
    idle, absolute = handle.create(NewSession("ann", idle_ttl_s=10)), handle.create(NewSession("ann", absolute_ttl_s=15))
    away = handle.archive(handle.create(NewSession("ann", idle_ttl_s=10, absolute_ttl_s=100)).id)
    clock.now += 9_000
    for each in (idle, absolute):
        _say(handle, each.id, "still here")
    clock.now += 6_000
    _say(handle, idle.id, "again")
    with pytest.raises(NotFound):
        _say(handle, absolute.id, "too late")
    with pytest.raises(NotFound):
        handle.resume(absolute.id)
    clock.now += 10_000
    with pytest.raises(NotFound):
        handle.get(idle.id)
    assert [each.id for each in handle.list(limit=9)] == [away.id]
    assert handle.resume(away.id).expires_at == clock.now + 10_000
    assert handle.update(away.id, {"idle_ttl_s": None}).expires_at == NOON + 100_000


def test_bounds_are_changed_by_the_application_only(sessions: Sessions) -> None:
    made = sessions.for_tenant(A).create(NewSession("ann", budget_tokens=5))
    own = sessions.for_tenant(ANN)
    assert own.update(made.id, {"title": "mine", "tags": ["t"]}).title == "mine"
    for bound in ("budget_tokens", "budget_micro_usd", "idle_ttl_s", "max_turns", "when_full"):
        with pytest.raises(Forbidden):
            own.update(made.id, {"title": "more", bound: None})
    assert (own.get(made.id).title, own.get(made.id).budget_tokens) == ("mine", 5)
    for nonsense in ({}, {"state": "open"}, {"subject": "bob"}):
        with pytest.raises(InvalidInput):
            sessions.for_tenant(A).update(made.id, nonsense)


def test_a_fork_begins_with_the_turns_so_far_and_goes_its_own_way(sessions: Sessions, clock: SetClock) -> None:
    handle = sessions.for_tenant(A)
    made = handle.create(NewSession("ann", "T", ["t"], {"m": 1}, idle_ttl_s=60, max_turns=5, when_full="archive"))
    ids = _say(handle, made.id, *"abcdefg")
    SessionMeter(sessions.database, A, made.id, BookedFreeMeter(database=sessions.database, scope=A), price=1).debit("c", 3)
    clock.now += 5_000
    fork = handle.fork(made.id, turn_id=ids[3])
    assert (fork.forked_from, fork.forked_at_seq, fork.turns, fork.subject) == (made.id, 4, 4, "ann")
    assert (fork.title, fork.tags, fork.data, fork.expires_at) == ("T", ["t"], {"m": 1}, clock.now + 60_000)
    assert (fork.archived_turns, fork.archived_tokens, fork.tokens, fork.spent_tokens) == (0, 0, 4, 0)
    _say(handle, fork.id, "x")
    _say(handle, made.id, "h")
    assert [content for _, content in _said(handle, fork.id)] == [*"abcdx"]
    assert [content for _, content in _said(handle, made.id)] == [*"abcdefgh"]
    assert {turn.said_at for turn in handle.turns(fork.id, limit=4)} == {NOON}
    assert not {turn.id for turn in handle.turns(fork.id, limit=9)} & set(ids)
    assert sorted(each.id for each in handle.list(tag="t", limit=9)) == sorted([made.id, fork.id])
    whole = handle.fork(handle.fork(made.id).id)
    assert (whole.turns, len(_said(handle, whole.id))) == (8, 8)


def test_a_fork_copies_page_by_page_and_its_turns_wait_for_vectors(sessions: Sessions, database: Database) -> None:
    handle = sessions.for_tenant(A)
    made = handle.create(NewSession("ann"))
    for start in range(0, 600, 300):
        _say(handle, made.id, *map(str, range(start, start + 300)))
    with database.write(A) as session:
        session.get_one(ChatSession, made.id).embedded_turns = 600
    fork = handle.fork(made.id)
    assert [turn.content for turn in handle.turns(fork.id, limit=1000)] == [*map(str, range(600))]
    assert fork.embedded_turns == 0


@pytest.mark.parametrize("bound", [{"max_turns": 4}, {"max_tokens": 4}])
def test_a_full_session_refuses_or_lets_the_oldest_turns_leave(sessions: Sessions, bound: dict[str, int]) -> None:
    handle = sessions.for_tenant(A)
    strict, loose = handle.create(NewSession("ann", **bound)), handle.create(NewSession("ann", **bound, when_full="archive"))
    for each in (strict, loose):
        _say(handle, each.id, "a", "b", "c")
    with pytest.raises(Conflict, match=next(iter(bound))):
        _say(handle, strict.id, "d", "e")
    _say(handle, strict.id, "d")
    assert [content for _, content in _said(handle, strict.id)] == [*"abcd"]
    _say(handle, loose.id, "d", "e", "f")
    shown = handle.get(loose.id)
    assert (shown.turns, shown.archived_turns, shown.archived_tokens) == (6, 2, 2)
    assert [content for _, content in _said(handle, loose.id)] == [*"abcdef"]
    _say(handle, loose.id, *"ghijkl")
    if "max_tokens" in bound:
        with pytest.raises(Conflict):
            _say(handle, loose.id, "m", "one turn that does not fit alone")
    shown = handle.get(loose.id)
    assert (shown.turns, shown.archived_turns, shown.archived_tokens) == (12, 8, 8)


def test_room_is_made_where_the_counts_are_not_those_of_the_turns(sessions: Sessions, database: Database) -> None:
    handle = sessions.for_tenant(A)
    made = handle.create(NewSession("ann", max_tokens=4, when_full="archive"))
    _say(handle, made.id, *"abc")
    with database.write(A) as session:
        session.get_one(ChatSession, made.id).tokens += 100
    _say(handle, made.id, *"de")
    shown = handle.get(made.id)
    assert (shown.turns, shown.archived_turns, shown.tokens - shown.archived_tokens) == (5, 4, 1)
    _say(handle, made.id, *"fghi")
    assert handle.get(made.id).archived_turns == 5


def test_a_session_spends_no_more_than_its_budget(sessions: Sessions, database: Database) -> None:
    handle, meter = sessions.for_tenant(A), BookedFreeMeter(database=database, scope=A)
    tokens, money = (handle.create(NewSession("ann", **budget)) for budget in ({"budget_tokens": 10}, {"budget_micro_usd": 2}))
    asked = SessionMeter(database, A, tokens.id, meter, price=500_000)
    asked.debit("one", 6)
    asked.debit("one", 6)  # the same question again
    with pytest.raises(BudgetExhausted, match="budget is 10 tokens: 6 are spent, and this needs 5"):
        asked.debit("two", 5)
    assert asked.hold("batch", 4)
    assert meter.paid == {"one": 6}
    asked.settle("batch", 3)
    asked.refund("one")
    shown = handle.get(tokens.id)
    assert (shown.spent_tokens, shown.spent_cost) == (3, 3 * 500_000)
    paying = SessionMeter(database, A, money.id, meter, price=500_000)
    with pytest.raises(BudgetExhausted, match="2 micro-dollars"):
        paying.hold("h", 5)
    paying.hold("h", 4)
    paying.settle_part("h", "p", 1)
    paying.hold("h", 3)
    paying.release("h")
    assert handle.get(money.id).spent_tokens == 1
    for stranger in (B, A):
        free = BookedFreeMeter(database=database, scope=stranger)
        with pytest.raises(NotFound):
            SessionMeter(database, stranger, money.id if stranger is B else "ses_none", free, price=1).debit("x", 1)
        assert not free.paid


def test_what_the_tenant_cannot_pay_is_not_taken_of_the_session(sessions: Sessions, database: Database) -> None:
    class Empty(BookedFreeMeter):
        def debit(self, charge_id: str, tokens: int) -> bool:
            raise BudgetExhausted("the tenant has none left")

    made = sessions.for_tenant(A).create(NewSession("ann"))
    with pytest.raises(BudgetExhausted, match="tenant"):
        SessionMeter(database, A, made.id, Empty(database=database, scope=A), price=1).debit("x", 9)
    assert sessions.for_tenant(A).get(made.id).spent_tokens == 0


def test_the_plan_counts_sessions_exactly(database: Database, clock: SetClock) -> None:
    quotas = Quotas(LimitsInForce(database, clock, Plans({"small": Plan(sessions=5)}, "small"), fresh_ms=0))
    handle = Sessions(database, clock, quotas).for_tenant(A)
    first = handle.create(NewSession("ann"))

    def make(number: int) -> int:
        try:
            handle.fork(first.id) if number % 2 else handle.create(NewSession("ann"))
        except QuotaExceeded:
            return 0
        return 1

    with ThreadPoolExecutor(12) as pool:
        assert sum(pool.map(make, range(12))) == 4
    with database.read(A) as session:
        assert used_of(session, "a").sessions == 5 == len(handle.list(limit=99))


def test_a_batch_is_bounded(sessions: Sessions) -> None:
    handle = sessions.for_tenant(A)
    made = handle.create(NewSession("ann"))
    for count in (0, 501):
        with pytest.raises(InvalidInput):
            handle.append(made.id, [NewTurn("user", "x")] * count)
    assert handle.get(made.id).turns == 0
