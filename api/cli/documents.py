"""`carrel ingest`, `carrel query` and `carrel usage`."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from threading import Lock
from typing import Annotated

import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from api.cli.common import AsJson, TenantOption, notes, out, print_json, table, tenant_client
from api.cli.dry_run import estimate_files, show
from api.cli.explaining import show_how
from api.cli.jobs import time_left
from carrel_client import APIError, Carrel, Job, JobFailedError, Passage, UsageAmounts
from config.errors import storable
from config.settings import Settings
from ingestion.media import SUFFIXES

PARALLEL = 4


def register(app: typer.Typer) -> None:
    app.command()(ingest)
    app.command()(query)
    app.command()(usage)


@dataclass
class Summary:
    documents: int = 0
    unchanged: int = 0
    chunks: int = 0
    tokens_charged: int = 0
    tokens_cached: int = 0
    failed: list[dict[str, str]] = field(default_factory=list)


def ingest(
    sources: Annotated[
        list[str], typer.Argument(metavar="PATH_OR_URL...", help="Files, folders (searched to the bottom) and URLs.")
    ],
    tenant: TenantOption = None,
    collection: Annotated[str, typer.Option("--collection", "-c", help="Collection to put them in.")] = "default",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what it would cost, each file for itself.")] = False,
    as_json: AsJson = False,
) -> None:
    """Bring files and pages. Brought again, one replaces its former version, and is free if it did not change.

    Read are txt, md, html, pdf, docx, pptx, xlsx, csv, tsv, json, jsonl, ipynb, eml, srt, vtt,
    rtf, odt, epub, source code.

    A URL is fetched by the service, not from here.

    Example: carrel ingest handbook/ https://example.org/rules.html --tenant acme
    """
    files, urls = find_sources(sources)
    if urls and dry_run:
        raise typer.BadParameter("A dry run needs files: what a URL would cost is not known before it is fetched.")
    with tenant_client(Settings(), tenant, ["ingest", "query"]) as client:
        if dry_run:
            total = estimate_files(client, files, collection=collection)
            show(total, as_json=as_json)
            sys.exit(1 if total.failed else 0)
        summary = ingest_all(client, [*files, *urls], collection=collection, quiet=as_json)
    if as_json:
        print_json(asdict(summary))
    else:
        out.print(
            f"{summary.documents} documents, {summary.unchanged} of them unchanged; {summary.chunks} chunks, "
            f"{summary.tokens_charged} tokens charged, {summary.tokens_cached} known already."
        )
        for failure in summary.failed:
            notes.print(f"failed: {escape(failure['path'])}: {escape(failure['reason'])}")
    if summary.failed:
        sys.exit(1)


def find_sources(sources: list[str]) -> tuple[list[tuple[Path, str]], list[str]]:
    """Files with their names, and URLs; a path that does not exist is a mistake."""
    urls = [source for source in sources if source.lower().startswith(("http://", "https://"))]
    paths = [Path(source) for source in sources if source not in urls]
    if missing := [path for path in paths if not path.exists()]:
        raise typer.BadParameter(f"Path '{missing[0]}' does not exist.")
    return [*find_files(paths)], urls


def find_files(paths: list[Path]) -> Iterator[tuple[Path, str]]:
    """Yield readable files with the names they are known by: relative to the folder they were found in."""
    for path in paths:
        if path.is_file():
            yield path, path.name
            continue
        for found in sorted(path.rglob("*")):
            hidden = any(part.startswith(".") for part in found.relative_to(path).parts)
            if found.is_file() and not hidden and found.suffix.lower() in SUFFIXES:
                yield found, found.relative_to(path).as_posix()


class ChunksBar:
    """The second bar: chunks and tokens so far, and how long the documents in flight will take."""

    def __init__(self, progress: Progress) -> None:
        self._progress, self._task = progress, progress.add_task("chunks", total=None, note="")
        self._open: dict[str, Job] = {}
        self._ended = Counter[str]()
        self._lock = Lock()

    def update(self, job: Job) -> None:
        with self._lock:
            self._open[job.id] = job
            if job.finished:
                self._ended.update(_counts(self._open.pop(job.id)))
            total = sum(map(_counts, self._open.values()), self._ended)
            left = time_left(max((one.progress.eta_seconds or 0.0 for one in self._open.values()), default=0.0) or None)
            note = f"{total['tokens_done']:,} of {total['tokens_total']:,} tokens  {left}"
            self._progress.update(self._task, completed=total["chunks_done"], total=total["chunks_total"] or None, note=note)


def _counts(job: Job) -> Counter[str]:
    names = ("chunks_done", "chunks_total", "tokens_done", "tokens_total")
    return Counter({name: getattr(job.progress, name) for name in names})


def ingest_all(client: Carrel, sources: Sequence[tuple[Path, str] | str], *, collection: str, quiet: bool) -> Summary:
    """`sources`: paths with the names they are known by, and URLs."""
    summary = Summary()
    note = TextColumn("{task.fields[note]}")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), note)
    with Progress(*columns, console=notes, disable=quiet) as progress, ThreadPoolExecutor(PARALLEL) as pool:
        task, chunks = progress.add_task("documents", total=len(sources), note=""), ChunksBar(progress)
        for outcome in pool.map(lambda source: _ingest_one(client, source, collection, chunks), sources):
            _add(summary, outcome)
            progress.advance(task)
    return summary


def _ingest_one(client: Carrel, source: tuple[Path, str] | str, collection: str, chunks: ChunksBar) -> Summary:
    one, named = Summary(documents=1), source if isinstance(source, str) else str(source[0])
    try:
        if isinstance(source, str):
            submitted = client.documents.create(url=source, collection=collection)
        else:
            path, name = source
            submitted = client.documents.create(file=path, collection=collection, external_id=name, source=name)
        job = submitted.wait(timeout_s=3600, on_progress=chunks.update)
        if job is None:
            one.unchanged = 1
        else:
            one.chunks, one.tokens_charged, one.tokens_cached = job.chunks_total, job.tokens_charged, job.tokens_cached
    except (APIError, JobFailedError, OSError, UnicodeError) as error:
        one.documents = 0
        one.failed.append(
            {
                "path": ascii(named)[1:-1] if not storable(named) else named,
                "reason": getattr(error, "detail", None) or str(error),
            }
        )
    return one


def _add(total: Summary, one: Summary) -> None:
    for name in ("documents", "unchanged", "chunks", "tokens_charged", "tokens_cached"):
        setattr(total, name, getattr(total, name) + getattr(one, name))
    total.failed += one.failed


def query(
    question: Annotated[str, typer.Argument(help="What you want to know.")],
    tenant: TenantOption = None,
    collection: Annotated[list[str] | None, typer.Option("--collection", "-c", help="Where to look; repeat it.")] = None,
    top_k: Annotated[int, typer.Option("--top-k", "-k", help="How many passages.")] = 5,
    mode: Annotated[str | None, typer.Option("--mode", help="hybrid (default), dense or lexical.")] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Say how the answer came to be.")] = False,
    as_json: AsJson = False,
) -> None:
    """Find the passages that answer a question, with their sources.

    Example: carrel query "how long may I keep a book?" --tenant acme
    """
    with tenant_client(Settings(), tenant, ["query"]) as client:
        result = client.query(question, collections=collection, top_k=top_k, mode=mode, explain=explain)
    if as_json:
        print_json(result)
        return
    for rank, passage in enumerate(result.passages, 1):
        show_passage(rank, passage)
    if not result.passages:
        out.print("Nothing found.")
    show_how(result)


def show_passage(rank: int, passage: Passage) -> None:
    page = f", page {passage.first_page}" if passage.first_page else ""
    heading = f" › {passage.headings[-1]}" if passage.headings else ""
    name = passage.source or passage.title or passage.external_id
    out.print(
        f"[bold]{rank}. {escape(name)}[/bold]{escape(heading)}{page}"
        f"  [dim]characters {passage.start}–{passage.end}, score {passage.score:.3f}[/dim]"
    )
    out.print(f"   {escape(' '.join(passage.text.split()))}\n")


def usage(tenant: TenantOption = None, as_json: AsJson = False) -> None:
    """Show the tokens and the money of this month, by day and operation.

    Example: carrel usage --tenant acme
    """
    with tenant_client(Settings(), tenant, ["manage"]) as client:
        found = client.usage()
    if as_json:
        print_json(found)
        return
    limit = "no limit" if found.limit is None else f"{found.remaining:,} of {found.limit:,} tokens left"
    out.print(f"{found.month}: {found.used:,} tokens used ({_dollars(found.cost_micro_usd)}), {found.held:,} held, {limit}.")
    out.print(f"The cache holds {found.cache.vectors:,} vectors in {found.cache.bytes:,} bytes.")
    rows = [[day.day, day.operation, *_amounts(day)] for day in found.days]
    table(USAGE_COLUMNS, [*rows, ["total", "", *_amounts(found.total)]])


USAGE_COLUMNS = ["day", "operation", "charged", "cached", "deduplicated", "hits", "cost", "saved"]


def _amounts(of: UsageAmounts) -> list[object]:
    tokens = [of.charged, of.cached, of.deduplicated, of.hits]
    return [*tokens, _dollars(of.cost_micro_usd), _dollars(of.saved_micro_usd)]


def _dollars(micro: int) -> str:
    return f"${micro / 1_000_000:.6f}"
