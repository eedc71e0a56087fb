"""A child that dies is started again for as long as the service runs, however often and however it fails."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from api.cli.telling import EXIT_SETUP
from api.processes import supervisor
from api.processes.supervisor import MAX_PAUSE_S, STEADY_S, Child, Supervisor


class Host:
    """A clock that stands, and a machine that starts processes or does not; each is dead at once."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.started, self.full = 1000.0, 0, False
        monkeypatch.setattr(supervisor, "time", SimpleNamespace(monotonic=lambda: self.now))
        monkeypatch.setattr(supervisor.subprocess, "Popen", self.open)

    def open(self, *_: Any, **__: Any) -> Any:
        if self.full:
            raise BlockingIOError("no more processes")
        self.started += 1
        return SimpleNamespace(poll=lambda: 1)


def _look(child: Child) -> int | None:
    return Supervisor._look_after(cast(Any, None), child)


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(monkeypatch)


@pytest.mark.parametrize("full", [False, True])
def test_a_child_that_always_dies_is_started_after_growing_pauses_for_ever(host: Host, full: bool) -> None:
    child = Child("api", ["api"])
    child.start()
    host.full = full
    pauses = []
    for _ in range(1_100):  # three hours
        assert _look(child) is None
        if child.restart_at:
            pauses.append(child.restart_at - host.now)
            host.now = child.restart_at
            assert _look(child) is None
    assert pauses[:3] == sorted(pauses[:3])
    assert pauses[-1] == max(pauses) == MAX_PAUSE_S
    host.full = False
    before = host.started
    for _ in range(2):
        host.now += MAX_PAUSE_S
        _look(child)
    assert host.started > before


def test_a_child_that_ran_for_a_while_is_started_again_at_once(host: Host) -> None:
    child = Child("api", ["api"], deaths=7)
    child.start()
    host.now += STEADY_S + 1
    assert _look(child) is None
    assert (host.started, child.deaths) == (2, 1)


def test_a_set_up_that_is_wrong_is_told_and_not_tried_again(host: Host) -> None:
    child = Child("api", ["api"], process=cast(Any, SimpleNamespace(poll=lambda: EXIT_SETUP)))
    assert _look(child) == EXIT_SETUP
    assert host.started == 0
