"""Recall over both databases: turns are found by their words at once and by their vectors when they have them, and nobody
finds another tenant's, another subject's, or what is gone.
"""

from __future__ import annotations

from collections import deque
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlmodel import col, select

from config.database import Database
from config.errors import BudgetExhausted, Forbidden, InvalidInput, ModelUnavailable, NotFound
from ingestion.conversations.turn_vectors import BATCH, TurnEmbedding
from rag.embedding.batcher import Batcher
from rag.embedding.cache import DiskVectorCache
from rag.embedding.hashing import HashRuntime
from rag.embedding.service import EmbeddingService
from rag.recall import loading
from rag.recall.recall import Recall, Recalled, RecallQuestion
from rag.recall.resident import IDLE_S, Residents
from rag.recall.tables import TurnVector
from rag.recall.thread import Thread
from rag.sessions.sessions import Sessions
from rag.sessions.tables import ERASED, ChatSession
from rag.sessions.values import NewSession, NewTurn
from tenants.ledger.budget import Ledger
from tenants.registry import TenantRegistry
from tenants.tables import LedgerEntry, Tenant
from tests.support import FakeScope, FreeMeter
from tests.unit.conftest import NOON, SetClock

A, B = FakeScope("a"), FakeScope("b")
ANN, BOB = FakeScope("a", subject="ann"), FakeScope("a", subject="bob")
HOUR, DAY = 3_600_000, 86_400_000


class Poor(FreeMeter):
    def debit(self, charge_id: str, tokens: int) -> bool:
        raise BudgetExhausted("nothing left")


class Talk:
    """Sessions of two tenants, what recalls them, and what gives them vectors."""

    def __init__(self, database: Database, clock: SetClock, folder: Path) -> None:
        self.database, self.clock = database, clock
        self.sessions = Sessions(database, clock)
        self.embedding = EmbeddingService(
            Batcher(HashRuntime(), batch_tokens=2048), DiskVectorCache(folder / "cache", max_bytes=10**7)
        )
        self.seconds = 0.0
        self.residents = Residents(self.embedding.space.dimensions, 10**8, lambda: self.seconds)
        self.recall = Recall(database, clock, self.embedding, self.residents)
        self.ledger = Ledger(database, clock, lease_s=60)
        registry = TenantRegistry(database, clock)
        self.worker = TurnEmbedding(database, clock, self.embedding, self.ledger, registry.context_of_job)

    def say(self, scope: FakeScope, *contents: str, session: str | None = None, apart_ms: int = 1000, **new: object) -> str:
        handle = self.sessions.for_tenant(scope)
        at = self.clock.now
        session = session or handle.create(NewSession(**{"subject": scope.subject or "ann", **new})).id  # type: ignore[arg-type]
        speakers = ("Ann", "Ben")
        turns = [
            NewTurn(("user", "assistant")[n % 2], text, speakers[n % 2], said_at=at + n * apart_ms)
            for n, text in enumerate(contents)
        ]
        handle.append(session, turns)
        return session

    def ask(self, scope: FakeScope, session: str, text: str, **wishes: object) -> Recalled:
        question = RecallQuestion(text, **wishes)  # type: ignore[arg-type]
        return self.recall.for_tenant(scope, FreeMeter()).in_session(session, question, charge_id="q")

    def of(self, scope: FakeScope, subject: str | None, text: str, **wishes: object) -> list[str]:
        question = RecallQuestion(text, **wishes)  # type: ignore[arg-type]
        found = self.recall.for_tenant(scope, FreeMeter()).of_subject(subject, question, charge_id="q")
        return [each.turn.content for each in found.turns]

    def embed_all(self) -> int:
        done = 0
        while count := self.worker.run_once():
            done += count
        return done

    def vectors(self, scope: FakeScope) -> list[TurnVector]:
        with self.database.read(scope) as session:
            return [*session.scalars(select(TurnVector).order_by(col(TurnVector.session_id), col(TurnVector.seq)))]


@pytest.fixture
def talk(database: Database, clock: SetClock, tmp_path: Path) -> Talk:
    return Talk(database, clock, tmp_path)


def _said(found: Recalled) -> list[str]:
    return [each.turn.content for each in found.turns]


