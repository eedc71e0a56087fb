"""A session's context asked again: as of then it is the same bytes whatever was said since, and as of now the difference has
names.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from sqlmodel import col

from api.schemas.traces import ReplayOut
from config.errors import Conflict, InvalidInput, NotFound
from rag.context import recaps
from rag.memories.values import Change, Fact
from rag.recall.recall import RecallQuestion
from rag.recall.tables import TurnVector
from rag.sessions.tables import ERASED, ChatSession, Turn
from rag.store.memory import MemoryStore
from rag.traces.left import TracePolicy, read_body
from rag.traces.regression import Report
from rag.traces.replayed import Otherwise, Replayed
from tenants.context import TenantContext
from tests.support import FreeMeter
from tests.unit.replay_stand import AS_IT_WAS, ASH, ELM, Stand, opened
from tests.unit.test_replay import a_session, asked_of_session, check_unchanged, talk
from tests.world import TENANTS

NOW = Otherwise(now=True)
HYBRID: dict[str, Any] = {"strategy": "hybrid", "memories": True, "query": "where does the lamp stand?", "max_tokens": 900}


@pytest.fixture(scope="module")
def still(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    """Each test has sessions and memories of its own; documents stay as they are."""
    yield from opened(tmp_path_factory.mktemp("still"), MemoryStore())


@pytest.fixture
def ash(still: Stand, request: pytest.FixtureRequest) -> TenantContext:
    """Speaks for an end user of this test alone, so that no other test's memories are found."""
    return still.context(ASH, subject=request.node.name[:40])


def changes(replayed: Replayed, *parts: str) -> list[tuple[str, str, str, str | None]]:
    """What of the conversation is other than then: part, id, change and why."""
    assert replayed.conversation is not None
    found = replayed.conversation.items
    return [
        (item.part, item.id, item.change, told.why)
        for item, told in found
        if item.change not in ("same", "moved") and (not parts or item.part in parts)
    ]


def remembered(still: Stand, context: TenantContext, text: str, key: str | None = None) -> str:
    return still.remember(context, Fact(text, key=key), context.subject or "ann").version.memory_id


@pytest.mark.parametrize("seed", range(3))
def test_random_sessions_are_the_same_bytes_as_of_then(still: Stand, seed: int) -> None:
    chance = random.Random(seed)
    contexts = [still.context(name) for name in TENANTS]
    sessions = [(context, a_session(still, context, chance, chance.choice((9, 30, 120)))) for context in contexts]
    traces = [(context, asked_of_session(still, context, session_id, chance)) for context, session_id in sessions * 5]
    check_unchanged(still, traces)
    for context, session_id in sessions:  # and whatever is said, pinned and embedded since
        still.say(context, talk(chance, 30), session_id)
        still.conversing.contexts.pins.for_tenant(context).pin(session_id, 3)
        still.remember(context, Fact("Ann keeps the lamp in the cellar", key="room 0"))
    still.embed_turns()
    check_unchanged(still, traces)


def test_what_was_said_since_is_named_as_of_now(still: Stand, ash: TenantContext) -> None:
    session_id = still.say(ash, talk(random.Random(1), 30))
    other = still.say(still.context(ELM), talk(random.Random(2), 9))
    trace, theirs = still.converse(ash, session_id, **HYBRID), still.converse(still.context(ELM), other, **HYBRID)
    still.say(ash, ["Where does the lamp stand?", "The lamp stands in the lamp room."], session_id)
    assert still.replay(ash, trace).is_empty
    now = still.replay(ash, trace, NOW)
    told = ReplayOut.of(now)
    assert (told.empty, told.query, told.vector) == (False, HYBRID["query"], "stored")
    assert told.conversation is not None
    assert (told.conversation.as_of, told.conversation.turns_then, told.conversation.turns_now) == ("now", 30, 32)
    came = [item for item in told.conversation.items if item.part == "recent" and item.change == "came"]
    assert [(item.seq, item.snippet) for item in came][-1] == (32, "The lamp stands in the lamp room.")
    assert "32" in {str(item.seq) for item in told.conversation.items if item.part == "recalled" and item.change == "came"}
    assert told.context is not None
    assert (told.context.equal, told.context.of) == (False, "outline")
    assert "+turn 32" in told.context.diff
    assert told.rbo < 1
    report = Report()
    for replayed in (now, still.replay(ash, trace)):
        report.add(replayed, {})
    assert (report.contexts, report.contexts_equal, report.empty, len(report.worst)) == (2, 1, 1, 1)
    assert report.rbo == pytest.approx((now.rbo + 1) / 2)
    assert still.replay(still.context(ELM), theirs, NOW).is_empty


