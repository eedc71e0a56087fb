"""Traces are kept as the plan says, written behind, shown to whom they belong, and gone when they must be."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from sqlalchemy.exc import OperationalError

from api.processes.upkeep import Task, Upkeep
from config.database import Database
from config.errors import NotFound
from rag.arranging.wishes import Boost, Recency, Wishes
from rag.filters import parse
from rag.packing.rendering import Citation
from rag.ranking import Place, Ranked
from rag.retrieval.question import Answer, AskedOf, Question, Searched
from rag.sessions.sessions import Sessions
from rag.sessions.tables import ERASED, ChatSession
from rag.sessions.values import NewSession
from rag.traces import recorder
from rag.traces.conversed import Conversed
from rag.traces.erasing import DAY_MS, KNOWN_MS, Sweeper, fence
from rag.traces.left import Left, Packing, TracePolicy, is_sampled, packed_vectors, read_body, unpacked_vectors
from rag.traces.reading import Traces, Wanted, position
from rag.traces.recorder import Tracer
from rag.traces.tables import Trace, TraceErasure
from rag.traces.wording import question_from_json, question_to_json
from tenants.context import Principal, PrincipalKind, Scope, TenantContext
from tests.properties.test_packing import passage
from tests.unit.conftest import SetClock

SPACE, CANARY = "space", "xyzzycanary"
ALL = TracePolicy(1.0, "full", 30)
FILTER = parse(
    {"op": "and", "filters": [{"key": "k", "op": "in", "value": ["v", 1]}, {"key": "k", "op": "exists", "value": True}]}
)
ALICE, BOB = "alice", "bob"
PASSAGE = passage("words of a document", id="one")


def asker(tenant: str = "a", **more: Any) -> TenantContext:
    return TenantContext(tenant, b"salt", Principal(PrincipalKind.KEY, "key_1", frozenset({Scope.QUERY})), **more)


def left(text: str = "what is kept?", **more: Any) -> Left:
    vectors = np.arange(8, dtype=np.float32).reshape(2, 4) / 8
    asked_of = (AskedOf("default", 7, "standard", 2),)
    searched = Searched((text, "in other words"), vectors, 5, asked_of, (Ranked("one", 0.5, {"dense": Place(1, 0.7)}, 0.4),))
    answer = Answer((PASSAGE,), 3, 0, {"default": 7}, {"search": 1.5}, degraded=("rerank",), searched=searched)
    packing = Packing("the text", 2, 100, "o200k_base", 0, (Citation(1, PASSAGE, 0, 3, 0, 3),))
    question = Question(text, ("default",), filter=FILTER)
    return Left(**{"kind": "context", "question": question, "answer": answer, "packing": packing, **more})


def conversed() -> Conversed:
    """Of a context in which a turn and a memory were found."""
    vector = np.arange(4, dtype=np.float32)
    return Conversed(CANARY, vector, ("memories",), (("trn_1", 0.5),), {"memories": [["mem_1", 1, 0.5]]})


@pytest.fixture
def tracer(database: Database, clock: SetClock) -> Tracer:
    return Tracer(database, clock, lambda _: ALL, SPACE)


def rows(database: Database) -> list[Any]:
    with database.system_read() as session:
        return [*session.scalars(sa.select(Trace))]


def test_a_trace_holds_what_replaying_needs_and_no_text_of_a_document(tracer: Tracer, database: Database) -> None:
    name = tracer.leave(asker(labels=frozenset({"red"})), left(), request="r")
    tracer.leave(asker("b"), left("of b"), request="r")
    assert rows(database) == []
    tracer.flush()
    trace = Traces(database).for_tenant(asker()).get(name or "")
    body = read_body(trace.body)
    assert (trace.kind, trace.tenant_id, trace.space, trace.contents) == ("context", "a", SPACE, "full")
    assert question_from_json(body["question"]) == left().question
    assert body["searched"] == {"phrasings": ["what is kept?", "in other words"], "at": 5, "dense": True}
    assert body["collections"] == {"default": [7, "standard", 2]}
    assert (body["labels"], body["degraded"], body["budget"]["embedding_tokens"]) == (["red"], ["rerank"], 3)
    assert body["passages"][0][:2] == ["one", PASSAGE.document_id]
    assert body["passages"][0][-3:] == [0.4, [1, 0.7], None]
    assert body["context"]["pieces"] == [[1, "one", 0, 3]]
    vectors = unpacked_vectors(trace.vectors or b"", 2, 4)
    assert vectors is not None
    assert (len(trace.vectors or b""), vectors.tolist()) == (16, (np.arange(8).reshape(2, 4) / 8).tolist())
    assert not any(PASSAGE.text.encode() in row.body or b"the text" in row.body for row in rows(database))


def test_vectors_come_back_exactly_whatever_they_are() -> None:
    chance = np.random.default_rng(1)
    moved = chance.standard_normal((1, 5)).astype(np.float32)
    for vectors, size in ((moved, 20), (moved.astype(np.float16).astype(np.float32), 10), (moved * 1e30, 20)):
        data = packed_vectors(vectors)
        back = unpacked_vectors(data, 1, 5)
        assert back is not None
        assert (len(data), np.array_equal(back, vectors)) == (size, True)
    assert unpacked_vectors(data, 1, 4) is None


def test_a_question_comes_back_as_it_was() -> None:
    wishes = Wishes(0.5, (Boost(FILTER, 0.1),), Recency(0.2, 3), True, 2, 0.5, 1, 2, 3)
    asked = Question("a", ("b", "c"), 7, parse({"op": "not", "filter": {"key": "n", "op": "gte", "value": 2}}), ("d",), wishes)
    for question in (asked, replace(asked, mode="dense", as_of=5, rerank=True, rewrite="hyde", dense_weight=0.3, tuned=False)):
        assert question_from_json(question_to_json(question)) == question


@pytest.mark.parametrize(("contents", "kept"), [("full", True), ("ids", False), ("none", False)])
def test_what_the_plan_does_not_keep_is_nowhere_in_the_table(
    database: Database, clock: SetClock, contents: Any, kept: bool
) -> None:
    tracer = Tracer(database, clock, lambda _: TracePolicy(1.0, contents, 30), SPACE)
    question = Question(CANARY, ("default",), filter=parse({"key": CANARY, "op": "eq", "value": CANARY}))
    spoken = left(CANARY, question=question, words={"said": CANARY}, conversed=conversed())
    name = tracer.leave(asker(), spoken, request="r")
    tracer.flush()
    [row] = rows(database)
    assert (CANARY in str(row.model_dump())) is kept
    assert (row.vectors is not None, row.space is not None) == (kept, kept)
    assert len(row.vectors or b"") == kept * 3 * 4 * 2  # of two phrasings, and of what was asked of the conversation
    body = read_body(row.body)
    assert ("passages" in body, "labels" in body) == (contents != "none",) * 2
    assert [each in str(row.body) for each in ("one", "trn_1", "mem_1")] == [contents != "none"] * 3
    assert (body["degraded"], "asked" in body) == (["memories"], kept)
    assert (body["found"], body["context"]["tokens"], row.id) == (1, 2, name)


def test_sampling_depends_on_the_request_alone(database: Database, clock: SetClock) -> None:
    requests = [f"request {number}" for number in range(2000)]
    tracer = Tracer(database, clock, lambda tenant: replace(ALL, sample=0.3 if tenant == "a" else 0.0), SPACE)
    chosen = [tracer.leave(asker(), left(), request=request) is not None for request in requests]
    assert chosen == [is_sampled("a", request, 0.3) for request in requests]
    assert 500 < sum(chosen) < 700
    assert all(is_sampled("a", request, 0.6) for request, kept in zip(requests, chosen, strict=True) if kept)
    assert chosen != [is_sampled("b", request, 0.3) for request in requests]
    assert tracer.leave(asker("b"), left(), request="r") is None
    assert is_sampled("a", "r", 1.0)


def test_what_cannot_be_written_waits_and_no_more_than_there_is_room_for(
    tracer: Tracer, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "MAX_WAITING", 3)
    names = [tracer.leave(asker(), left(), request="r") for _ in range(5)]
    assert [name is None for name in names] == [False, False, False, True, True]

    def broken(*_: object) -> None:
        raise OperationalError("", {}, Exception())

    with monkeypatch.context() as patch:
        patch.setattr(database, "write", broken)
        with pytest.raises(OperationalError):
            tracer.flush()
    tracer.flush()
    assert {row.id for row in rows(database)} == {name for name in names if name}
    assert tracer.leave(asker(), left(), request="r") is not None


def test_large_ones_that_wait_take_no_more_room_than_many_small_ones(tracer: Tracer, database: Database) -> None:
    """Texts are not written, and wait with what they are digested for."""
    passages, text, message = tuple(passage("x" * 50_000, id=str(n)) for n in range(20)), "y" * 2**20, "z" * 2**20
    large = left(
        answer=Answer(passages, 3, 0, {}),
        packing=Packing(text, 2, 100, "o200k_base"),
        words={"message": message, "pins": [text]},
    )
    for _ in range(2):
        names = [tracer.leave(asker(tenant), large, request="r") for tenant in ("a", "b") * 10]
        assert [name is None for name in names] == [False] * 16 + [True] * 4
        tracer.flush()
    assert [row.tenant_id for row in rows(database)].count("a") == 2 * 8
    tracer._bytes = recorder.MAX_BYTES + 1  # of whatever size one alone is, it has room
    assert tracer.leave(asker(), large, request="r") is not None


def test_a_process_that_is_asked_to_stop_loses_none(tracer: Tracer, database: Database) -> None:
    with Upkeep([Task("traces", tracer.flush, 3600)]):
        name = tracer.leave(asker(), left(), request="r")
        assert rows(database) == []
    assert [row.id for row in rows(database)] == [name]


def test_one_of_just_now_is_found_by_its_own_tenant(tracer: Tracer, database: Database) -> None:
    name = tracer.leave(asker(), left(), request="r") or ""
    tracer.flush_if_waiting("b", name)
    assert rows(database) == []
    tracer.flush_if_waiting("a", name)
    assert [row.id for row in rows(database)] == [name]


def _session(database: Database, clock: SetClock, tenant: str, subject: str) -> str:
    return Sessions(database, clock).for_tenant(asker(tenant)).create(NewSession(subject)).id


def test_each_sees_its_own_newest_first_page_by_page(tracer: Tracer, database: Database, clock: SetClock) -> None:
    names, made = [], [_session(database, clock, "a", subject) for subject in (ALICE, BOB)]
    for number in range(6):
        clock.now += number % 2
        session, subject = made[number % 2], (ALICE, BOB)[number % 2]
        who = asker(subject=subject) if number < 4 else asker()
        names.append(tracer.leave(who, left(kind="query", session_id=session, subject=subject), request="r") or "")
    tracer.leave(asker("b", subject=ALICE), left(session_id=_session(database, clock, "b", ALICE)), request="r")
    tracer.flush()
    whole = Traces(database).for_tenant(asker())
    everything = [row.id for row in whole.page(Wanted(), limit=10)]
    assert sorted(everything) == sorted(names)
    first = whole.page(Wanted(), limit=4)
    rest = whole.page(Wanted(), after=position(first[-1]), limit=4)
    assert [row.id for row in (*first, *rest)] == everything
    assert [row.id for row in whole.last(Wanted(), 4)] == everything[3::-1]
    own = Traces(database).for_tenant(asker(subject=ALICE))
    assert {row.id for row in own.page(Wanted(), limit=10)} == set(names[::2])
    assert {row.id for row in whole.page(Wanted(subject=BOB), limit=10)} == set(names[1::2])
    assert {row.id for row in whole.page(Wanted(session_id=made[1]), limit=10)} == set(names[1::2])
    assert whole.page(Wanted(kind="context"), limit=10) == []
    assert {row.id for row in whole.page(Wanted(since=clock.now), limit=10)} == {
        name for name, row in zip(names, range(6), strict=True) if row == 5
    }
    assert whole.page(Wanted(until=0), limit=10) == []
    for outsider in (asker("b"), asker(subject=BOB), asker("b", subject=ALICE)):
        with pytest.raises(NotFound):
            Traces(database).for_tenant(outsider).get(names[0])
    for bound in ({"labels": frozenset({"red"})}, {"collections": frozenset({"default"})}):
        for other in (asker(**bound), asker(subject=ALICE, **bound)):
            assert Traces(database).for_tenant(other).page(Wanted(), limit=10) == []
            with pytest.raises(NotFound):
                Traces(database).for_tenant(other).get(names[0])


def test_who_is_confined_sees_what_was_left_within_equal_bounds(tracer: Tracer, database: Database) -> None:
    red, blue = frozenset({"red"}), frozenset({"blue"})
    askers = [asker(), asker(labels=red), asker(labels=red, subject=ALICE), asker(labels=red | blue), asker(collections=red)]
    names = [tracer.leave(who, left(), request="r") for who in askers]
    tracer.leave(asker("b", labels=red), left(), request="r")
    tracer.flush()
    seen = [{names.index(row.id) for row in Traces(database).for_tenant(who).page(Wanted(), limit=10)} for who in askers]
    assert seen == [{0, 1, 2, 3, 4}, {1, 2}, {2}, {3}, {4}]


def test_they_go_by_age_and_with_their_tenant(tracer: Tracer, database: Database, clock: SetClock) -> None:
    for tenant, days in (("a", 9), ("a", 3), ("b", 9), ("gone", 0)):
        now, clock.now = clock.now, clock.now - days * DAY_MS
        tracer.leave(asker(tenant), left(), request="r")
        clock.now = now
    tracer.flush()
    clock.now += 1
    sweeper = Sweeper(database, clock, {"a": 7, "b": 30, "gone": 0}.__getitem__)
    assert sweeper.run_once() == 2
    assert sorted((row.tenant_id, (clock.now - row.at) // DAY_MS) for row in rows(database)) == [("a", 3), ("b", 9)]
    assert sweeper.run_once() == 0


def test_what_is_erased_is_not_written_afterwards_and_new_ones_are(tracer: Tracer, database: Database, clock: SetClock) -> None:
    alices, bobs = (_session(database, clock, "a", subject) for subject in (ALICE, BOB))
    theirs = _session(database, clock, "b", ALICE)

    def leave() -> list[str]:
        kinds: list[tuple[TenantContext, Left]] = [
            (asker(subject=ALICE), left()),
            (asker(), left(subject=ALICE)),
            (asker(), left(session_id=alices)),
            (asker(), left(session_id=bobs, subject=BOB)),
            (asker(), left()),
            (asker("b", subject=ALICE), left(session_id=theirs)),
        ]
        return [tracer.leave(who, what, request="r") or "" for who, what in kinds]

    under_way = leave()
    with database.write(asker()) as session:
        fence(session, "a", asker().pseudonym(ALICE), clock.now)
        session.get_one(ChatSession, alices).state = ERASED
    tracer.flush()
    assert {row.id for row in rows(database)} == {*under_way[3:]}
    clock.now += 1
    later = leave()  # of the session, which is gone, there is nothing new
    tracer.flush()
    assert {row.id for row in rows(database)} == {*under_way[3:], *later[:2], *later[3:]}
    with database.write(asker()) as session:  # before any of its rows is removed
        session.get_one(ChatSession, bobs).expires_at = clock.now
    shown = {row.id for row in Traces(database, clock).for_tenant(asker()).page(Wanted(), limit=10)}
    assert shown == {under_way[4], *later[:2], later[4]}
    with pytest.raises(NotFound):
        Traces(database, clock).for_tenant(asker()).get(later[3])
    clock.now += KNOWN_MS - 1
    Sweeper(database, clock, lambda _: 30).run_once()
    with database.system_read() as session:
        assert ALICE not in str(session.execute(sa.select(TraceErasure)).all())
        assert len(session.scalars(sa.select(TraceErasure)).all()) == 1
    clock.now += 1
    Sweeper(database, clock, lambda _: 30).run_once()
    assert {row.id for row in rows(database)} == {*under_way[3:], *later[:2], *later[3:]}
    with database.system_read() as session:
        assert session.scalars(sa.select(TraceErasure)).all() == []
