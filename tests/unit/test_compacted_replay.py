"""What was asked before turns were packed is asked again as of then: the same bytes, by vectors that are kept for as long as
a trace may need them, and no longer.
"""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from sqlmodel import col, select

from api.tracing import Tracing
from config.errors import ContentDamaged
from rag.recall.recall import RecallQuestion
from rag.recall.tables import TurnVector
from rag.sessions.compacting import SessionCompactor
from rag.sessions.sweeping import Owner
from rag.sessions.tables import PIECE, Turn, TurnArchive
from rag.store.memory import MemoryStore
from rag.traces.erasing import DAY_MS, Sweeper
from rag.traces.old_vectors import INDEXED_MS, OldVectors
from rag.traces.replayed import Otherwise
from rag.traces.tables import Trace
from tenants.context import TenantContext
from tests.support import FreeMeter
from tests.unit.replay_stand import AS_IT_WAS, ASH, ELM, Stand, opened
from tests.unit.test_conversation_replay import HYBRID, NOW, changes
from tests.unit.test_replay import asked_of_session, check_unchanged, talk, words
from tests.unit.test_session_sweep import Death, _dying
from tests.world import TENANTS

POSTGRESQL_DAILY = False  # the statements run there in `test_migrations`
LAMP = "where does the lamp stand?"
RETENTION = 30


@pytest.fixture(scope="module")
def attic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    yield from opened(tmp_path_factory.mktemp("attic"), MemoryStore())


@pytest.fixture
def fresh(attic: Stand) -> Stand:
    """Without traces or packed vectors of other tests: a tenant's oldest trace says what goes."""
    with attic.world.database.system_write() as session:
        session.execute(sa.delete(Trace))
        session.execute(sa.update(TurnArchive).values(packed_at=None))
    return attic


def compact(stand: Stand) -> int:
    return SessionCompactor(stand.sessions, pause=lambda _seconds: None).run_once()


def let_go(stand: Stand) -> int:
    return OldVectors(stand.world.database, stand.clock, pause=lambda _seconds: None).run_once()


def sweep(stand: Stand, days: int = RETENTION) -> int:
    return Sweeper(stand.world.database, stand.clock, lambda _: days).run_once()


def vectors(stand: Stand, session_id: str) -> list[int]:
    """The numbers of the turns that have one."""
    with stand.world.database.system_read() as session:
        found = select(col(TurnVector.seq)).where(col(TurnVector.session_id) == session_id).order_by(col(TurnVector.seq))
        return [*session.scalars(found)]


def spoken(stand: Stand, context: TenantContext, turns: int = PIECE + 10, window: int = PIECE) -> str:
    """With vectors of all its turns."""
    session_id = stand.say(context, talk(random.Random(turns), turns), max_turns=window, when_full="archive")
    stand.embed_turns()
    return session_id


def lived(stand: Stand, chance: random.Random, rounds: int) -> None:
    """Two tenants talk, ask and pin while turns leave the windows and are packed."""
    sessions, traces = list[tuple[TenantContext, str]](), list[tuple[TenantContext, Trace]]()
    for context in [stand.context(name) for name in TENANTS]:
        bounds = {"max_turns": chance.choice((12, 150)), "when_full": "archive"}
        sessions.append((context, stand.say(context, talk(chance, 20), **bounds)))
    for _ in range(rounds):
        context, session_id = chance.choice(sessions)
        last = len(stand.sessions.for_tenant(context).turns(session_id, limit=5000))
        stand.say(context, talk(chance, chance.choice((1, 20, 90))), session_id)
        if chance.random() < 0.6:
            stand.embed_turns()
        if chance.random() < 0.4:
            pins = stand.conversing.contexts.pins.for_tenant(context)
            for seq in [pinned.turn.seq for pinned in pins.list(session_id)][1:]:  # there is room for two in any context
                pins.unpin(session_id, seq)
            pins.pin(session_id, chance.randint(1, last))
        if chance.random() < 0.3:  # as a process that has nothing in memory
            stand.conversing.recall.residents.forget(context.tenant_id, [session_id])
        traces += [(context, asked_of_session(stand, context, session_id, chance)) for _ in range(2)]
        if chance.random() < 0.3:
            compact(stand)
    for context, session_id in sessions:
        stand.say(context, talk(chance, 2 * PIECE), session_id)
    stand.embed_turns()
    assert compact(stand) >= 2 * PIECE
    check_unchanged(stand, traces)


def test_whatever_was_asked_is_the_same_bytes_as_of_then(attic: Stand) -> None:
    lived(attic, random.Random(0), 6)


@pytest.mark.full
@pytest.mark.parametrize("seed", range(100, 125))
def test_whatever_was_asked_in_long_lives_is_the_same_bytes_as_of_then(attic: Stand, seed: int) -> None:
    lived(attic, random.Random(seed), 25)