def test_memories_that_were_superseded_updated_or_forgotten_are_named(still: Stand, ash: TenantContext) -> None:
    session_id = still.say(ash, ["Where is my lamp?", "In the hall.", "Where is my lamp now?"])
    home = remembered(still, ash, "The lamp stands in Berlin", "home")
    desk, lost = remembered(still, ash, "The desk with the lamp is oak"), remembered(still, ash, "Ann broke a lamp")
    asked = {**HYBRID, "strategy": "recent"}
    trace = still.converse(ash, session_id, **asked)
    assert {found[0] for found in read_body(trace.body)["conversation"]["memories"]} == {home, desk, lost}
    new = remembered(still, ash, "The lamp stands in Oslo", "home")
    still.memories(ash).update(desk, Change(text="The desk with the lamp is pine"), charge_id="u")
    still.clock.now += 1000
    assert still.replay(ash, trace).is_empty
    still.memories(ash).delete(lost)
    still.clock.now += 1000
    now = still.replay(ash, trace, NOW)
    assert sorted(changes(now, "memory")) == sorted(
        [
            ("memory", home, "gone", "superseded"),
            ("memory", desk, "changed", None),
            ("memory", lost, "gone", "forgotten"),
            ("memory", new, "came", None),
        ]
    )
    then = still.replay(ash, trace)  # what was deleted is not brought back, and all else is as it was
    assert changes(then) == [("memory", lost, "gone", "forgotten")]
    assert "Ann broke" not in str(ReplayOut.of(then))
    told = ReplayOut.of(now).conversation
    assert told is not None
    assert {item.id: item.now and item.now.version for item in told.items if item.part == "memory"}[desk] == 2


def test_a_turn_that_was_unpinned_or_left_the_window_is_named(still: Stand, ash: TenantContext) -> None:
    session_id = still.say(ash, talk(random.Random(3), 8), max_turns=8, when_full="archive")
    pins = still.conversing.contexts.pins.for_tenant(ash)
    pins.pin(session_id, 2)
    pins.pin(session_id, 5)
    trace = still.converse(ash, session_id, **{**HYBRID, "max_tokens": 4000, "newest_turns": 8})
    pins.unpin(session_id, 5)
    still.say(ash, talk(random.Random(4), 4), session_id)
    assert still.replay(ash, trace).is_empty
    now = still.replay(ash, trace, NOW)
    assert changes(now, "pinned") == [("pinned", "5", "gone", None)]
    assert changes(now, "recent") == [
        *(("recent", str(seq), "gone", "archived") for seq in range(1, 5)),
        *(("recent", str(seq), "came", None) for seq in range(9, 13)),
    ]


def test_turns_that_are_not_there_any_more_are_named_and_no_error(still: Stand, ash: TenantContext) -> None:
    session_id = still.say(ash, talk(random.Random(5), 40))
    still.embed_turns()
    still.conversing.contexts.pins.for_tenant(ash).pin(session_id, 4)
    trace = still.converse(ash, session_id, **{**HYBRID, "recall_top_k": 50, "max_tokens": 3000, "newest_turns": 40})
    with still.world.database.write(ash) as session:
        gone = col(Turn.session_id) == session_id, col(Turn.seq).between(3, 6)
        ids = [*session.scalars(sa.select(col(Turn.id)).where(*gone))]
        session.execute(sa.delete(TurnVector).where(col(TurnVector.turn_id).in_(ids)))
        session.execute(sa.delete(Turn).where(*gone))
    for otherwise in (AS_IT_WAS, NOW):
        found = changes(still.replay(ash, trace, otherwise))
        assert ("pinned", "4", "gone", "erased") in found
        assert {("recent", str(seq), "gone", "erased") for seq in range(3, 7)} <= {*found}
        assert {("recalled", turn_id, "gone", "erased") for turn_id in ids} & {*found}


def test_a_session_that_is_erased_is_gone_with_its_traces(still: Stand, ash: TenantContext) -> None:
    session_id = still.say(ash, talk(random.Random(6), 5))
    trace = still.converse(ash, session_id, **HYBRID)
    handle = still.traces.for_tenant(ash)
    assert handle.get(trace.id).session_id == session_id
    for outsider in (still.context(ELM), still.context(ASH, subject="another")):
        with pytest.raises(NotFound):
            still.traces.for_tenant(outsider).get(trace.id)
        with pytest.raises(NotFound):
            still.replay(outsider, trace)
    with still.world.database.write(ash) as session:
        session.get_one(ChatSession, session_id).state = ERASED
    for refused in (lambda: handle.get(trace.id), lambda: still.replay(ash, trace)):
        with pytest.raises(NotFound):
            refused()


