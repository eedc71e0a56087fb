"""Checkpoints outside the database: one file for each chain, appended and synced. Who can write the database alone cannot take
back what stands there.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from tenants.audit.chain import Checkpoint

TAIL_BYTES = 8_192  #: in which the last line lies: a checkpoint has 600 bytes


class CheckpointArchive:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def through(self, chain: str) -> int:
        """Position of the last entry that an archived checkpoint covers."""
        path = self._path(chain)
        if not path.exists():
            return 0
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - TAIL_BYTES))
            return max((one.last for one in _parsed(file.read().splitlines())), default=0)

    def append(self, chain: str, checkpoints: Iterable[Checkpoint]) -> None:
        """After it, the lines are on the disk."""
        lines = b"".join(json.dumps(one.told()).encode() + b"\n" for one in checkpoints)
        if not lines:
            return
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self._path(chain).open("ab") as file:
            # A line that a dying process left half-written ends here, and is written again whole.
            file.write(b"\n" + lines if file.tell() else lines)
            file.flush()
            os.fsync(file.fileno())

    def read(self, chain: str) -> Iterator[Checkpoint]:
        path = self._path(chain)
        if path.exists():
            with path.open("rb") as file:
                yield from _parsed(file)

    def _path(self, chain: str) -> Path:
        return self._folder / f"{chain}.ndjson"


def _parsed(lines: Iterable[bytes]) -> Iterator[Checkpoint]:
    """What was cut off in the middle is passed over: it was written again."""
    for line in lines:
        try:
            yield Checkpoint.parse(json.loads(line))
        except ValueError:
            continue