def test_a_turn_is_found_by_its_words_at_once_and_by_its_vector_later(talk: Talk) -> None:
    ours = talk.say(A, "The ferns like shade.", "Water them on Sundays.", "My sister moved to Lisbon.")
    theirs = talk.say(B, "The ferns like sun.")
    found = talk.ask(A, ours, "what do ferns like?")
    assert _said(found)[0] == "The ferns like shade."
    assert set(found.turns[0].legs) == {"dated", "around", "before", "sitting", "speaker", "recency", "pooled", "pooled_before"}
    assert not any(found.turns[0].legs[name] for name in ("pooled", "pooled_before"))  # there are no vectors
    assert talk.embed_all() == 4
    assert [row.seq for row in talk.vectors(A)] == [1, 2, 3]
    again = talk.ask(A, ours, "what do ferns like?")
    assert again.turns[0].legs["pooled"] > 0
    assert _said(talk.ask(B, theirs, "ferns")) == ["The ferns like sun."]
    talk.say(A, "And the moss", session=ours)
    assert "And the moss" in _said(talk.ask(A, ours, "moss", top_k=1))
    assert talk.residents.get(("a", ours)).embedded == 3
    talk.embed_all()
    assert talk.ask(A, ours, "moss").turns[0].legs["pooled"] > 0


def test_a_resident_index_is_the_one_that_is_loaded_anew(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "PAGE", 3)
    session = talk.say(A, *[f"oak {n} fern" for n in range(5)])
    for step in range(3):
        talk.ask(A, session, "oak")
        talk.say(A, *[f"moss {step} {n}" for n in range(4)], session=session)
        if step % 2:
            talk.embed_all()
    talk.embed_all()
    kept = talk.ask(A, session, "moss fern", top_k=50)
    talk.residents.forget("a", [session])
    assert len(talk.residents) == talk.residents.bytes == 0
    anew = talk.ask(A, session, "moss fern", top_k=50)
    assert [(each.turn.id, each.legs) for each in kept.turns] == [(each.turn.id, each.legs) for each in anew.turns]
    assert len(kept.turns) == 17


def test_nobody_recalls_what_another_said(talk: Talk) -> None:
    anns, bobs = talk.say(ANN, "the oak is Ann's"), talk.say(BOB, "the oak is Bob's")
    talk.say(B, "the oak is theirs", subject="ann")
    for stranger, session in ((B, anns), (BOB, anns), (ANN, bobs)):
        with pytest.raises(NotFound):
            talk.ask(stranger, session, "oak")
    assert talk.of(ANN, None, "oak") == talk.of(A, "ann", "oak") == ["the oak is Ann's"]
    assert talk.of(B, "ann", "oak") == ["the oak is theirs"]
    assert talk.of(A, "nobody", "oak") == []
    with pytest.raises(Forbidden):
        talk.of(ANN, "bob", "oak")
    with pytest.raises(InvalidInput, match="subject"):
        talk.of(A, None, "oak")


def test_sessions_of_a_subject_are_searched_together(talk: Talk) -> None:
    first = talk.say(A, "The oak shelf is heavy.", "It is.", tags=("home",))
    talk.clock.now += DAY
    talk.say(A, "A pine table.", "The oak one was dearer.", tags=("shop", "home"))
    talk.embed_all()
    assert set(talk.of(A, "ann", "oak", top_k=2)) == {"The oak shelf is heavy.", "The oak one was dearer."}
    assert talk.of(A, "ann", "oak", top_k=9, tags=("shop",)) == ["The oak one was dearer.", "A pine table."]
    assert talk.of(A, "ann", "oak", tags=("home", "none")) == []
    with talk.database.write(A) as session:
        session.get_one(ChatSession, first).state = ERASED
    assert talk.of(A, "ann", "oak", top_k=9) == ["The oak one was dearer.", "A pine table."]
    with pytest.raises(NotFound):
        talk.ask(A, first, "oak")


def test_what_left_the_window_or_the_time_is_not_recalled(talk: Talk) -> None:
    session = talk.say(A, "oak one", "oak two", "oak three", apart_ms=DAY)
    assert sorted(_said(talk.ask(A, session, "oak", said_after=NOON + DAY, said_before=NOON + 2 * DAY))) == ["oak two"]
    with talk.database.write(A) as transaction:
        transaction.get_one(ChatSession, session).archived_turns = 1
    assert sorted(_said(talk.ask(A, session, "oak one", neighbours=2))) == ["oak three", "oak two"]
    found = talk.ask(A, session, "two", neighbours=2, top_k=1).turns[0]
    assert ([each.content for each in found.before], [each.content for each in found.after]) == ([], ["oak three"])
    talk.clock.now += 10 * DAY
    idle = talk.sessions.for_tenant(A).create(NewSession("ann", idle_ttl_s=5)).id
    talk.say(A, "oak four", session=idle)
    talk.clock.now += 6_000
    with pytest.raises(NotFound):
        talk.ask(A, idle, "oak")
    assert "oak four" not in talk.of(A, "ann", "oak")


