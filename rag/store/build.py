"""The part of a shard's life that would stop the engine, in a child process: making an empty one, rebuilding a copy.

The child has a folder to itself that does not count yet. It runs only when nobody else wants the processor, and dies with
the engine.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Protocol

from rag.store import edge, files
from rag.store.base import Space
from rag.store.edge import Layout

PR_SET_PDEATHSIG = 1


class Builder(Protocol):
    def create(self, path: Path, space: Space) -> None:
        """An empty shard in a folder that is to be, durable on return."""

    def optimize(self, path: Path, space: Space, layout: Layout) -> None:
        """The shard in this folder without what was deleted, and with its graph if it is to have one; durable on return."""

    def stop(self) -> None:
        """End what is under way, and refuse what comes."""


class BuildsHere:
    """In this process: for tests, and whoever serves nobody meanwhile."""

    def create(self, path: Path, space: Space) -> None:
        edge.create(path, space)
        files.sync_folder(path)

    def optimize(self, path: Path, space: Space, layout: Layout) -> None:
        edge.optimize(path, space, layout)
        files.sync_folder(path)

    def stop(self) -> None: ...


class BuildFailed(RuntimeError):
    """The child that was to build a shard ended otherwise."""


class BuildsInChild:
    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None
        self._stopped = False

    def create(self, path: Path, space: Space) -> None:
        self._run(path, space, Layout(graph=False))

    def optimize(self, path: Path, space: Space, layout: Layout) -> None:
        self._run(path, space, layout)

    def _run(self, path: Path, space: Space, layout: Layout) -> None:
        if self._stopped:
            raise BuildFailed("the engine stops")
        what = [str(path), space.id, str(space.dimensions), str(int(layout.graph)), layout.quantization]
        command = [sys.executable, "-P", "-m", "rag.store.build", str(os.getpid()), *what]
        # Its own session: Ctrl-C reaches the supervisor only.
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True) as self._child:  # noqa: S603
            if self._stopped:
                self._child.kill()
            status = self._child.wait()
        if status:
            raise BuildFailed(f"building {path.name} ended with {status}")

    def stop(self) -> None:
        self._stopped = True
        if self._child is not None and self._child.poll() is None:
            self._child.kill()


def main(parent: str, folder: str, space_id: str, dimensions: str, graph: str, quantization: str) -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(parent):
        return  # it died before this could be asked to follow it
    os.nice(19)
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    path, space = Path(folder), Space(space_id, int(dimensions))
    if path.exists():
        BuildsHere().optimize(path, space, Layout(graph == "1", "int8" if quantization == "int8" else "off"))
    else:
        BuildsHere().create(path, space)


if __name__ == "__main__":
    main(*sys.argv[1:])
