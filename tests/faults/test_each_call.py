"""Every call of SQL, engine, disk, parser and model fails once, in turn, while documents are brought, changed and deleted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest
from sqlalchemy.exc import OperationalError

from config.database import Database
from config.errors import NotFound, Unavailable
from rag.embedding.batcher import Batcher
from rag.embedding.hashing import HashRuntime
from rag.store.memory import MemoryStore
from tenants.tables import LedgerEntry
from tests.faults.failing import CountingEmbedder, Died, FailingStore, Turns, let_fail
from tests.world import TENANTS, World, text_of

T = TypeVar("T")
RESENDS = 3
FEW = 6  # of the calls, spread over all of them, every day
WAYS = {
    "it fails": (False, False),
    "its answer is lost": (True, False),
    "the process dies at it": (False, True),
    "the process dies after it": (True, True),
}


def _sent(turns: Turns, request: Callable[[], T]) -> T:
    """As clients do: what was answered with 503, or not at all, is sent again."""
    for _ in range(RESENDS):
        try:
            return request()
        except (Unavailable, OperationalError, OSError, Died):
            turns.dead = False
    return request()


def _work(turns: Turns, world: World) -> None:
    """As the queue does: the jobs of a worker that died are begun again."""
    try:
        world.run_jobs(lambda _seconds: None)
    except Died:
        turns.dead = False
        world.run_jobs(lambda _seconds: None)


def _life(turns: Turns, world: World) -> dict[str, dict[str, str]]:
    """Two tenants bring, change and delete; return the texts that must be live."""
    live: dict[str, dict[str, str]] = {}
    for number, name in enumerate(TENANTS):
        first, second, third = (text_of(name, edition, 2 + number) for edition in (1, 2, 3))
        _sent(turns, lambda name=name, text=first: world.bring(name, "kept", text))  # type: ignore[misc]
        gone = _sent(turns, lambda name=name, text=third: world.bring(name, "gone", text))  # type: ignore[misc]
        _work(turns, world)
        _sent(turns, lambda name=name, text=second: world.bring(name, "kept", text))  # type: ignore[misc]
        _work(turns, world)
        _sent(turns, lambda name=name, gone=gone: _deleted(world, name, gone))  # type: ignore[misc]
        live[name] = {"kept": second}
        _work(turns, world)
    return live


def _deleted(world: World, name: str, document: str) -> None:
    try:
        world.of(name).delete(document)
    except NotFound:  # it was done, and only the answer was lost
        return


@contextmanager
def _world(folder: Path, turns: Turns) -> Iterator[World]:
    folder.mkdir()
    database = Database(f"sqlite:///{folder / 'carrel.db'}", synchronous="off")
    embedder = CountingEmbedder(Batcher(HashRuntime(), batch_tokens=2048))
    world = World(database, FailingStore(MemoryStore(), turns), folder, embedder=embedder)
    try:
        let_fail(world, turns)
        yield world
    finally:
        world.close()
        database.close()


def _proved(folder: Path, turns: Turns) -> Turns:
    """Return how it was when everything had ended: what follows then only looks."""
    with _world(folder, turns) as world:
        live = _life(turns, world)
        ended = replace(turns)
        turns.turn = 0
        world.age()
        world.reconciler.check(repair=True)
        world.run_jobs()  # of those that the queue in memory lost with the answer to a commit
        assert world.reconciler.check(repair=True).whole
        world.check_invariants()
        for name in TENANTS:
            shown, _ = world.of(name).list(collection=None, after=None, limit=10)
            assert {one.document.external_id: world.of(name).text(one.document.id)[1].strip() for one in shown} == {
                external_id: text.strip() for external_id, text in live[name].items()
            }
            assert [one.version.number for one in shown] == [2], "one document more or one version more than was brought"
        charged = sum(entry.tokens for name in TENANTS for entry in world.all(name, LedgerEntry) if entry.state != "held")
        embedder = world.embedder
        assert isinstance(embedder, CountingEmbedder)
        assert 0 < charged <= embedder.tokens, "what was embedded again is charged again, and nothing else"
    return ended


@pytest.mark.parametrize(("late", "deadly"), WAYS.values(), ids=WAYS)
def test_some_calls_in_turn(tmp_path: Path, late: bool, deadly: bool) -> None:
    calls = _proved(tmp_path / "none", Turns(late=late)).calls
    for turn in range(1 + calls // FEW // 2, calls + 1, -(-calls // FEW)):
        assert _proved(tmp_path / str(turn), Turns(turn, late, deadly)).failed


@pytest.mark.full
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("late", "deadly"), WAYS.values(), ids=WAYS)
def test_every_call_in_turn(tmp_path: Path, late: bool, deadly: bool) -> None:
    failed: set[str] = set()
    turn = 0
    while name := _proved(tmp_path / str(turn + 1), Turns(turn + 1, late, deadly)).failed:
        failed.add(name)
        turn += 1
    ports = {name.partition(".")[0] for name in failed}
    assert ports == ({"sql", "engine", "blobs", "model"} if late else {"sql", "engine", "blobs", "model", "parser"})
