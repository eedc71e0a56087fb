"""Workers that are killed outright while old turns are made small, again and again: each turn is whole in one form or the
other all the while, and reads as it was said.
"""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path

import pytest
from sqlmodel import col, select

from carrel_client import Carrel
from rag.recall.tables import TurnVector
from rag.sessions.archives import unpack
from rag.sessions.tables import PIECE, ChatSession, Turn, TurnArchive
from tests.faults.converged import Inside, inside
from tests.support import running_service, wait_for

pytestmark = [pytest.mark.full, pytest.mark.xdist_group("processes")]
SESSIONS, PIECES, KILLS = 12, 8, 6
TURNS = PIECES * PIECE + 5


def _talk(client: Carrel) -> str:
    made = client.sessions.create(subject="ann", max_turns=5, when_full="archive").id
    turns = [{"role": "user", "content": f"{number} of {made}", "metadata": {"n": number}} for number in range(1, TURNS + 1)]
    for first in range(0, TURNS, 500):
        client.sessions.append(made, turns[first : first + 500])
    return made


def _compacted(found: Inside) -> int:
    """How many turns are, by what the sessions' rows, the turns' and the archives say alike."""
    with found.database.system_read() as session:
        upto = {row.id: row.compacted_turns for row in session.scalars(select(ChatSession))}
        archives = session.scalars(select(TurnArchive)).all()
        thin = [(turn.session_id, turn.seq) for turn in session.scalars(select(Turn)) if turn.data is None]
        vectors = {*session.execute(select(TurnVector.session_id, TurnVector.seq)).all()}
        embedded = {row.session_id for row in archives if row.packed_at is not None}
    assert sorted(thin) == sorted((row.session_id, seq) for row in archives for seq in unpack(row))
    assert sorted(thin) == [(name, seq) for name, last in sorted(upto.items()) for seq in range(1, last + 1)]
    assert {name for name, seq in vectors if (name, seq) in {*thin}} == embedded
    return len(thin)


def test_a_turn_is_whole_in_one_form_whatever_dies(tmp_path: Path) -> None:
    chance = random.Random(7)
    with running_service(tmp_path, embedding_runtime="hash", sweep_seconds=0.1) as service, inside(tmp_path) as found:
        worker = wait_for(lambda: service.child("worker"), what="a worker")
        os.kill(worker, signal.SIGSTOP)  # until there is much to do
        clients = [service.tenant()[1] for _ in range(2)]
        talks = {session_id: client for client in clients for session_id in [_talk(client) for _ in range(SESSIONS)]}
        assert _compacted(found) == 0
        os.kill(worker, signal.SIGCONT)
        every = len(talks) * PIECES * PIECE
        for goal in sorted(chance.sample(range(1, every - 2000), KILLS)):
            wait_for(lambda goal=goal: _rows(found) * PIECE >= goal, what="some pieces", timeout_s=120)  # type: ignore[misc]
            service.kill("worker")
            assert _compacted(found) < every
        wait_for(lambda: _rows(found) * PIECE == every, what="all of them", timeout_s=120)
        assert _compacted(found) == every
        for session_id, client in talks.items():
            shown = [(turn.seq, turn.content, turn.metadata) for turn in client.sessions.turns(session_id, page_size=100)]
            assert shown == [(n, f"{n} of {session_id}", {"n": n}) for n in range(1, TURNS + 1)]


def _rows(found: Inside) -> int:
    with found.database.system_read() as session:
        return len(session.scalars(select(col(TurnArchive.last_seq))).all())
