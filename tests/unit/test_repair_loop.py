"""When a worker repairs, and who of several does; and the heartbeat that tells them apart."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import cast

import pytest

from api.processes.heartbeat import Heartbeat
from api.processes.repairs import RepairLoop
from config.database import Database
from config.errors import EngineUnavailable
from ingestion.jobs.instances import Instances
from ingestion.reconciler import Reconciler
from tests.unit.conftest import SetClock


@dataclass
class Watched:
    """Stands in for the reconciler."""

    points: int | None = 10  #: None while it is away
    run: str = "first"
    indexed: int = 10
    runs: int = 0
    fails: list[Exception] = field(default_factory=list)
    ran: threading.Event = field(default_factory=threading.Event)

    def engine(self) -> tuple[str, int] | None:
        return None if self.points is None else (self.run, self.points)

    def engine_lost_points(self) -> bool:
        return self.points is not None and self.points < self.indexed

    def run_once(self) -> None:
        if self.fails:
            raise self.fails.pop()
        self.runs += 1
        self.ran.set()


def _loop(watched: Watched, *, leads: bool = True, every_s: float = 3600, watch_s: float = 0.01) -> RepairLoop:
    return RepairLoop(cast(Reconciler, watched), lambda: leads, every_s=every_s, watch_s=watch_s)


def test_it_runs_after_the_start_and_then_when_it_is_time() -> None:
    watched = Watched()
    loop = _loop(watched)
    assert [loop.look() for _ in range(3)] == [True, False, False]
    hasty = _loop(watched, every_s=0)
    assert [hasty.look() for _ in range(3)] == [True, True, True]


def test_it_runs_when_it_is_woken() -> None:
    loop = _loop(Watched())
    loop.look()
    loop.wake()
    assert [loop.look(), loop.look()] == [True, False]


@pytest.mark.parametrize("away_first", [True, False])
def test_it_runs_when_the_engine_comes_back_with_less(away_first: bool) -> None:
    watched = Watched()
    loop = _loop(watched)
    loop.look()
    if away_first:
        watched.points = None
        assert not loop.look()
    watched.points = 0
    assert loop.look()
    watched.points = 10
    assert not loop.look()


def test_it_runs_when_the_engine_grew_and_lost_all_between_two_looks() -> None:
    watched = Watched(points=0, indexed=0)
    loop = _loop(watched)
    loop.look()
    watched.indexed, watched.run = 10, "second"
    assert loop.look()


def test_a_deletion_is_no_loss() -> None:
    watched = Watched()
    loop = _loop(watched)
    loop.look()
    watched.points = watched.indexed = 4
    assert not loop.look()


def test_only_who_leads_repairs() -> None:
    assert not _loop(Watched(), leads=False).look()


def test_what_was_due_stays_due_until_it_succeeded() -> None:
    watched = Watched(fails=[EngineUnavailable("away")])
    loop = _loop(watched)
    with pytest.raises(EngineUnavailable):
        loop.look()
    assert loop.look()


def test_the_thread_survives_failures_and_ends_when_closed() -> None:
    watched = Watched(fails=[EngineUnavailable("away")])
    loop = _loop(watched)
    loop.start()
    assert watched.ran.wait(10)
    loop.close()
    assert watched.runs == 1


def test_the_oldest_living_process_of_a_kind_leads(database: Database, clock: SetClock) -> None:
    instances = Instances(database, clock)
    with (
        Heartbeat(instances, "api"),
        Heartbeat(instances, "worker", "w1") as first,
        Heartbeat(instances, "worker", "w2") as second,
    ):
        leading = {first.id: first.leads(), second.id: second.leads()}
        assert leading == {min(leading): True, max(leading): False}
        assert len(instances.living()) == 3
    assert instances.living() == []