def test_what_the_plan_does_not_keep_is_not_asked_again(still: Stand, ash: TenantContext, monkeypatch: Any) -> None:
    session_id = still.say(ash, ["The canary sings at dawn.", "And at noon."])
    canary = remembered(still, ash, "The canary is yellow")
    for contents in ("ids", "none"):
        monkeypatch.setattr(still, "policy", TracePolicy(1.0, contents, 30))  # type: ignore[arg-type]
        trace = still.converse(ash, session_id, **{**HYBRID, "message": "When does the canary sing?"})
        assert b"canary" not in trace.body
        assert (trace.vectors, b"trn_" in trace.body, canary.encode() in trace.body) == (None, *(contents == "ids",) * 2)
        with pytest.raises(Conflict, match=contents):
            still.replay(ash, trace)
    monkeypatch.setattr(still, "policy", TracePolicy(1.0, "full", 30))
    full = still.converse(ash, session_id, **{**HYBRID, "query": None, "message": None})
    body = read_body(full.body)
    assert body["asked"]["text"] == "The canary sings at dawn."  # what the user said last is what was asked
    assert b"And at noon" not in full.body
    assert b"is yellow" not in full.body


def test_it_costs_nothing_but_for_a_fresh_vector(still: Stand, ash: TenantContext) -> None:
    session_id = still.say(ash, talk(random.Random(7), 12))
    trace, meter = still.converse(ash, session_id, **{**HYBRID, "strategy": "recall"}), FreeMeter()
    assert (still.replay(ash, trace, meter=meter).charged, meter.paid) == (0, {})
    fresh = still.replay(ash, trace, Otherwise(fresh_vector=True), meter)
    assert (fresh.is_empty, fresh.vector) == (True, "fresh")
    assert fresh.charged == sum(meter.paid.values()) > 0
    trace.space = "another"
    assert still.replay(ash, trace).vector == "fresh"


def test_it_is_asked_as_of_any_time(still: Stand, ash: TenantContext) -> None:
    session_id = still.say(ash, talk(random.Random(8), 10))
    pins = still.conversing.contexts.pins.for_tenant(ash)
    pins.pin(session_id, 1)
    asked = {**HYBRID, "strategy": "recall", "newest_turns": 3}
    earlier = remembered(still, ash, "The lamp stands in Rome", "home")
    moment = still.clock.now
    still.say(ash, talk(random.Random(9), 5), session_id)
    pins.pin(session_id, 2)
    later = remembered(still, ash, "The lamp stands in Bonn", "home")
    trace = still.converse(ash, session_id, **asked)
    then = still.replay(ash, trace, Otherwise(as_of=moment))
    assert then.conversation is not None
    assert (then.conversation.turns_then, then.conversation.turns_now) == (15, 10)
    found = changes(then)
    assert ("pinned", "2", "gone", None) in found
    assert {("memory", later, "gone", None), ("memory", earlier, "came", None)} <= {*found}
    assert {("recent", str(seq), "gone", None) for seq in (13, 14, 15)} <= {*found}
    assert ReplayOut.of(then).conversation.as_of.endswith("Z")  # type: ignore[union-attr]
    with pytest.raises(InvalidInput, match="future"):
        still.replay(ash, trace, Otherwise(as_of=still.clock.now + 1))


def test_recaps_that_were_not_made_then_are_not_made_now(still: Stand, ash: TenantContext, monkeypatch: Any) -> None:
    session_id = still.say(ash, talk(random.Random(10), 90))
    asked = {**HYBRID, "strategy": "recent", "max_tokens": 700}
    with monkeypatch.context() as patch:
        patch.setattr(recaps, "MAX_MADE", 3)
        trace = still.converse(ash, session_id, **asked)
    assert read_body(trace.body)["degraded"] == ["summary"]
    whole = still.converse(ash, session_id, **asked)  # the others are made
    assert still.replay(ash, trace).is_empty
    now = still.replay(ash, trace, NOW)
    assert {change for _, _, change, _ in changes(now, "recap")} >= {"came"}
    assert json.loads(still.rendered)["degraded"] == []
    assert still.replay(ash, whole).is_empty


def test_a_recall_is_asked_again_of_one_session_and_of_all(still: Stand) -> None:
    """Turns count by what stands beside them and by vectors that they had: as of then by those alone."""
    context, chance = still.context(ELM, subject="recaller"), random.Random(11)
    sessions = [still.say(context, talk(chance, 15)) for _ in range(3)]
    still.embed_turns()
    still.say(context, talk(chance, 2), sessions[0])
    question = RecallQuestion("where does the lamp stand since May?", top_k=6)
    one = still.recall(context, question, sessions[0])
    every = still.recall(context, question, subject="recaller")
    still.say(context, ["Where does the lamp stand since May?", "In the hall."], sessions[0])
    still.embed_turns()
    for trace in (one, every):
        then, now = still.replay(context, trace), still.replay(context, trace, NOW)
        assert (then.is_empty, then.vector, then.context) == (True, "stored", None)
        assert not now.is_empty
        assert now.score_difference > 0
        assert ("recalled", "came") in {(part, change) for part, _, change, _ in changes(now)}
    with still.world.database.write(context) as session:
        session.get_one(ChatSession, sessions[1]).state = ERASED
    gone = changes(still.replay(context, every))
    assert ("gone", "erased") in {(change, why) for _, _, change, why in gone}