def test_vectors_go_with_the_last_trace_of_their_time_and_texts_stay(fresh: Stand) -> None:
    ash, elm = fresh.context(ASH), fresh.context(ELM)
    ours, theirs = spoken(fresh, ash), spoken(fresh, elm)
    asked = {**HYBRID, "strategy": "recall", "recall_top_k": 20}
    ours_then, theirs_then = fresh.converse(ash, ours, **asked), fresh.converse(elm, theirs, **asked)
    for context, session_id in ((ash, ours), (elm, theirs)):
        fresh.say(context, talk(random.Random(1), 2 * PIECE), session_id)
    fresh.embed_turns()
    shown = [turn.content for turn in fresh.sessions.for_tenant(ash).turns(ours, limit=500)]
    assert compact(fresh) == 2 * 2 * PIECE
    every = [*range(1, 3 * PIECE + 11)]
    fresh.clock.now += (RETENTION - 1) * DAY_MS
    kept = fresh.converse(elm, theirs, **asked)
    assert (sweep(fresh), let_go(fresh)) == (0, 0)
    fresh.clock.now += 2 * DAY_MS
    assert let_go(fresh) == 0, "there are traces that reach them"
    assert (vectors(fresh, ours), vectors(fresh, theirs)) == (every, every)
    assert fresh.replay(ash, ours_then).is_empty
    assert sweep(fresh, RETENTION + 2) == 0
    assert let_go(fresh) == 0, "of a retention that was raised in time"
    assert sweep(fresh) == 2
    assert let_go(fresh) == 2 * 2
    assert let_go(fresh) == 0
    assert (vectors(fresh, ours), vectors(fresh, theirs)) == (every[2 * PIECE :],) * 2
    assert [turn.content for turn in fresh.sessions.for_tenant(ash).turns(ours, limit=500)] == shown
    assert fresh.replay(elm, kept).is_empty
    for context, trace in ((ash, ours_then), (elm, theirs_then)):  # whoever still had one is told what is found by words
        replayed = fresh.replay(context, trace)
        assert replayed.difference.is_empty
        assert replayed.conversation is not None
        assert {item.part for item, _ in replayed.conversation.items} >= {"recalled"}
        assert {item.part for item, _ in replayed.conversation.items if item.change in ("came", "gone")} <= {"recalled"}


def test_where_no_trace_is_they_go_soon_and_each_tenants_own_decide(fresh: Stand) -> None:
    ash, elm = fresh.context(ASH), fresh.context(ELM)
    ours, theirs = (spoken(fresh, context, 2 * PIECE) for context in (ash, elm))
    trace = fresh.recall(elm, RecallQuestion(LAMP), theirs)
    assert compact(fresh) == 2 * PIECE
    assert let_go(fresh) == 0, "a trace may be under way"
    fresh.clock.now += 2 * INDEXED_MS
    assert let_go(fresh) == 1
    assert (vectors(fresh, ours)[0], vectors(fresh, theirs)[0]) == (PIECE + 1, 1)
    fork = fresh.sessions.for_tenant(elm).fork(theirs).id
    assert fresh.replay(elm, trace).is_empty
    assert vectors(fresh, fork) == [seq for seq in vectors(fresh, theirs) if seq > PIECE]
    with fresh.world.database.system_read() as session:
        found = select(TurnArchive).where(col(TurnArchive.session_id) == fork)
        assert [archive.packed_at for archive in session.scalars(found)] == [None]


def test_as_of_a_time_the_window_is_that_of_then(fresh: Stand) -> None:
    context = fresh.context(ASH)
    session_id, moment = spoken(fresh, context, PIECE, window=20), fresh.clock.now
    asked = {**HYBRID, "strategy": "recall", "newest_turns": 3}
    then = [fresh.recall(context, RecallQuestion(LAMP), session_id), fresh.converse(context, session_id, **asked)]
    fresh.say(context, talk(random.Random(4), 2 * PIECE), session_id)
    fresh.embed_turns()
    assert compact(fresh) == 2 * PIECE
    for trace in then:
        replayed = fresh.replay(context, trace, Otherwise(as_of=moment))
        assert replayed.is_empty
        assert [item for item, _ in replayed.conversation.items if item.part in ("recalled", "recent")]


def test_an_index_that_began_before_the_window_counts_what_is_packed(fresh: Stand) -> None:
    """Turns that left the window weigh in its scores until it is made anew, so a trace of it needs their vectors."""
    context = fresh.context(ASH)
    session_id = spoken(fresh, context, 20, window=10)
    fresh.recall(context, RecallQuestion(LAMP), session_id)
    fresh.say(context, talk(random.Random(2), 2 * PIECE), session_id)
    fresh.embed_turns()
    assert compact(fresh) == 2 * PIECE
    fresh.clock.now += INDEXED_MS // 2
    later = fresh.recall(context, RecallQuestion(LAMP), session_id)
    fresh.clock.now += 2 * DAY_MS
    assert let_go(fresh) == 0
    assert fresh.replay(context, later).is_empty