def test_only_the_newest_turns_are_indexed(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "MAX_TURNS", 4)
    monkeypatch.setattr(loading, "SPARE", 3)
    session = talk.say(A, *[f"oak {n}" for n in range(6)])
    talk.embed_all()
    assert len(talk.ask(A, session, "oak", top_k=50).turns) == 6  # within SPARE
    talk.say(A, *[f"fern {n}" for n in range(4)], session=session)
    assert {each.turn.seq for each in talk.ask(A, session, "oak", top_k=50).turns} == {7, 8, 9, 10}
    talk.embed_all()
    talk.ask(A, session, "oak")
    assert talk.residents.get(("a", session)).thread.without_vector == []


def test_times_in_the_question_lift_or_narrow(talk: Talk) -> None:
    session = talk.say(A, "oak arrived", "oak sold", "oak again", apart_ms=10 * DAY)
    asked = {"asked_at": datetime.fromtimestamp((NOON + 11 * DAY) / 1000, UTC)}
    narrowed = talk.ask(A, session, "what of oak yesterday?", times="narrow", **asked)
    assert (_said(narrowed), [span.words for span in narrowed.spans]) == (["oak sold"], ["yesterday"])
    lifted = talk.ask(A, session, "what of oak yesterday?", **asked)
    assert (_said(lifted)[0], len(lifted.turns), lifted.turns[0].legs["time"]) == ("oak sold", 3, 2.0)
    ignored = talk.ask(A, session, "what of oak yesterday?", times="ignore", **asked)
    assert (ignored.spans, "time" in ignored.turns[0].legs) == ((), False)
    assert talk.ask(A, session, "what of oak in 1999?", times="narrow").turns == ()


def test_roles_and_bare_calls_of_tools(talk: Talk) -> None:
    session = talk.say(A, "oak please", "one oak")
    call = NewTurn("tool", "", tool_calls=[{"name": "order"}])
    talk.sessions.for_tenant(A).append(session, [call, NewTurn("tool", "oak ordered")])
    assert talk.embed_all() == 4
    assert [row.seq for row in talk.vectors(A)] == [1, 2, 4]
    assert _said(talk.ask(A, session, "oak", roles=frozenset({"assistant"}))) == ["one oak"]
    assert sorted(_said(talk.ask(A, session, "oak", roles=frozenset({"tool"})))) == ["", "oak ordered"]
    held = talk.residents.get(("a", session))
    assert held.embedded == 4


