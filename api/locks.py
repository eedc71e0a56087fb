"""One owner a data directory: an advisory lock that the kernel drops with its process."""

from __future__ import annotations

import fcntl
import time
from pathlib import Path
from typing import IO

from config.errors import DataDirectoryInUse

_RETRY_S = 0.1


def hold_lock(data_dir: Path, name: str, *, patience_s: float = 0.0) -> IO[str]:
    """Return the locked file, to be kept open; raise DataDirectoryInUse if another process has it.

    `patience_s`: how long to wait for a predecessor that is just ending.
    """
    folder = data_dir / "locks"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    file = (folder / f"{name}.lock").open("a+")
    deadline = time.monotonic() + patience_s
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return file
        except BlockingIOError:
            if time.monotonic() >= deadline:
                file.close()
                raise DataDirectoryInUse(
                    f"A {name} is already running on {data_dir.resolve()}. Stop it, or set CARREL_DATA_DIR to another folder."
                ) from None
            time.sleep(_RETRY_S)
