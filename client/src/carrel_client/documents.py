"""Documents as they are brought: what a request for one holds, which files a folder has, and how far they are. Does no I/O but
looking into folders."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from threading import Lock
from typing import Any, TypedDict

from carrel_client.errors import APIError, CarrelClientError
from carrel_client.models import Document, Job

MAX_EXTERNAL_IDS = 100


class Brought(TypedDict, total=False):
    """What `Documents.create` takes of a document."""

    text: str | None
    file: str | Path | None
    content: bytes | None
    url: str | None
    file_name: str | None
    format: str
    collection: str
    external_id: str | None
    title: str | None
    source: str | None
    attributes: Mapping[str, Any] | None
    labels: Sequence[str] | None
    after: Sequence[str] | None
    after_policy: str
    if_match: str | None
    create_only: bool
    idempotency_key: str | None


def file_of(brought: Brought) -> Path | None:
    """The file that is to be read for a document; raise CarrelClientError unless it has exactly one content."""
    if sum(brought.get(name) is not None for name in ("text", "file", "content", "url")) != 1:
        raise CarrelClientError("Give exactly one of text, file, content and url.")
    file = brought.get("file")
    return None if file is None else Path(file)


def request_of(brought: Brought, content: bytes | None, *, dry_run: bool) -> dict[str, Any]:
    """What `call` is told to bring a document; `content` is that of its file."""
    fields: dict[str, Any] = {
        "collection": brought.get("collection", "default"),
        **{name: brought.get(name) for name in ("external_id", "title", "source")},
        "attributes": dict(brought.get("attributes") or {}),
        "labels": list(brought.get("labels") or []),
    }
    if after := brought.get("after"):
        fields |= {"after": list(after), "after_policy": brought.get("after_policy", "all_succeeded")}
    return {
        **_body(brought, fields, brought.get("content") if content is None else content),
        "headers": {"If-Match": brought.get("if_match"), "If-None-Match": "*" if brought.get("create_only") else None},
        "params": {"dry_run": "true" if dry_run else None},
        "idempotency_key": brought.get("idempotency_key"),
        "repeatable": dry_run,
    }


def _body(brought: Brought, fields: dict[str, Any], content: bytes | None) -> dict[str, Any]:
    if content is None:
        text = brought.get("text")
        one = {"url": brought.get("url")} if text is None else {"text": text, "format": brought.get("format", "text")}
        return {"json": {**fields, **one}}
    file = brought.get("file")
    name = brought.get("file_name") or ("document" if file is None else Path(file).name)
    form = {key: value for key, value in fields.items() if isinstance(value, str)}
    form |= {key: json.dumps(fields[key]) for key in ("attributes", "labels", "after") if key in fields}
    return {"files": {"file": (name, content)}, "data": form}


@dataclass(frozen=True)
class Uploaded:
    """What became of one file of several."""

    path: Path
    external_id: str
    document: Document | None = None
    job: Job | None = None  #: as it ended; None if the content was live already, or of `error`
    error: Exception | None = None  #: why it did not come in: CarrelClientError, TimeoutError or OSError


@dataclass(frozen=True)
class UploadProgress:
    """How far files are that are brought together."""

    files: int
    bytes: int
    files_done: int = 0
    bytes_done: int = 0
    failed: int = 0
    jobs: Mapping[str, Job] = field(default_factory=dict)  #: those under way, by the path of their file


class Upload:
    """Files that are brought together: told of each file's job and end, tells `on_progress`. Once
    `stopped`, what waits is to end. `on_progress` is called by one thread at a time."""

    def __init__(self, files: Sequence[Path], root: Path | None, on_progress: Callable[[UploadProgress], None] | None) -> None:
        self.files, self._root, self._on_progress, self.stopped = files, root, on_progress, False
        self._sizes = {file: file.stat().st_size if file.exists() else 0 for file in files}
        self._done, self._jobs, self._telling = list[Uploaded](), dict[str, Job](), Lock()

    def name_of(self, file: Path) -> str:
        """Its external id: its path inside the folder, with slashes on every system."""
        return file.name if self._root is None else file.relative_to(self._root).as_posix()

    def is_at(self, file: Path, job: Job) -> None:
        """Raise CarrelClientError once it is stopped: what waits for a job is to end."""
        if self.stopped:
            raise CarrelClientError("The upload was stopped.")
        with self._telling:
            self._jobs[str(file)] = job
            self._tell()

    def ended(self, uploaded: Uploaded) -> None:
        with self._telling:
            self._done.append(uploaded)
            self._jobs.pop(str(uploaded.path), None)
            self._tell()

    def _tell(self) -> None:
        if self._on_progress is not None:
            failed = sum(one.error is not None for one in self._done)
            brought = sum(self._sizes[one.path] for one in self._done)
            all_bytes, jobs = sum(self._sizes.values()), dict(self._jobs)
            self._on_progress(UploadProgress(len(self.files), all_bytes, len(self._done), brought, failed, jobs))


def pieces(external_ids: Sequence[str] | None) -> Iterator[Sequence[str] | None]:
    """As many as one request takes at a time; None is all there are."""
    if external_ids is None:
        yield None
        return
    for start in range(0, len(external_ids), MAX_EXTERNAL_IDS):
        yield external_ids[start : start + MAX_EXTERNAL_IDS]


def fatal(error: Exception) -> bool:
    """Whether the next file would meet the same: the key is none, or may not."""
    return isinstance(error, APIError) and error.status in (401, 402, 403)


def files_in(folder: Path, *, include: Sequence[str], exclude: Sequence[str], hidden: bool) -> Iterator[Path]:
    """The files of a folder to its bottom, in order of their paths; links to folders are not followed."""
    for path in sorted(folder.iterdir()):
        if (path.name.startswith(".") and not hidden) or any(fnmatch(path.name, pattern) for pattern in exclude):
            continue
        if path.is_dir() and not path.is_symlink():
            yield from files_in(path, include=include, exclude=exclude, hidden=hidden)
        elif path.is_file() and any(fnmatch(path.name, pattern) for pattern in include):
            yield path