def test_without_model_or_budget_words_have_to_do(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    session = talk.say(A, "the oak", "the fern")
    talk.embed_all()
    poor = talk.recall.for_tenant(A, Poor()).in_session(session, RecallQuestion("oak?"), charge_id="q")
    assert (_said(poor)[0], poor.degraded) == ("the oak", ("dense",))

    def away(*_args: object, **_kwargs: object) -> None:
        raise ModelUnavailable("away")

    monkeypatch.setattr(talk.embedding.embedder, "embed", away)
    found = talk.ask(A, session, "which oak")
    assert (_said(found)[0], found.degraded, found.charged) == ("the oak", ("dense",), 0)
    assert talk.ask(A, session, "which oak", by_words=True).degraded == ()


def test_vectors_are_paid_once_and_tenants_take_turns(talk: Talk) -> None:
    for _ in range(3):
        talk.say(A, *[f"oak {n}" for n in range(BATCH)])
    short = talk.say(A, "a live one")
    talk.say(B, "ours", "too")
    assert [talk.worker.run_once() for _ in range(2)] == [BATCH, 2]
    assert short in {row.session_id for row in talk.vectors(A)}  # not behind the long ones
    talk.embed_all()
    with talk.database.read(A) as session:
        entries = session.scalars(select(LedgerEntry)).all()
    assert {entry.state for entry in entries} == {"settled"}
    assert len(talk.vectors(A)) == 3 * BATCH + 1
    paid = sum(entry.tokens for entry in entries)
    with talk.database.write(A) as session:  # as if it had died before it wrote them
        session.execute(sa.delete(TurnVector), execution_options={"synchronize_session": False})
        session.execute(sa.update(ChatSession).values(embedded_turns=0), execution_options={"synchronize_session": False})
    assert talk.embed_all() == 3 * BATCH + 1
    with talk.database.read(A) as session:
        assert sum(entry.tokens for entry in session.scalars(select(LedgerEntry))) == paid


def test_what_turns_cost_is_counted_at_their_sessions_within_the_budgets_of_these(talk: Talk) -> None:
    free, theirs = talk.say(A, "The ferns like shade.", "Water them on Sundays."), talk.say(B, "Nobody else's.")
    said = ("My sister moved to Lisbon.", "She likes it there.", "She took the ferns.")
    first, second, third = talk.embedding.count_tokens(
        [f"{'AB'[n % 2]}{'ne'[n % 2] * 2}: {text}" for n, text in enumerate(said)]
    )
    tight = talk.say(A, *said, budget_tokens=first + second + third - 1)
    broke = talk.say(A, "Nobody pays for this.", "Nor for that.", budget_tokens=0)
    assert talk.embed_all() > 0
    rows = {each: talk.sessions.for_tenant(A).get(each) for each in (free, tight, broke)}
    assert {each: row.embedded_turns for each, row in rows.items()} == {free: 2, tight: 3, broke: 2}
    assert [(row.session_id == tight, row.seq) for row in talk.vectors(A) if row.session_id != free] == [(True, 1), (True, 2)]
    assert (rows[tight].spent_tokens, rows[broke].spent_tokens) == (first + second, 0)
    for scope, ids in ((A, (free, tight)), (B, (theirs,))):
        with talk.database.read(scope) as session:
            paid = sum(entry.tokens for entry in session.scalars(select(LedgerEntry)))
        assert sum(talk.sessions.for_tenant(scope).get(each).spent_tokens for each in ids) == paid > 0
    assert _said(talk.ask(A, tight, "who took the ferns?"))[0] == "She took the ferns."
    assert _said(talk.ask(A, broke, "who pays?", top_k=1)) == ["Nobody pays for this."]


def test_a_tenant_without_budget_holds_up_nobody(talk: Talk) -> None:
    with talk.database.system_write() as session:
        session.get_one(Tenant, "a").monthly_tokens = 3
    poor = talk.say(A, "an oak that nobody can pay for")
    talk.say(B, "ours")
    assert [talk.worker.run_once() for _ in range(3)] == [0, 1, 0]
    assert (len(talk.vectors(A)), len(talk.vectors(B))) == (0, 1)
    assert _said(talk.ask(A, poor, "oak")) == ["an oak that nobody can pay for"]


def test_vectors_of_another_model_are_made_anew(talk: Talk) -> None:
    session = talk.say(A, "the oak", "the fern")
    talk.embed_all()
    with talk.database.write(A) as transaction:
        transaction.execute(sa.update(TurnVector).values(space="sp_former"), execution_options={"synchronize_session": False})
    found = talk.ask(A, session, "oak")
    assert found.turns[0].legs["pooled"] == 0
    talk.worker.adopt()
    assert talk.vectors(A) == []
    assert talk.embed_all() == 2
    assert talk.ask(A, session, "oak").turns[0].legs["pooled"] != 0


def test_indexes_are_let_go_when_there_are_too_many_or_nobody_asks(talk: Talk) -> None:
    sessions = [talk.say(A, *[f"oak {n} {number}" for n in range(30)]) for number in range(6)]
    talk.embed_all()
    talk.ask(A, sessions[0], "oak")
    one = talk.residents.bytes
    talk.residents._max_bytes = int(2.5 * one)
    for session in sessions:
        talk.ask(A, session, "oak")
        assert talk.residents.bytes <= 2.5 * one
    assert len(talk.residents) == 2
    talk.seconds += IDLE_S + 1
    talk.ask(A, sessions[0], "oak")
    assert len(talk.residents) == 1
    assert talk.residents.bytes == pytest.approx(one, rel=0.1)


def test_indexes_of_sessions_in_which_nothing_was_said_take_room_too(talk: Talk) -> None:
    sessions = [talk.sessions.for_tenant(scope).create(NewSession("ann")).id for scope in (A, B) for _ in range(4)]
    talk.ask(A, sessions[0], "oak")
    one = talk.residents.bytes
    assert one > 256 * 16 * 4
    talk.residents._max_bytes = 3 * one
    for number, session in enumerate(sessions):
        talk.ask((A, B)[number // 4], session, "oak")
    assert (len(talk.residents), talk.residents.bytes) == (3, 3 * one)


def test_an_index_holds_no_text_not_even_of_what_was_said_last(talk: Talk) -> None:
    session = talk.say(A, "Die Kanarie ist im Schrank und nicht auf dem Tisch", "okay canaryword")
    talk.embed_all()
    talk.ask(A, session, "canaryword")
    held = talk.residents.get(("a", session))
    assert held.thread.languages == {"de": 2}
    waiting, texts = [[*held.thread.__dict__.values()]], set[str]()
    while waiting:
        each: Any = waiting.pop()
        if isinstance(each, str):
            texts.add(each.casefold())
        elif isinstance(each, dict | list | tuple | deque | set):
            waiting += [*each, *each.values()] if isinstance(each, dict) else each
    assert "ann" in texts
    assert not any(word in text for text in texts for word in ("kanarie", "schrank", "canaryword"))


def test_an_index_says_about_what_it_takes() -> None:
    thread = Thread(384)
    assert thread.nbytes < 60_000
