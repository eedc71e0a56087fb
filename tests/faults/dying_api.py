"""An API process that dies at a named point of requests with an idempotency key, again and again, and then lives.

Run as `python -m tests.faults.dying_api FOLDER POINT DEATHS`. Its port is on the first line; it stays the same, because the
listening socket belongs to the parent, as it does under the supervisor.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import event

from api.processes.api import run_api  # imported before the forks, so that each child starts at once
from api.processes.lifecycle import Lifecycle, end_with_parent
from config.settings import Settings
from tenants import idempotency
from tenants.idempotency import Claim, IdempotencyStore

DIED = 70
POINTS = {
    "claimed": "the key is claimed, and nothing was done",
    "written": "the effect is in an open transaction",
    "recorded": "effect and result are in an open transaction",
    "committed": "both are committed, and the answer has not left",
}


def _die(*_: object) -> None:
    os._exit(DIED)


def _arm(point: str) -> None:
    """Wrap the store, in this process only."""
    claim, record = IdempotencyStore.claim, IdempotencyStore.record

    def claim_and_die(self: IdempotencyStore, call: Any) -> Any:
        found = claim(self, call)
        return _die() if isinstance(found, Claim) else found

    def record_and_die(self: IdempotencyStore, session: Any, *given: Any) -> None:
        session.flush()
        if point == "written":
            _die()
        record(self, session, *given)
        if point == "recorded":
            _die()
        event.listen(session, "after_commit", _die)

    if point == "claimed":
        IdempotencyStore.claim = claim_and_die  # type: ignore[method-assign]
    else:
        IdempotencyStore.record = record_and_die  # type: ignore[method-assign]


def main(folder: Path, point: str, deaths: int) -> None:
    idempotency.LEASE_S = 1  # what a dead process claimed is free again within the test
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    print(listener.getsockname()[1], flush=True)
    settings = Settings(data_dir=folder, embedding_runtime="hash", log_level="error")
    for _ in range(deaths):
        _in_child(lambda: (_arm(point), run_api(settings, listener, Lifecycle())))
    end_with_parent()
    run_api(settings, listener, Lifecycle())


def _in_child(work: Callable[[], object]) -> None:
    pid = os.fork()
    if pid == 0:
        end_with_parent()
        work()
        os._exit(0)
    if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != DIED:
        raise SystemExit("a process ended otherwise than it was told to")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
