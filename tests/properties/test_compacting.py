"""Whatever is said, forked and made small in whatever order: every turn is read as it was said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from config.database import Database
from rag.sessions import archives
from rag.sessions.compacting import SessionCompactor
from rag.sessions.sessions import Sessions
from rag.sessions.tables import PIECE, Turn
from rag.sessions.values import NewSession, NewTurn
from tests.support import FakeScope
from tests.tables import make_tables

A, B = FakeScope("a"), FakeScope("b")
WINDOW = 20
TEXT = st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\0"), max_size=30)
PLAIN = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT
DATA = st.dictionaries(TEXT, PLAIN | st.lists(PLAIN, max_size=3) | st.dictionaries(TEXT, PLAIN, max_size=2), max_size=3)
TURNS = st.builds(
    NewTurn,
    role=st.sampled_from(("user", "assistant", "tool", "system")),
    content=TEXT,
    speaker=st.none() | TEXT,
    tool_calls=st.none() | st.lists(DATA, max_size=2),
    metadata=DATA,
    files=st.lists(TEXT, max_size=2),
)
STEPS = st.lists(
    st.tuples(st.sampled_from(("append", "append", "fork", "compact")), st.integers(1, 2 * PIECE), st.integers(0, 3)),
    max_size=9,
)


def shown(turn: Turn) -> dict[str, Any]:
    return turn.model_dump(exclude={"session_id", "idempotency_key"})


@settings(max_examples=3, deadline=None, suppress_health_check=[*HealthCheck])
@given(steps=STEPS, kinds=st.lists(TURNS, min_size=1, max_size=5), size=st.sampled_from((1 << 19, 2000)))
def test_a_turn_is_read_as_it_was_said(
    steps: list[tuple[str, int, int]], kinds: list[NewTurn], size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _told(steps, kinds, size, tmp_path, monkeypatch)


@pytest.mark.full
@settings(max_examples=80, deadline=None, suppress_health_check=[*HealthCheck])
@given(steps=STEPS, kinds=st.lists(TURNS, min_size=1, max_size=5), size=st.sampled_from((1 << 19, 2000)))
def test_a_turn_is_read_as_it_was_said_in_many_orders(
    steps: list[tuple[str, int, int]], kinds: list[NewTurn], size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _told(steps, kinds, size, tmp_path, monkeypatch)


def _told(
    steps: list[tuple[str, int, int]], kinds: list[NewTurn], size: int, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "PIECE_BYTES", size)
    database = Database(f"sqlite:///{folder / 'carrel.db'}", synchronous="off")
    make_tables(database)
    sessions = Sessions(database, lambda: 1)
    handles = {scope.tenant_id: sessions.for_tenant(scope) for scope in (A, B)}
    compactor = SessionCompactor(sessions, pause=lambda _seconds: None)
    told: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for name, handle in handles.items():
        made = handle.create(NewSession("ann", max_turns=WINDOW, when_full="archive"))
        told[name, made.id] = []
    for step, number, which in [*steps, ("append", 2 * PIECE, 0), ("compact", 1, 0)]:
        (name, session_id), handle = [*told][which % len(told)], handles[[*told][which % len(told)][0]]
        so_far = told[name, session_id]
        if step == "append":
            for turns in (number // 2, number - number // 2):
                if turns:
                    handle.append(session_id, [kinds[n % len(kinds)] for n in range(turns)])
            so_far += [shown(turn) for turn in handle.turns(session_id, after=len(so_far), limit=500)]
        elif step == "fork" and so_far and len(told) < 6:
            last = number % len(so_far)
            copy = handle.fork(session_id, turn_id=so_far[last]["id"]).id
            ids = [turn.id for turn in handle.turns(copy, limit=5000)]
            told[name, copy] = [one | {"id": own} for one, own in zip(so_far[: last + 1], ids, strict=True)]
        elif step == "compact":
            compactor.run_once()
            assert [shown(turn) for turn in handle.turns(session_id, limit=5000)] == so_far
    for (name, session_id), expected in told.items():
        assert [shown(turn) for turn in handles[name].turns(session_id, limit=5000)] == expected
        chat, outside = handles[name].get(session_id), max(0, len(expected) - WINDOW)
        assert (chat.turns, chat.archived_turns) == (len(expected), outside)
        assert chat.tokens == sum(one["tokens"] for one in expected)
        assert chat.archived_tokens == sum(one["tokens"] for one in expected[:outside])
        assert chat.compacted_turns <= outside
    database.close()
