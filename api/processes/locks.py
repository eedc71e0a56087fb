"""Who may work on a data directory: advisory locks, which the kernel drops with their process, and a private folder."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path
from typing import IO

from config.errors import DataDirectoryInUse, SetupError

_RETRY_S = 0.1
MAX_SLOTS = 64


def hold_lock(data_dir: Path, name: str, *, patience_s: float = 0.0) -> IO[str]:
    """Return the locked file, to be kept open; raise DataDirectoryInUse if another process has it.

    `patience_s`: how long to wait for a predecessor that is just ending.
    """
    deadline = time.monotonic() + patience_s
    while (file := _try_lock(data_dir, name)) is None:
        if time.monotonic() >= deadline:
            raise DataDirectoryInUse(
                f"A {name} is already running on {data_dir.resolve()}. Stop it, or set CARREL_DATA_DIR to another folder."
            )
        time.sleep(_RETRY_S)
    return file


def hold_slot(data_dir: Path, name: str) -> tuple[str, IO[str]]:
    """The first free of `NAME-1`, `NAME-2` and so on, with its locked file, to be kept open.

    So the only one of its kind has the same name again after every restart.
    """
    for number in range(1, MAX_SLOTS + 1):
        slot = f"{name}-{number}"
        if (file := _try_lock(data_dir, slot)) is not None:
            return slot, file
    raise DataDirectoryInUse(f"{MAX_SLOTS} of {name} are running on {data_dir.resolve()}; that is the most there may be.")


def _try_lock(data_dir: Path, name: str) -> IO[str] | None:
    folder = data_dir / "locks"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    file = (folder / f"{name}.lock").open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


def private_dir(path: Path) -> Path:
    """Make the folder and its parent (0700) and refuse one that somebody else owns or may enter."""
    for folder in (path.parent, path):
        folder.mkdir(exist_ok=True, mode=0o700)
        status = folder.lstat()
        if status.st_uid != os.getuid() or status.st_mode & 0o077:
            raise SetupError(f"{folder} must belong to this user with mode 0700; remove it and start again")
    return path
