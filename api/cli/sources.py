"""What `carrel ingest` brings: the files beneath folders, by names and patterns. Reads names and dates, no contents."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

import typer

from ingestion.media import SUFFIXES


@dataclass(frozen=True, slots=True)
class File:
    path: Path
    name: str  #: external id and source: relative to the folder that was named, or the bare name
    size: int
    changed_ns: int


@dataclass(frozen=True, slots=True)
class Rules:
    """Which files of a folder are brought. A pattern is for the whole path beneath the folder, or for a last part of it."""

    include: tuple[str, ...] = ()  #: none: the suffixes that are read
    exclude: tuple[str, ...] = ()  #: of files, and of folders with all that is in them
    hidden: bool = False

    def passes_over(self, name: str) -> bool:
        return (not self.hidden and name.rpartition("/")[2].startswith(".")) or _matches(name, self.exclude)

    def takes(self, name: str) -> bool:
        if self.passes_over(name):
            return False
        return _matches(name, self.include) if self.include else Path(name).suffix.lower() in SUFFIXES


def _matches(name: str, patterns: Sequence[str]) -> bool:
    last = name.rpartition("/")[2]
    return any(fnmatchcase(name, pattern.rstrip("/")) or fnmatchcase(last, pattern.rstrip("/")) for pattern in patterns)


@dataclass(slots=True)
class Found:
    """What one walk met. `unread`: folders that could not be looked into, so that nothing is known of what is in them."""

    files: list[File] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)


def find_sources(sources: Sequence[str]) -> tuple[list[Path], list[str]]:
    """Paths and URLs; a path that does not exist is a mistake."""
    urls = [source for source in sources if source.lower().startswith(("http://", "https://"))]
    paths = [Path(source) for source in sources if source not in urls]
    if missing := [path for path in paths if not path.exists()]:
        raise typer.BadParameter(f"Path '{missing[0]}' does not exist.")
    return paths, urls


def find_files(paths: Sequence[Path], rules: Rules) -> Found:
    """In the order of their names. A file that was named itself is taken whatever the rules say."""
    found = Found()
    for path in paths:
        if path.is_file():
            _add(found, path, path.name)
        else:
            root = path.resolve()
            for name in _walk(path, "", rules, found):
                if (path / name).resolve().is_relative_to(root):  # a link that leads elsewhere is not followed
                    _add(found, path / name, name)
    return found


def _add(found: Found, path: Path, name: str) -> None:
    try:
        status = path.stat()
    except OSError:  # gone since it was listed, or a link to nothing
        return
    found.files.append(File(path, name, status.st_size, status.st_mtime_ns))


def _walk(root: Path, folder: str, rules: Rules, found: Found) -> Iterator[str]:
    try:
        with os.scandir(root / folder) as listed:
            entries = sorted(listed, key=lambda entry: entry.name)
    except OSError:
        found.unread.append(str(root / folder))
        return
    for entry in entries:
        name = f"{folder}/{entry.name}" if folder else entry.name
        if entry.is_dir(follow_symlinks=False):
            if not rules.passes_over(name):
                yield from _walk(root, name, rules, found)
        elif entry.is_file() and rules.takes(name):
            yield name
