"""Files of shards: synced, copied with their holes, and the small file that says whose points a shard's folder holds.

A folder without that file is a shard that is being made, or the rest of one that was given up: writing the file is what makes
a shard count and deleting it is what ends one, each in one step that no death can halve.
"""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

SPACE_NAME = re.compile(r"[a-z0-9_]{1,64}")
_OURS = re.compile(SPACE_NAME.pattern + r"(\.[0-9a-f]{16})?")
CONFIG_FILE = "edge_config.json"
HOME_FILE = "home.json"
Key = tuple[str, str, str]  # space, tenant, collection; the last two are empty for the shard that tenants share


@dataclass(frozen=True, slots=True)
class Home:
    """Whose points a folder holds. Of two for the same, the one of the higher generation counts."""

    space: str
    tenant: str = ""
    collection: str = ""
    generation: int = 0

    @property
    def key(self) -> Key:
        return self.space, self.tenant, self.collection


def fresh(folder: Path, space: str) -> Path:
    """A name for a folder that is to be: never one that a space can have."""
    return folder / f"{space}.{secrets.token_hex(8)}"


def establish(path: Path, home: Home) -> None:
    """From now on, durably, this folder is the one for its key."""
    draft = path / f"{HOME_FILE}.new"
    draft.write_text(json.dumps(asdict(home)), encoding="utf-8")
    sync_files([draft])
    draft.replace(path / HOME_FILE)
    sync_files([path, path.parent])


def disestablish(path: Path) -> None:
    """From now on, durably, this folder is a leftover."""
    forget(path)
    sync_files([path])


def forget(path: Path) -> None:
    (path / HOME_FILE).unlink(missing_ok=True)


def is_established(path: Path) -> bool:
    return (path / HOME_FILE).exists()


def homes(folder: Path) -> dict[Path, Home]:
    """The folders that count."""
    best: dict[Key, tuple[Home, Path]] = {}
    for path in sorted(folder.iterdir()):
        home = _home_of(path)
        if home is not None and (home.key not in best or home.generation > best[home.key][0].generation):
            best[home.key] = (home, path)
    return {path: home for home, path in best.values()}


def _home_of(path: Path) -> Home | None:
    if is_established(path):
        return Home(**json.loads((path / HOME_FILE).read_bytes()))
    # A space's first shared shard is a folder of the space's name; without its config file a creation was killed.
    return Home(path.name) if SPACE_NAME.fullmatch(path.name) and (path / CONFIG_FILE).exists() else None


def sweep(folder: Path) -> None:
    """Remove folders that do not count: what was being made or given up when its process died."""
    kept = homes(folder)
    for path in folder.iterdir():
        if path.is_dir() and path not in kept and _OURS.fullmatch(path.name):
            shutil.rmtree(path)


def log_files(path: Path) -> Iterator[Path]:
    """What must be synced for a shard's writes to survive a power loss: it replays them from there."""
    yield from sorted((path / "wal").iterdir())
    yield path / "wal"


def sync_files(paths: Iterable[Path]) -> None:
    """fsync each. 1–6 ms, and unlike Edge's flush it releases the GIL, so it can run beside queries."""
    for path in paths:
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            continue  # a log segment that was retired after it was listed: its points are in the segments
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def sync_folder(path: Path) -> None:
    sync_files([*(inner for inner in path.rglob("*") if not inner.is_symlink()), path, path.parent])


def copy_folder(source: Path, target: Path) -> None:
    """As it is now, with the holes of its files: of 208 MB that an empty shard's have, 0.5 MB are data."""
    shutil.copytree(source, target, copy_function=_copy_data, ignore=shutil.ignore_patterns(HOME_FILE))


def _copy_data(source: str, target: str) -> None:
    with open(source, "rb") as from_, open(target, "wb") as to:
        end = os.fstat(from_.fileno()).st_size
        os.ftruncate(to.fileno(), end)
        for start, stop in _data(from_.fileno(), end):
            _copy_range(from_.fileno(), to.fileno(), start, stop)


def _data(descriptor: int, end: int) -> Iterator[tuple[int, int]]:
    """The parts of a file that are no holes."""
    stop = 0
    while stop < end:
        try:
            start = os.lseek(descriptor, stop, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            return  # a hole up to the end
        stop = os.lseek(descriptor, start, os.SEEK_HOLE)
        yield start, stop


def _copy_range(source: int, target: int, start: int, end: int) -> None:
    os.lseek(target, start, os.SEEK_SET)
    while start < end:
        sent = os.sendfile(target, source, start, end - start)
        if not sent:
            raise RuntimeError("a file became shorter while it was copied")
        start += sent


def bytes_of(path: Path) -> int:
    """What it takes on disk."""
    return sum(inner.stat().st_blocks * 512 for inner in path.rglob("*") if inner.is_file())
