"""Bringing files and URLs, some at a time: each is sent, and its job waited for. How far it is, is told as it goes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from threading import Event, Lock

from rich.filesize import decimal
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from api.cli.common import notes
from api.cli.jobs import time_left
from api.cli.known import Known
from api.cli.sources import File
from carrel_client import APIError, Carrel, CarrelClientError, Job, JobFailedError
from config.errors import storable

PARALLEL = 8  # as many as a worker has in flight
JOB_TIMEOUT_S = 3600.0
Source = File | str  #: a file, or a URL


@dataclass
class Outcome:
    """What became of one source."""

    path: str
    state: str  #: live, unchanged, failed or stopped
    document_id: str | None = None
    chunks: int = 0
    tokens_charged: int = 0
    tokens_cached: int = 0
    reason: str | None = None
    again: bool = False  #: whether it may succeed later as it is


@dataclass
class Summary:
    documents: int = 0
    unchanged: int = 0
    unread: int = 0  #: of the unchanged ones, those that were not even read
    deleted: int = 0
    chunks: int = 0
    tokens_charged: int = 0
    tokens_cached: int = 0
    failed: list[dict[str, str]] = field(default_factory=list)

    def add(self, one: Outcome) -> None:
        if one.state == "failed":
            self.failed.append({"path": one.path, "reason": one.reason or ""})
        elif one.state != "stopped":
            self.documents += 1
            self.unchanged += one.state == "unchanged"
        for name in ("chunks", "tokens_charged", "tokens_cached"):
            setattr(self, name, getattr(self, name) + getattr(one, name))


class Stopped(Exception):
    """Somebody ended the command; what is under way is not waited for."""


class Bars:
    """Two bars: documents and bytes; chunks and tokens so far, and how long the documents in flight will take."""

    def __init__(self, sources: Sequence[Source], *, quiet: bool) -> None:
        note = TextColumn("{task.fields[note]}")
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), note)
        self.progress = Progress(*columns, console=notes, disable=quiet)
        self._bytes, self._all_bytes = 0, sum(source.size for source in sources if isinstance(source, File))
        self._documents = self.progress.add_task("documents", total=len(sources), note="")
        self._chunks = self.progress.add_task("chunks", total=None, note="")
        self._open: dict[str, Job] = {}
        self._ended = Counter[str]()
        self._lock = Lock()

    def ended(self, source: Source) -> None:
        self._bytes += source.size if isinstance(source, File) else 0
        note = f"{decimal(self._bytes)} of {decimal(self._all_bytes)}"
        self.progress.update(self._documents, advance=1, note=note)

    def update(self, job: Job) -> None:
        with self._lock:
            self._open[job.id] = job
            if job.finished:
                self._ended.update(_counts(self._open.pop(job.id)))
            total = sum(map(_counts, self._open.values()), self._ended)
            left = time_left(max((one.progress.eta_seconds or 0.0 for one in self._open.values()), default=0.0) or None)
            note = f"{total['tokens_done']:,} of {total['tokens_total']:,} tokens  {left}"
            done, of_all = total["chunks_done"], total["chunks_total"] or None
            self.progress.update(self._chunks, completed=done, total=of_all, note=note)


def _counts(job: Job) -> Counter[str]:
    names = ("chunks_done", "chunks_total", "tokens_done", "tokens_total")
    return Counter({name: getattr(job.progress, name) for name in names})


class Uploads:
    def __init__(
        self,
        client: Carrel,
        *,
        collection: str,
        parallel: int = PARALLEL,
        quiet: bool = False,
        known: Known | None = None,
        told: Callable[[Outcome], None] | None = None,
    ) -> None:
        self._client, self._collection, self._parallel, self._quiet = client, collection, parallel, quiet
        self._known, self._told, self._stopping = known, told, Event()
        self.summary = Summary()

    def bring(self, sources: Sequence[Source]) -> list[tuple[Source, Outcome]]:
        """All of them. On Ctrl-C what is under way is let go, and the interrupt raised again."""
        bars, outcomes = Bars(sources, quiet=self._quiet), list[tuple[Source, Outcome]]()

        def ended(done: Iterable[Future[tuple[Source, Outcome]]]) -> None:
            for source, outcome in (one.result() for one in done):
                outcomes.append((source, outcome))
                bars.ended(source)
                self.tell(outcome)

        with bars.progress, ThreadPoolExecutor(self._parallel) as pool:
            under_way: set[Future[tuple[Source, Outcome]]] = set()
            try:
                for source in sources:
                    under_way.add(pool.submit(self._one, source, bars))
                    if len(under_way) >= 2 * self._parallel:  # no more than these are held, however many there are
                        done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
                        ended(done)
                while under_way:
                    done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
                    ended(done)
            except KeyboardInterrupt:
                self._stopping.set()
                ended(one for one in under_way if not one.cancel())
                raise
        return outcomes

    def tell(self, outcome: Outcome) -> None:
        self.summary.add(outcome)
        if self._told is not None:
            self._told(outcome)

    def _one(self, source: Source, bars: Bars) -> tuple[Source, Outcome]:
        path = source if isinstance(source, str) else str(source.path)
        path = path if storable(path) else ascii(path)[1:-1]
        try:
            return source, self._brought(path, source, bars)
        except Stopped:
            return source, Outcome(path, "stopped")
        except (CarrelClientError, TimeoutError, OSError, UnicodeError) as error:
            reason = getattr(error, "detail", None) or str(error)
            lasting = isinstance(error, JobFailedError | OSError | UnicodeError) or (
                isinstance(error, APIError) and not error.retryable
            )
            return source, Outcome(path, "failed", reason=reason, again=not lasting)

    def _brought(self, path: str, source: Source, bars: Bars) -> Outcome:
        def follow(job: Job) -> None:
            bars.update(job)
            if self._stopping.is_set() and not job.finished:
                raise Stopped

        if self._stopping.is_set():
            raise Stopped
        documents, collection = self._client.documents, self._collection
        if isinstance(source, str):
            submitted = documents.create(url=source, collection=collection)
        else:
            submitted = documents.create(file=source.path, collection=collection, external_id=source.name, source=source.name)
        job = submitted.wait(timeout_s=JOB_TIMEOUT_S, on_progress=follow)
        document = submitted.document
        if self._known is not None and isinstance(source, File):
            self._known.keep(source, document.id, document.version)
        if job is None:
            return Outcome(path, "unchanged", document.id)
        return Outcome(path, "live", document.id, job.chunks_total, job.tokens_charged, job.tokens_cached)
