"""A question asked again is answered as it was while nothing has changed; and what did change is said, passage by passage."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from api.schemas.traces import ReplayOut
from config.clock import system_clock
from config.errors import Conflict, InvalidInput, ModelUnavailable, NotFound
from rag.arranging.wishes import Boost, Recency, Wishes
from rag.evaluation.feedback import FeedbackStore, Opinion
from rag.filters import parse
from rag.llm.rewriting import Rewritten
from rag.memories.values import Fact
from rag.recall.recall import RecallQuestion
from rag.retrieval.question import Question
from rag.store.memory import MemoryStore
from rag.traces.left import TracePolicy
from rag.traces.regression import Report, useful_marks
from rag.traces.replayed import Otherwise
from rag.traces.tables import Trace
from tenants.context import TenantContext
from tests.support import FreeMeter, served_engine
from tests.unit.replay_stand import AS_IT_WAS, ASH, ELM, WORDS, Stand, opened, sentences
from tests.world import TENANTS


@pytest.fixture
def stand(tmp_path: Path) -> Iterator[Stand]:
    yield from opened(tmp_path, MemoryStore())


@pytest.fixture(scope="module")
def still(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    """For tests that change nothing of what is searched."""
    yield from opened(tmp_path_factory.mktemp("still"), MemoryStore())


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Stand]:
    with served_engine(tmp_path) as engine:
        yield from opened(tmp_path, engine)


def words(chance: random.Random) -> str:
    return " ".join(chance.choices(WORDS, k=3))


def a_question(chance: random.Random) -> Question:
    north = parse({"key": "wing", "op": "eq", "value": "north"})
    wishes = chance.choice(
        [
            Wishes(),
            Wishes(recency=Recency(0.3, 1e-4), boosts=(Boost(north, 0.2),)),
            Wishes(mmr=0.5, collapse=True, per_document=2),
            Wishes(before=1, after=1),
            Wishes(group=2),
        ]
    )
    return Question(
        words(chance),
        ("default",),
        top_k=chance.choice((1, 5, 20)),
        filter=chance.choice((None, north, parse({"key": "floor", "op": "gte", "value": 1}))),
        others=chance.choice(((), (words(chance),))),
        mode=chance.choice(("hybrid", "hybrid", "dense", "lexical")),
        wishes=wishes,
        dense_weight=chance.choice((None, 0.2)),
    )


def talk(chance: random.Random, count: int) -> list[str]:
    told = "The {} of {} stands by the {} since {}."
    days = ("Monday", "May", "yesterday", "3 June")
    return [told.format(words(chance), number, chance.choice(WORDS), chance.choice(days)) for number in range(count)]


def a_session(stand: Stand, context: TenantContext, chance: random.Random, turns: int) -> str:
    """With pins and memories; some of its turns have no vector yet."""
    session_id = stand.say(context, talk(chance, turns))
    stand.embed_turns()
    stand.say(context, talk(chance, 3), session_id)
    pins = stand.conversing.contexts.pins.for_tenant(context)
    for seq in chance.sample(range(1, turns), 2):
        pins.pin(session_id, seq)
    for number in range(3):
        stand.remember(context, Fact(f"Ann keeps the {words(chance)} in room {number}", key=f"room {number}"))
    return session_id


def asked_of_session(stand: Stand, context: TenantContext, session_id: str, chance: random.Random) -> Trace:
    if chance.random() < 0.2:
        question = RecallQuestion(words(chance), top_k=chance.choice((3, 20)), neighbours=chance.choice((0, 2)))
        return stand.recall(context, question, chance.choice((session_id, None)))
    return stand.converse(
        context,
        session_id,
        strategy=chance.choice(("recent", "recall", "documents", "hybrid", "hybrid")),
        memories=chance.random() < 0.6,
        max_tokens=chance.choice((300, 800, 2_000)),
        newest_turns=chance.choice((0, 2)),
        knowledge=chance.choice(("last", "system")),
        mode=chance.choice(("hybrid", "lexical")),
        collections=chance.choice((["default"], [])),
        **chance.choice(({}, {"message": f"And {words(chance)} yesterday?"}, {"query": words(chance), "pins": ["Be brief."]})),
    )


def unchanged(stand: Stand, count: int) -> None:
    """Of four, two are questions to documents, one is a context of them, and one is asked of a conversation."""
    chance = random.Random(2026)
    asked: list[Question] = []
    traces: list[tuple[TenantContext, Trace]] = []
    sessions = {name: a_session(stand, stand.context(name), chance, 40) for name in TENANTS}
    for number in range(count):
        name = TENANTS[number % 2]
        context = stand.context(name, labels=chance.choice((None, frozenset(), frozenset({"board"}))))
        if number // 2 % 4 == 3:
            traces.append((context, asked_of_session(stand, context, sessions[name], chance)))
            continue
        repeats = asked and number % 5 == 4  # out of the cache
        asked.append(chance.choice(asked) if repeats else a_question(chance))
        traces.append((context, stand.ask(context, asked[-1], kind=("query", "context")[number // 2 % 2])))
    check_unchanged(stand, traces)


def check_unchanged(stand: Stand, traces: Sequence[tuple[TenantContext, Trace]]) -> None:
    report, meter, found = Report(), FreeMeter(), 0
    for context, trace in traces:
        replayed = stand.replay(replace(context, labels=None), trace, meter=meter)
        assert replayed.is_empty, ReplayOut.of(replayed)
        assert replayed.rbo == pytest.approx(1.0)
        searched = replayed.body.get("searched")
        assert replayed.vector == "stored" or searched is None or not searched["dense"]
        report.add(replayed, {})
        found += len(replayed.answer.passages) + len(replayed.body["recalled"])
    assert (report.empty, report.contexts_equal, report.rbo) == (len(traces), report.contexts, pytest.approx(1))
    assert found > len(traces)
    assert meter.paid == {}


def test_nothing_changed_and_nothing_differs(still: Stand) -> None:
    unchanged(still, 20)


@pytest.mark.full
def test_nothing_changed_and_five_hundred_do_not_differ(served: Stand) -> None:
    unchanged(served, 500)


@pytest.mark.parametrize("mode", ["multi_query", "hyde"])
def test_what_a_language_model_made_of_it_is_searched_for_again(
    still: Stand, mode: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    @dataclass
    class Model:
        asked: int = 0

        def apply(self, *_: object, **__: object) -> Rewritten:
            self.asked += 1
            return Rewritten((f"the atlas number {self.asked}",), 5, True)

    model = Model()
    monkeypatch.setattr(still.world.retriever, "rewriting", model)
    context = still.context(ASH)
    trace = still.ask(context, Question("globe by the window", ("default",), rewrite=mode))
    replayed, meter = still.replay(context, trace), FreeMeter()
    assert (replayed.is_empty, replayed.vector, model.asked) == (True, "stored", 1)
    fresh = still.replay(context, trace, Otherwise(fresh_vector=True), meter)
    assert (fresh.vector, model.asked) == ("fresh", 1)
    assert fresh.is_empty is (mode == "multi_query")  # the passage that moved the vector is not made up again
    assert sum(meter.paid.values()) == fresh.answer.charged > 0


def test_without_the_model_then_words_are_compared_with_words(still: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    def unavailable(*_: object, **__: object) -> None:
        raise ModelUnavailable("away", retry_after_s=1)

    with monkeypatch.context() as patch:
        patch.setattr(still.world.embedding, "embed_queries", unavailable)
        trace = still.ask(still.context(ASH), Question("oak shelf", ("default",)))
    replayed = still.replay(still.context(ASH), trace)
    assert (replayed.body["degraded"], replayed.vector, len(replayed.difference.rows)) == (["dense"], "none", 10)
    assert all(row.change == "same" for row in replayed.difference.rows)
    assert not replayed.is_empty  # that a leg was missing then is a difference


def test_what_came_and_went_is_told_with_its_text(stand: Stand) -> None:
    context, world = stand.context(ASH), stand.world
    trace = stand.ask(context, Question("the lamp of ash 2.3", ("default",), top_k=5), kind="context")
    other = stand.ask(stand.context(ELM), Question("the lamp of elm 2.3", ("default",), top_k=5), kind="context")
    world.bring(ASH, "news", "The lamp of ash 2.3 stands by the lamp of ash 2.3. " * 3)
    world.run_jobs()
    replayed = stand.replay(context, trace)
    told = ReplayOut.of(replayed)
    assert not told.empty
    assert told.came == told.gone >= 1
    came = next(row for row in told.rows if row.change == "came")
    assert (came.document, came.then) == ("news", None)
    assert (came.snippet or "").startswith("The lamp of ash 2.3")
    gone = [row for row in told.rows if row.change == "gone"]
    assert all(row.now is None and row.then is not None for row in gone)
    assert all((row.snippet or "").startswith("The ") for row in gone)
    assert told.rbo < 1
    assert told.context is not None
    assert (told.context.equal, told.context.of) == (False, "text")
    assert any(line.startswith("+") and "The lamp of ash 2.3 stands by the lamp" in line for line in told.context.diff)
    assert stand.replay(stand.context(ELM), other).is_empty


def chunked_otherwise(stand: Stand) -> None:
    for name in TENANTS:
        context = stand.context(name)
        stand.replayer.collections.for_tenant(context).create("fine", profile="precise")
        for number in range(3):
            stand.world.bring(name, f"document {number}", sentences(name, number), collection="fine")
    stand.world.run_jobs()


def check_form(told: ReplayOut) -> None:
    """What a person needs to read it: documents, places, how much of the text is the same, beginnings of texts."""
    assert [row.now.rank for row in told.rows if row.now] == [*range(1, 11)]
    assert sorted(row.then.rank for row in told.rows if row.then) == [*range(1, 11)]
    assert (told.same, told.moved) == (0, 0)
    assert told.overlapping > 0
    assert told.overlapping + told.came == told.overlapping + told.gone == 10
    for row in told.rows:
        assert row.document in {"board", *(f"document {number}" for number in range(3))}
        if row.change == "overlaps":
            assert row.then is not None
            assert row.now is not None
            assert row.then.id != row.now.id
            assert 0 < row.shared <= 1
            assert max(row.then.start, row.now.start) < min(row.then.end, row.now.end)
    assert all(row.snippet for row in told.rows if row.now)
    assert 0 < told.rbo < 1
    assert 0 < told.shared < 1
    assert told.context is not None
    assert told.context.diff[:2] == ["--- then", "+++ now"]


def test_documents_in_another_collection_under_another_chunking_are_paired_by_their_text(stand: Stand) -> None:
    chunked_otherwise(stand)
    for name in TENANTS:
        context = stand.context(name)
        trace = stand.ask(context, Question(f"where is the lamp of {name} 2.3?", ("default",)), kind="context")
        told = ReplayOut.of(stand.replay(context, trace, Otherwise(collections=("fine",))))
        check_form(told)
        assert [*told.collections_then] == ["default"]
        assert [*told.collections_now] == ["fine"]
        assert told.context is not None
        assert told.context.of == "text"
        assert all(row.snippet for row in told.rows)


def test_documents_brought_again_under_another_chunking_are_paired_by_their_text(stand: Stand) -> None:
    context, collections = stand.context(ASH), stand.replayer.collections.for_tenant(stand.context(ASH))
    stand.world.bring(ASH, "board", "nothing of the kind")
    stand.world.run_jobs()
    trace = stand.ask(context, Question("where is the lamp of ash 2.3?", ("default",)), kind="context")
    collections.update("default", profile="precise")
    for number in range(3):
        stand.world.bring(ASH, f"document {number}", sentences(ASH, number), title="again")
    stand.world.run_jobs()
    told = ReplayOut.of(stand.replay(context, trace))
    check_form(told)
    assert told.context is not None
    assert told.context.of == "outline"
    assert {row.snippet for row in told.rows if row.change == "gone"} <= {None}


def test_a_profile_and_a_tuning_are_tried(stand: Stand) -> None:
    context, world = stand.context(ASH), stand.world
    trace = stand.ask(context, Question("pine desk by the door", ("default",)))
    boost = {"filter": {"key": "wing", "op": "eq", "value": "north"}, "weight": 0.4}
    with world.database.write(context) as session:
        row = stand.replayer.collections.for_tenant(context).find(session, "default")
        row.tuning, row.generation = {"version": 1, "parameters": {"boosts": [boost]}}, row.generation + 1
        session.add(row)
    tuned = stand.replay(context, trace)
    assert not tuned.is_empty
    assert tuned.answer.searched is not None
    assert (tuned.body["collections"]["default"][2], tuned.answer.searched.collections[0].tuning) == (0, 1)
    assert stand.replay(context, trace, Otherwise(tuned=False)).is_empty
    named = replace(stand.replayer.collections.profiles.get("precise"), fusion=replace(row_fusion(stand), method="rrf"))
    stand.replayer.collections.profiles._named["precise"] = named
    by_ranks = stand.replay(context, trace, Otherwise(tuned=False, profile="precise"))
    assert by_ranks.answer.passages[0].score <= 1
    assert by_ranks.difference.score_difference > 0
    handle = stand.replayer.for_tenant(context, FreeMeter())
    for wrong, error in ((Otherwise(profile="none"), InvalidInput), (Otherwise(collections=("none",)), NotFound)):
        with pytest.raises(error):
            handle.require(wrong)
    handle.require(Otherwise("precise", ("default",)))


def row_fusion(stand: Stand) -> Any:
    return stand.replayer.collections.profiles.get("standard").fusion


def test_nobody_sees_more_by_asking_again_than_who_asked_or_who_asks(still: Stand) -> None:
    question = Question("the lamp of ash 9", ("default",), top_k=50)
    everybody, board, nothing = still.context(ASH), still.context(ASH, labels=frozenset({"board"})), frozenset[str]()
    of_nobody = still.ask(still.context(ASH, labels=nothing), question)
    assert still.replay(everybody, of_nobody).is_empty
    of_all = still.ask(everybody, question)
    assert "board" in {row.document for row in ReplayOut.of(still.replay(everybody, of_all)).rows}
    assert still.replay(board, of_all).is_empty
    narrow = still.replay(still.context(ASH, labels=nothing), of_all)
    assert "board" not in {passage.external_id for passage in narrow.answer.passages}
    assert not any(narrow.snippets.get(row.then.id) for row in narrow.difference.rows if row.then and row.change == "gone")
    with pytest.raises(NotFound):
        still.replay(still.context(ASH, collections=frozenset({"other"})), of_all)
    with pytest.raises(NotFound):
        still.traces.for_tenant(still.context(ELM)).get(of_all.id)


def test_what_was_not_kept_cannot_be_asked_again(still: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    for contents in ("ids", "none"):
        monkeypatch.setattr(still, "policy", TracePolicy(1.0, contents, 30))  # type: ignore[arg-type]
        trace = still.ask(still.context(ASH), Question("oak", ("default",)))
        with pytest.raises(Conflict, match=contents):
            still.replay(still.context(ASH), trace)


def test_a_vector_of_another_space_is_not_compared(still: Stand) -> None:
    trace = still.ask(still.context(ASH), Question("oak", ("default",)))
    trace.space = "another"
    assert still.replay(still.context(ASH), trace).vector == "fresh"


def test_a_report_says_how_much_is_as_it_was_and_whether_the_useful_is_found(stand: Stand) -> None:
    context, feedback = stand.context(ASH), FeedbackStore(stand.world.database, system_clock, stand.replayer.collections)
    questions = [Question(f"where is the lamp of ash {number}.3?", ("default",), top_k=5) for number in range(4)]
    traces = [stand.ask(context, question) for question in questions]
    first = stand.replay(context, traces[0]).answer.passages
    for passage, useful in ((first[0], True), (first[1], False)):
        opinion = Opinion(questions[0].text, passage_id=passage.id, useful=useful, subject="alice")
        feedback.for_tenant(context).give(opinion, request=passage.id)
    document = Opinion(questions[1].text, document_id=first[0].document_id, rating=5)
    feedback.for_tenant(context).give(document, request="document")
    marks = useful_marks(stand.world.database, context, [question.text for question in questions])
    assert {query: len(found) for query, found in marks.items()} == {questions[0].text: 1, questions[1].text: 1}
    alice = replace(context, subject="bob")
    assert useful_marks(stand.world.database, alice, [questions[0].text]) == {}
    assert useful_marks(stand.world.database, stand.context(ELM), [questions[0].text]) == {}

    def report(otherwise: Otherwise) -> Report:
        made = Report()
        for trace in traces:
            made.add(stand.replay(context, trace, otherwise), marks)
        made.skip("conflict")
        return made

    same = report(AS_IT_WAS)
    assert (same.traces, same.replayed, same.empty, same.rbo, same.worst) == (5, 4, 4, pytest.approx(1), [])
    assert (same.overlaps[5], same.marked, same.useful_then, same.useful_now) == (1.0, 2, same.useful_now, same.useful_then)
    assert same.useful_then >= 1
    chunked_otherwise(stand)
    other = report(Otherwise(collections=("fine",)))
    assert (other.empty, other.skipped, other.tokens) == (0, {"conflict": 1}, 0)
    assert len(other.worst) == 4
    assert other.worst[0].rbo <= other.worst[-1].rbo < 1
    assert other.useful_then == same.useful_then
