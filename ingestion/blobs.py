"""Original bytes and extracted texts on disk. A blob has one owner, a version, so deleting it can harm nobody else."""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path

from config.errors import Unavailable

#: Names of the folders that contents are spread over.
FOLDERS = tuple(f"{number:02x}" for number in range(256))


class BlobStore:
    """Names are hashes of owner and content: never a user's string, never shared, verified when read."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def put(self, owner: str, content: bytes) -> str:
        """Write durably (file and folder synced) and return the name. Writing the same again changes nothing but its age."""
        name = f"{_prefix(owner)}-{hashlib.sha256(content).hexdigest()}"
        path = self.path(name)
        with contextlib.suppress(OSError):
            os.utime(path)  # what a dead process wrote must not be taken for nobody's just when it is named
            return name
        draft = path.with_suffix(f".{os.getpid()}.{os.urandom(4).hex()}")
        try:
            if not path.parent.exists():
                path.parent.mkdir(exist_ok=True)
                _sync_folder(self._folder)
            with draft.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
            _sync_folder(path.parent)
        except OSError as error:
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)
            raise Unavailable("The content could not be stored; the disk may be full.") from error
        return name

    def get(self, name: str) -> bytes:
        content = self.path(name).read_bytes()
        if hashlib.sha256(content).hexdigest() != name.rpartition("-")[2]:
            raise Unavailable("A stored content is damaged; restore it from a backup or ingest the document again.")
        return content

    def path(self, name: str) -> Path:
        return self._folder / name[:2] / name

    def delete_owned(self, owner: str) -> None:
        """Delete everything of an owner, also what no row names because its writer died."""
        prefix = _prefix(owner)
        for path in (self._folder / prefix[:2]).glob(f"{prefix}-*"):
            path.unlink(missing_ok=True)

    def listed(self, folder: str) -> dict[str, int]:
        """Every file of one of FOLDERS, drafts of killed writers too, with when it was written (Unix milliseconds)."""
        with contextlib.suppress(FileNotFoundError), os.scandir(self._folder / folder) as entries:
            return {entry.name: modified for entry in entries if (modified := _modified(entry)) is not None}
        return {}

    def delete(self, name: str) -> None:
        self.path(name).unlink(missing_ok=True)

    def count(self) -> int:
        return sum(1 for path in self._folder.glob("??/*"))


def _prefix(owner: str) -> str:
    return hashlib.sha256(owner.encode()).hexdigest()[:32]


def _modified(entry: os.DirEntry[str]) -> int | None:
    try:
        return entry.stat(follow_symlinks=False).st_mtime_ns // 1_000_000
    except FileNotFoundError:  # deleted since it was listed
        return None


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