def test_a_pass_that_dies_or_meets_another_leaves_a_piece_with_or_without(fresh: Stand) -> None:
    context, at, died = fresh.context(ASH), 0, True
    while died:
        session_id, at, died = spoken(fresh, context, 2 * PIECE), at + 1, False
        compact(fresh)
        fresh.clock.now += DAY_MS
        try:
            with _dying(fresh.world.database, at):
                let_go(fresh)
        except Death:
            died = True
            with fresh.world.database.system_read() as session:
                found = select(col(TurnArchive.packed_at)).where(col(TurnArchive.session_id) == session_id)
                whole = session.scalars(found).one() is not None
            assert vectors(fresh, session_id)[0] == (1 if whole else PIECE + 1)
            let_go(fresh)
        assert vectors(fresh, session_id)[0] == PIECE + 1
    assert at > 1
    other = OldVectors(fresh.world.database, fresh.clock)
    other._let_go(Owner(fresh.context(ELM).tenant_id), _Piece(session_id, PIECE + 1, 2 * PIECE))  # type: ignore[arg-type]
    assert vectors(fresh, session_id)[-1] == 2 * PIECE, "another tenant's"


class _Piece:
    def __init__(self, session_id: str, first_seq: int, last_seq: int) -> None:
        self.session_id, self.first_seq, self.last_seq = session_id, first_seq, last_seq


def test_what_is_packed_is_told_of_where_it_is_gone_and_damage_is_named(fresh: Stand) -> None:
    context = fresh.context(ASH)
    session_id = spoken(fresh, context, 20)
    fresh.conversing.contexts.pins.for_tenant(context).pin(session_id, 4)
    asked: dict[str, Any] = {**HYBRID, "max_tokens": 4000, "newest_turns": 20}
    traces = [fresh.converse(context, session_id, **asked), fresh.recall(context, RecallQuestion(words(random.Random(1))))]
    fresh.say(context, talk(random.Random(3), 2 * PIECE), session_id)
    said = {turn.seq: turn.content for turn in fresh.sessions.for_tenant(context).turns(session_id, limit=PIECE)}
    assert compact(fresh) == PIECE
    now = fresh.replay(context, traces[0], NOW)
    assert ("recent", "1", "gone", "archived") in changes(now)
    assert now.conversation is not None
    told = {item.id: told.snippet for item, told in now.conversation.items if item.part == "recent"}
    assert told["1"] is not None
    assert said[1].startswith(told["1"][:40])
    with fresh.world.database.write(context) as session:
        archives = sa.update(TurnArchive).where(col(TurnArchive.session_id) == session_id).values(packed=b"x")
        session.execute(archives, execution_options={"synchronize_session": False})
    for trace in traces:
        with pytest.raises(ContentDamaged):
            fresh.replay(context, trace)
    without = fresh.replay(context, fresh.converse(context, session_id, **asked))  # a pin, then as now
    assert ([*without.body["degraded"]], without.is_empty) == (["summary", "pins"], True)
    whole = fresh.recall(context, RecallQuestion(LAMP), spoken(fresh, context, 5))
    tracing = Tracing(fresh.tracer, fresh.traces, fresh.replayer, threading.Event())
    lines = [*tracing.replays(context, FreeMeter(), [*traces, whole], AS_IT_WAS, charge_id="r")]  # type: ignore[arg-type]
    assert [[*json.loads(line)] for line in lines] == [["skipped"], ["skipped"], ["replay"], ["report"]]
    assert json.loads(lines[-1])["report"]["skipped"] == {"content_damaged": 2}


def test_what_was_pinned_far_from_the_newest_is_shown_as_it_was(fresh: Stand) -> None:
    context = fresh.context(ELM)
    session_id = spoken(fresh, context, PIECE + 30, window=PIECE + 40)
    fresh.conversing.contexts.pins.for_tenant(context).pin(session_id, 4)
    trace = fresh.converse(context, session_id, **{**HYBRID, "strategy": "recent", "max_tokens": 300})
    fresh.say(context, talk(random.Random(6), 2 * PIECE), session_id)
    assert compact(fresh) == PIECE
    assert fresh.replay(context, trace).is_empty


def test_what_there_is_to_do_is_found_by_its_index(fresh: Stand) -> None:
    with fresh.world.database.engine.connect() as connection:
        statement = "SELECT session_id FROM turn_archives WHERE packed_at IS NOT NULL AND tenant_id = 'a' AND packed_at < 9"
        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement} ORDER BY packed_at LIMIT 20").all()
    assert "ix_turn_archives_vectors (tenant_id=? AND packed_at" in str(plan)
    assert "TEMP B-TREE" not in str(plan)


def test_the_turns_of_several_sessions_are_had_back_together(fresh: Stand) -> None:
    """As those that a question to all of a subject's sessions found."""
    context, question = fresh.context(ASH, subject="wanderer"), RecallQuestion(LAMP, top_k=30, neighbours=1)
    sessions = [spoken(fresh, context, PIECE, window=PIECE) for _ in range(2)]
    trace = fresh.recall(context, question, subject="wanderer")
    for session_id in sessions:
        fresh.say(context, talk(random.Random(5), PIECE), session_id)
    assert compact(fresh) == 2 * PIECE
    of_both = select(Turn).where(col(Turn.session_id).in_(sessions), col(Turn.seq) <= PIECE)
    with fresh.world.database.system_read() as session:
        assert [turn.data for turn in session.scalars(of_both)] == [None] * 2 * PIECE
    assert fresh.replay(context, trace).is_empty
