"""Turns outside the window are made small, and read as they were by whoever reads them: whatever dies meanwhile, whoever else
is at work, and only as long as what was kept is what was written.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlmodel import col, select

from api.schemas.sessions import AppendOut, TurnOut
from config.database import Database
from config.errors import ContentDamaged, IdempotencyKeyReused
from ingestion.conversations.transcripts import content_of
from ingestion.erasing.requests import end_sessions
from rag.context.contexts import Contexts
from rag.context.recaps import Recaps
from rag.context.tables import SessionRecap
from rag.sessions import archives, compacting
from rag.sessions.archives import pack, unpack
from rag.sessions.compacting import SessionCompactor
from rag.sessions.sweeping import Owner
from rag.sessions.tables import IS_COMPACTABLE, PIECE, ChatSession, Turn, TurnArchive
from rag.sessions.values import NewSession, NewTurn
from tests.support import FakeScope
from tests.unit.conftest import SetClock
from tests.unit.test_contexts import packed
from tests.unit.test_recall import Talk
from tests.unit.test_session_sweep import Death, _dying

POSTGRESQL_DAILY = False  # its statements run there in `test_migrations`
A, B = FakeScope("a"), FakeScope("b")
WINDOW = 10
TURNS = 2 * PIECE + 20 + WINDOW
HEAVY: dict[str, Any] = {"z": [1.1, -0.0, 1e300, 2**53, 2**70, None, True], "a": {"é\U0001f600": '"\\ \x7f'}, "": ""}


@dataclass
class Attic:
    """Two tenants who talk in sessions whose oldest turns leave the window, and who makes those small."""

    talk: Talk
    contexts: Contexts

    @property
    def database(self) -> Database:
        return self.talk.database

    def compact(self) -> int:
        return SessionCompactor(self.talk.sessions, pause=lambda _seconds: None).run_once()

    def begun(self, scope: FakeScope = A, turns: int = TURNS, window: int | None = WINDOW, subject: str = "ann") -> str:
        new = NewSession(subject, max_turns=window, when_full="archive")
        made = self.talk.sessions.for_tenant(scope).create(new).id
        self.talk.sessions.for_tenant(scope).append(made, [said(scope, n) for n in range(1, turns + 1)])
        return made

    def read(self, scope: FakeScope, session_id: str) -> list[str]:
        """All of it as it is answered: in pages from either end, one by one, pinned, as a document, and in contexts."""
        handle, found = self.talk.sessions.for_tenant(scope), list[str]()
        for newest in (False, True):
            after: int | None = None
            while page := handle.turns(session_id, after=after, limit=70, newest_first=newest):
                found += [TurnOut.of(turn).model_dump_json() for turn in page]
                after = page[-1].seq
        found += [
            TurnOut.of(handle.turn(session_id, turn.id)).model_dump_json() for turn in handle.turns(session_id, limit=500)[::29]
        ]
        found += [f"{pin.turn.content} {pin.turn.tool_calls}" for pin in self.contexts.pins.for_tenant(scope).list(session_id)]
        with self.database.read(scope) as session:
            found.append(content_of(session, session_id).decode())
        return found + [packed(self.contexts, session_id, budget, scope).conversation.composed.text for budget in (900, 3000)]

    def turns(self, scope: FakeScope, session_id: str) -> list[Turn]:
        return [*self.talk.sessions.for_tenant(scope).turns(session_id, limit=500)]

    def rows(self, table: type[Any]) -> list[Any]:
        with self.database.system_read() as session:
            return [*session.scalars(select(table).order_by(*sa.inspect(table).primary_key))]

    def chat(self, session_id: str) -> ChatSession:
        with self.database.system_read() as session:
            return session.get_one(ChatSession, session_id)

    def forget_recaps(self) -> None:
        with self.database.system_write() as session:
            session.execute(sa.delete(SessionRecap), execution_options={"synchronize_session": False})

    def change(self, values: dict[str, object], *which: sa.ColumnElement[bool]) -> None:
        with self.database.system_write() as session:
            session.execute(
                sa.update(TurnArchive).where(*which).values(values), execution_options={"synchronize_session": False}
            )


def said(scope: FakeScope, n: int) -> NewTurn:
    return NewTurn(
        ("assistant", "user", "tool")[n % 3],
        "" if n % 7 == 0 else f"{scope.tenant_id} keeps the {n}th lamp of the shelf in Lisbon. It is “old”, {n} years.",
        speaker="Ann" if n % 2 else None,
        tool_calls=[{"name": "order", "arguments": {"n": n}}] if n % 7 == 0 else ([] if n % 5 == 0 else None),
        metadata=HEAVY | {"n": n} if n % 4 == 0 else {},
        files=[f"doc_{n}"] if n % 11 == 0 else [],
        said_at=n * 1000,
        idempotency_key=f"k{n}" if n % 3 else None,
    )


@pytest.fixture
def attic(database: Database, clock: SetClock, tmp_path: Path) -> Attic:
    return Attic(Talk(database, clock, tmp_path), Contexts(database, clock, Recaps(database, clock)))


def test_everything_reads_as_before_whoever_reads_it(attic: Attic) -> None:
    ours, theirs, whole = attic.begun(A), attic.begun(B, TURNS + 7), attic.begun(A, PIECE + WINDOW - 1)
    for scope, session_id in ((A, ours), (B, theirs)):
        for seq in (3, PIECE + 1, TURNS):
            attic.contexts.pins.for_tenant(scope).pin(session_id, seq)
    attic.talk.embed_all()
    before = [attic.read(scope, one) for scope, one in ((A, ours), (B, theirs), (A, whole))]
    assert attic.compact() == 4 * PIECE
    assert attic.compact() == 0
    assert [attic.read(scope, one) for scope, one in ((A, ours), (B, theirs), (A, whole))] == before
    attic.forget_recaps()  # a recap that is asked for only now is made of the same turns
    assert [attic.read(scope, one) for scope, one in ((A, ours), (B, theirs), (A, whole))] == before
    thin = {turn.id for turn in attic.rows(Turn) if turn.data is None}
    assert thin == {turn.id for turn in attic.rows(Turn) if turn.session_id != whole and turn.seq <= 2 * PIECE}
    assert all((turn.content, turn.tool_calls, turn.files) == ("", None, []) for turn in attic.rows(Turn) if turn.id in thin)
    assert [(row.tenant_id, row.first_seq, row.last_seq) for row in attic.rows(TurnArchive)] == [
        (scope.tenant_id, first, first + PIECE - 1) for scope, _ in sorted([(A, ours), (B, theirs)], key=lambda each: each[1])
        for first in (1, PIECE + 1)
    ]  # fmt: skip
    assert {row.session_id: row.seq for row in reversed(attic.talk.vectors(A))} == {ours: 1, whole: 1}
    assert [row.packed_at for row in attic.rows(TurnArchive)] == [attic.talk.clock()] * 4  # until no trace is of then
    assert attic.talk.embed_all() == 0


def test_a_turn_sent_again_is_the_turn_that_is_there(attic: Attic) -> None:
    session_id = attic.begun()
    handle, again = attic.talk.sessions.for_tenant(A), [said(A, n) for n in (1, 2, PIECE + 3, TURNS - 1)]
    before = AppendOut.of(handle.append(session_id, again[:2])).model_dump_json()
    assert attic.compact() == 2 * PIECE
    assert AppendOut.of(handle.append(session_id, again[:2])).model_dump_json() == before
    changed = NewTurn(**{**{name: getattr(again[0], name) for name in again[0].__slots__}, "content": "another"})
    with pytest.raises(IdempotencyKeyReused):
        handle.append(session_id, [changed])


def test_recall_knows_nothing_of_it(attic: Attic) -> None:
    talk = attic.talk
    ours, theirs = attic.begun(A), attic.begun(B)
    talk.embed_all()

    def asked() -> list[tuple[str, float]]:
        """As an api process finds it that has nothing in memory yet."""
        talk.recall.residents.forget("a", [ours])
        return [(each.turn.content, each.score) for each in talk.ask(A, ours, "which lamp is old?", top_k=5).turns]

    before = asked()
    assert attic.compact() == 4 * PIECE
    assert asked() == before
    assert len(talk.ask(A, ours, "lamp", top_k=50).turns) == WINDOW
    talk.sessions.for_tenant(A).append(ours, [NewTurn("user", "The new lamp is green.")])
    assert talk.ask(A, ours, "green lamp").turns[0].turn.content == "The new lamp is green."
    assert talk.embed_all() == 1
    talk.worker.adopt()
    with talk.database.system_write() as session:  # another model's: all that is left is embedded again, the rest is not
        session.execute(sa.text("UPDATE turn_vectors SET space = 'sp_former'"))
    talk.worker.adopt()
    assert talk.embed_all() == TURNS + 1 - 2 * PIECE + TURNS - 2 * PIECE
    assert {attic.chat(one).turns for one in (ours, theirs)} == {TURNS, TURNS + 1}


def test_an_index_that_was_left_behind_begins_anew(attic: Attic) -> None:
    """It held turns that are all outside the window by now, and made small."""
    talk, session_id = attic.talk, attic.begun(turns=5)
    talk.embed_all()
    talk.ask(A, session_id, "lamp")
    talk.sessions.for_tenant(A).append(session_id, [said(A, n) for n in range(6, TURNS + 1)])
    assert attic.compact() == 2 * PIECE
    assert talk.embed_all() == TURNS - 2 * PIECE
    warm = [(each.turn.seq, each.score) for each in talk.ask(A, session_id, "which lamp?", top_k=50).turns]
    talk.residents.forget("a", [session_id])
    cold = [(each.turn.seq, each.score) for each in talk.ask(A, session_id, "which lamp?", top_k=50).turns]
    assert warm == cold
    assert len(warm) == WINDOW


def test_a_fork_has_what_the_other_had(attic: Attic) -> None:
    session_id = attic.begun()
    handle = attic.talk.sessions.for_tenant(A)
    shown = handle.turns(session_id, limit=500)
    assert attic.compact() == 2 * PIECE
    for last in (1, PIECE, PIECE + WINDOW - 1, PIECE + WINDOW, TURNS - WINDOW, TURNS):
        fork = handle.fork(session_id, turn_id=shown[last - 1].id)
        found = handle.turns(fork.id, limit=500)
        assert [_told(turn) for turn in found] == [_told(turn) for turn in shown[:last]]
        outside = max(0, last - WINDOW)
        assert attic.chat(fork.id).compacted_turns == min(2 * PIECE, outside - outside % PIECE)
        assert (fork.turns, fork.tokens) == (last, sum(turn.tokens for turn in shown[:last]))
        stored = {turn.seq: turn.data for turn in attic.rows(Turn) if turn.session_id == fork.id}
        assert {seq for seq, data in stored.items() if data is None} == {*range(1, fork.compacted_turns + 1)}
        assert {row.last_seq for row in attic.rows(TurnArchive) if row.session_id == fork.id} <= {PIECE, 2 * PIECE}
    assert attic.talk.sessions.for_tenant(A).turns(session_id, limit=500) == shown


def _told(turn: Turn) -> dict[str, Any]:
    return turn.model_dump(exclude={"id", "session_id", "idempotency_key"})


def _forms(attic: Attic) -> None:
    """Each turn has its contents in its own row or in one archive."""
    packed_in: dict[tuple[str, int], int] = {}
    for row in attic.rows(TurnArchive):
        for seq in unpack(row):
            packed_in[row.session_id, seq] = packed_in.get((row.session_id, seq), 0) + 1
    upto = {chat.id: chat.compacted_turns for chat in attic.rows(ChatSession)}
    for turn in attic.rows(Turn):
        assert packed_in.pop((turn.session_id, turn.seq), 0) == (turn.data is None) == (turn.seq <= upto[turn.session_id])
    assert not packed_in


def test_a_pass_that_dies_at_any_commit_leaves_each_turn_in_one_form(attic: Attic) -> None:
    died, at = True, 0
    ours, theirs = attic.begun(A), attic.begun(B)
    before = [attic.turns(A, ours), attic.turns(B, theirs)]
    while died:
        at, died = at + 1, False
        try:
            with _dying(attic.database, at):
                attic.compact()
        except Death:
            died = True
        _forms(attic)
    assert at > 2
    assert attic.compact() == 0
    assert [attic.turns(A, ours), attic.turns(B, theirs)] == before


@contextmanager
def meanwhile(monkeypatch: pytest.MonkeyPatch, what: Any) -> Iterator[None]:
    """It happens between the packing of a piece and its writing, once."""
    done = []

    def packing(turns: Any) -> TurnArchive:
        found = pack(turns)
        if not done:
            done.append(True)
            what()
        return found

    with monkeypatch.context() as patch:
        patch.setattr(compacting, "pack", packing)
        yield
    assert done


def test_two_at_once_and_others_at_work_do_nothing_twice(attic: Attic, monkeypatch: pytest.MonkeyPatch) -> None:
    session_id = attic.begun()
    handle = attic.talk.sessions.for_tenant(A)
    before = attic.turns(A, session_id)
    with meanwhile(monkeypatch, attic.compact):
        assert attic.compact() == 0, "the other has done all of it"
    _forms(attic)
    assert attic.turns(A, session_id) == before
    second = attic.begun()
    with meanwhile(monkeypatch, lambda: (handle.append(second, [NewTurn("user", "more")] * PIECE), handle.fork(second))):
        assert attic.compact() == 2 * 3 * PIECE, "of the fork too"
    _forms(attic)
    assert SessionCompactor(attic.talk.sessions)._compact(Owner("b"), second, 0) == 0, "another tenant's"


@pytest.mark.parametrize("end", ["erased", "expired"])
def test_what_is_over_is_left_alone(attic: Attic, clock: SetClock, monkeypatch: pytest.MonkeyPatch, end: str) -> None:
    session_id, other = attic.begun(), attic.begun(B)

    def over() -> None:
        if end == "expired":
            attic.talk.sessions.for_tenant(A).update(session_id, {"absolute_ttl_s": 60})
            clock.now += 60_000
        else:
            with attic.database.write(A) as session:
                end_sessions(session, "a", col(ChatSession.id) == session_id, clock())

    with meanwhile(monkeypatch, over):
        assert attic.compact() == 2 * PIECE
    assert attic.compact() == 0
    assert {row.session_id for row in attic.rows(TurnArchive)} == {other}
    _forms(attic)


def test_damage_is_told_and_stays_where_it_is(attic: Attic) -> None:
    session_id = attic.begun()
    handle = attic.talk.sessions.for_tenant(A)
    shown = handle.turns(session_id, limit=500)
    assert attic.compact() == 2 * PIECE
    [first, _] = attic.rows(TurnArchive)
    broken = bytes([first.packed[0] ^ 1]) + first.packed[1:]
    which = col(TurnArchive.last_seq) == PIECE
    for values in ({"packed": broken}, {"packed": first.packed, "first_seq": 2}, {"packed": first.packed[:-1], "first_seq": 1}):
        attic.change(values, which)
        for ask in (lambda: handle.turn(session_id, shown[0].id), lambda: handle.turns(session_id, limit=9)):
            with pytest.raises(ContentDamaged) as told:
                ask()
            assert (told.value.status, told.value.retryable) == (503, False)
            assert "is damaged in the database" in told.value.detail
        assert handle.turn(session_id, shown[PIECE].id) == shown[PIECE]
        assert handle.turns(session_id, after=PIECE, limit=500) == shown[PIECE:]
    context = packed(attic.contexts, session_id, 2000)
    assert context.degraded == ("summary",)
    assert context.conversation.chosen.recent[-1].seq == TURNS
    copy = handle.fork(session_id).id
    with pytest.raises(ContentDamaged):
        handle.turns(copy, limit=1)
    assert [_told(turn) for turn in handle.turns(copy, after=PIECE, limit=500)] == [_told(turn) for turn in shown[PIECE:]]
    with attic.database.system_write() as session:
        session.execute(sa.delete(TurnArchive).where(which), execution_options={"synchronize_session": False})
    with pytest.raises(ContentDamaged, match=f"turns 1 to {PIECE} "):
        handle.turns(session_id, limit=PIECE + 5)


def test_a_pinned_turn_that_is_damaged_is_left_out_and_can_be_unpinned(attic: Attic) -> None:
    session_id, other = attic.begun(), attic.begun(B)
    for scope, of in ((A, session_id), (B, other)):
        for seq in (3, PIECE + 1):
            attic.contexts.pins.for_tenant(scope).pin(of, seq)
    assert attic.compact() == 4 * PIECE
    attic.change({"packed": b"x"}, col(TurnArchive.session_id) == session_id, col(TurnArchive.last_seq) == PIECE)
    context = packed(attic.contexts, session_id, 2000)
    assert context.degraded == ("summary", "pins")
    assert (context.moment.pins, [pin.turn and pin.turn.seq for pin in context.conversation.chosen.pins]) == ((101,), [101])
    pins = attic.contexts.pins.for_tenant(A)
    with pytest.raises(ContentDamaged):
        pins.list(session_id)
    assert pins.unpin(session_id, 3).turn.content == ""
    assert [each.turn.seq for each in pins.list(session_id)] == [101]
    assert packed(attic.contexts, session_id, 2000).degraded == ("summary",)
    assert packed(attic.contexts, other, 2000, B).moment.pins == (3, 101)


def test_large_turns_make_small_pieces(attic: Attic, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "PIECE_BYTES", 3000)
    session_id = attic.begun()
    before = attic.turns(A, session_id)
    assert 2 * PIECE >= attic.compact() > PIECE
    sizes = [row.last_seq - row.first_seq + 1 for row in attic.rows(TurnArchive)]
    assert max(sizes) < PIECE / 2
    assert attic.turns(A, session_id) == before
    monkeypatch.setattr(archives, "PIECE_BYTES", 1)
    other = attic.begun(B, PIECE + WINDOW + 3)
    assert attic.compact() == 3 + 1
    assert [row.last_seq for row in attic.rows(TurnArchive) if row.session_id == other] == [1, 2, 3, 4]


def test_what_there_is_to_do_is_found_by_its_index(attic: Attic) -> None:
    if not attic.database.is_postgresql:
        with attic.database.engine.connect() as connection:
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN SELECT id FROM sessions WHERE {IS_COMPACTABLE} ORDER BY id")
            assert "ix_sessions_compactable" in str(plan.all())
