"""A fork is as its session was when the turn was the newest, whatever has become of the session's old turns since."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlmodel import col, select

from config.database import Database
from config.errors import ContentDamaged, NotFound
from rag.context.contexts import Contexts
from rag.context.recaps import Recaps
from rag.recall.tables import TurnVector
from rag.sessions.tables import PIECE, ChatSession, Turn, TurnArchive
from tests.unit.conftest import SetClock
from tests.unit.test_compacting import TURNS, WINDOW, A, Attic, B
from tests.unit.test_contexts import packed
from tests.unit.test_recall import Talk


@pytest.fixture
def attic(database: Database, clock: SetClock, tmp_path: Path) -> Attic:
    return Attic(Talk(database, clock, tmp_path), Contexts(database, clock, Recaps(database, clock)))


def _fork(attic: Attic, session_id: str, last: int) -> ChatSession:
    with attic.database.read(A) as session:
        turn_id = session.scalars(select(Turn.id).where(col(Turn.session_id) == session_id, col(Turn.seq) == last)).one()
    return attic.talk.sessions.for_tenant(A).fork(session_id, turn_id=turn_id)


def _counts(chat: ChatSession) -> tuple[int, ...]:
    return chat.turns, chat.tokens, chat.archived_turns, chat.archived_tokens, chat.embedded_turns


def _recalled(attic: Attic, session_id: str) -> list[tuple[int, str, float]]:
    found = attic.talk.ask(A, session_id, "which lamp of the shelf is old?", top_k=50, neighbours=1).turns
    return [(each.turn.seq, each.turn.content, each.score) for each in found]


def _forget_vectors(attic: Attic, session_id: str, *seqs: int) -> None:
    gone = sa.delete(TurnVector).where(col(TurnVector.session_id) == session_id, col(TurnVector.seq).in_(seqs))
    with attic.database.system_write() as session:
        session.execute(gone, execution_options={"synchronize_session": False})


@pytest.mark.parametrize("bound", [{"max_turns": WINDOW}, {"max_tokens": 300}], ids=["turns", "tokens"])
def test_a_fork_is_as_the_session_was_at_that_turn(attic: Attic, bound: dict[str, int]) -> None:
    handle, lasts = attic.talk.sessions.for_tenant(A), (5, PIECE + 4, TURNS)
    ours, theirs = attic.begun(window=None), attic.begun(B)
    then = [attic.begun(turns=last, window=None) for last in lasts]
    for session_id in (ours, *then):
        handle.update(session_id, {"max_turns": None, **bound})
        attic.talk.say(A, "The last word.", session=session_id)  # from now on the bound holds
    attic.talk.embed_all()
    attic.talk.sessions.for_tenant(B).fork(theirs)
    others = [_counts(chat) for chat in attic.rows(ChatSession) if chat.tenant_id == "b"]
    assert attic.compact() > 2 * PIECE
    for last, session_id in zip(lasts, then, strict=True):
        fork = _fork(attic, ours, last)
        attic.talk.say(A, "The last word.", session=fork.id)
        assert attic.talk.embed_all() <= 1, "all others have their vectors"
        assert _counts(attic.chat(fork.id)) == _counts(attic.chat(session_id))
        assert _recalled(attic, fork.id) == _recalled(attic, session_id) != []
        texts = [packed(attic.contexts, each, 900).conversation.composed.text for each in (fork.id, session_id)]
        assert texts[0] == texts[1]
        rows = [turn for turn in attic.rows(Turn) if turn.session_id == fork.id]
        assert all(turn.data is not None for turn in rows if turn.seq > fork.archived_turns)
    assert [_counts(chat) for chat in attic.rows(ChatSession) if chat.tenant_id == "b"] == others
    with pytest.raises(NotFound):
        handle.fork(theirs)


def test_vectors_are_copied_as_far_as_they_are_there(attic: Attic) -> None:
    session_id, last = attic.begun(), PIECE + 4
    attic.talk.embed_all()
    assert attic.compact() == 2 * PIECE
    mine = attic.talk.vectors(A)
    whole = _fork(attic, session_id, last)
    copied = {row.seq: row for row in attic.talk.vectors(A) if row.session_id == whole.id}
    assert {seq: row.vector for seq, row in copied.items()} == {
        row.seq: row.vector for row in mine if last - WINDOW < row.seq <= last
    }
    assert (whole.archived_turns, whole.embedded_turns, attic.talk.embed_all()) == (last - WINDOW, last, 0)
    _forget_vectors(attic, session_id, PIECE - 1)
    some = _fork(attic, session_id, last)
    assert (some.embedded_turns, attic.talk.embed_all()) == (PIECE - 2, 6)
    _forget_vectors(attic, session_id, *range(1, PIECE + 1))
    none = _fork(attic, session_id, last)
    assert (none.embedded_turns, attic.talk.embed_all()) == (last - WINDOW, WINDOW)
    assert _recalled(attic, whole.id) == _recalled(attic, some.id) == _recalled(attic, none.id)


def test_bounds_that_were_changed_since(attic: Attic) -> None:
    session_id, handle = attic.begun(turns=50), attic.talk.sessions.for_tenant(A)
    for changes, in_the_middle, whole in (
        ({"max_turns": 15}, 15, 35),  # they count at once
        ({"max_turns": 4}, 26, 40),  # what is in the session's window is in the fork's
        ({"max_turns": 4, "when_full": "refuse"}, 26, 40),
        ({"max_turns": None}, 0, 0),
    ):
        handle.update(session_id, changes)
        found = (_fork(attic, session_id, 30), _fork(attic, session_id, 50), handle.fork(session_id))
        assert [fork.archived_turns for fork in found] == [in_the_middle, whole, whole]
    assert [fork.archived_turns for fork in (_fork(attic, session_id, 1), attic.chat(session_id))] == [0, 40]


def test_a_window_begins_behind_what_is_damaged(attic: Attic) -> None:
    session_id, handle = attic.begun(), attic.talk.sessions.for_tenant(A)
    assert attic.compact() == 2 * PIECE
    attic.change({"packed": b"x"}, col(TurnArchive.last_seq) == PIECE)
    fork = _fork(attic, session_id, PIECE + 4)
    assert (fork.archived_turns, attic.chat(fork.id).compacted_turns) == (PIECE, PIECE)
    shown = packed(attic.contexts, fork.id, 2000).conversation.chosen.recent
    assert [turn.seq for turn in shown] == [*range(PIECE + 1, PIECE + 5)]
    with pytest.raises(ContentDamaged):
        handle.turns(fork.id, limit=1)
    with pytest.raises(ContentDamaged):
        _fork(attic, session_id, PIECE - 1)
