"""`carrel ingest`: files, folders, URLs and streams of lines, once or for as long as they change."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from api.cli.common import AsJson, TenantOption, notes, out, print_json, service_url, tenant_client
from api.cli.dry_run import estimate_files, show
from api.cli.known import Known, open_known
from api.cli.sources import File, Rules, find_files, find_sources
from api.cli.uploads import PARALLEL, Outcome, Source, Summary, Uploads
from carrel_client import Carrel, CarrelClientError, NotFoundError, PermissionDeniedError
from config.settings import Settings

POLL_S, RETRY_S = 1.0, 10.0  # of --watch; after a service that did not answer
MAX_SHARE = 10  # of its time --watch looks, one part in so many
EXIT_STOPPED = 130  # as of a command that Ctrl-C ended


def register(app: typer.Typer) -> None:
    app.command()(ingest)


def ingest(
    sources: Annotated[
        list[str] | None, typer.Argument(metavar="PATH_OR_URL...", help="Files, folders (searched to the bottom) and URLs.")
    ] = None,
    tenant: TenantOption = None,
    collection: Annotated[str, typer.Option("--collection", "-c", help="Collection to put them in.")] = "default",
    ndjson: Annotated[
        str | None, typer.Option(metavar="FILE", help="Documents as JSON, one a line; `-` is standard input.")
    ] = None,
    max_errors: Annotated[int, typer.Option(min=1, help="Refused lines after which --ndjson stops.")] = 100,
    include: Annotated[list[str] | None, typer.Option(help="Only files of this pattern, as `*.md`; repeat it.")] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="No files and folders of this pattern; repeat it.")] = None,
    hidden: Annotated[bool, typer.Option("--hidden", help="Files and folders too whose names begin with a dot.")] = False,
    parallel: Annotated[int, typer.Option(min=1, max=64, help="Documents in flight.")] = PARALLEL,
    afresh: Annotated[bool, typer.Option("--afresh", help="Read and send files too that have not changed since.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Go on, and bring what changes, until Ctrl-C.")] = False,
    delete: Annotated[
        bool, typer.Option("--delete", help="Delete documents whose files were brought from here and are gone.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what it would cost, each file for itself.")] = False,
    as_json: AsJson = False,
) -> None:
    """Bring files and pages. Brought again, one replaces its former version, and is free if it did not change.

    Read are txt, md, html, pdf, docx, pptx, xlsx, csv, tsv, json, jsonl, ipynb, eml, srt, vtt,
    rtf, odt, epub, source code.

    A URL is fetched by the service, not from here. Ended by Ctrl-C or a failure, the same command goes on where it was.
    With --json each document is a line, and the last line sums up.

    Example: carrel ingest handbook/ https://example.org/rules.html --tenant acme
    """
    if (ndjson is None) == (not sources):
        raise typer.BadParameter("Give paths and URLs, or --ndjson FILE.")
    settings = Settings()
    with tenant_client(settings, tenant, ["ingest", "query"]) as client:
        if ndjson is not None:
            bring_lines(client, ndjson, max_errors=max_errors, as_json=as_json)
            return
        rules = Rules(tuple(include or ()), tuple(exclude or ()), hidden)
        paths, urls = find_sources(sources or [])
        if dry_run:
            _estimate(client, paths, urls, rules, collection=collection, as_json=as_json)
        with _known(settings, tenant, collection) as known:
            told = print_json if as_json else None
            uploads = Uploads(client, collection=collection, parallel=parallel, quiet=as_json, known=known, told=told)
            folders = Folders(client, uploads, known, paths, rules, collection, delete=delete)
            _run(folders, urls, afresh=afresh, watch=watch)
    _sum_up(uploads.summary, as_json=as_json)


def _known(settings: Settings, tenant: str | None, collection: str) -> AbstractContextManager[Known]:
    key = "" if settings.api_key is None else settings.api_key.get_secret_value()
    return open_known(settings.cli_dir, service_url(settings), tenant or key, collection)


def _estimate(
    client: Carrel, paths: Sequence[Path], urls: Sequence[str], rules: Rules, *, collection: str, as_json: bool
) -> None:
    if urls:
        raise typer.BadParameter("A dry run needs files: what a URL would cost is not known before it is fetched.")
    files = [(file.path, file.name) for file in find_files(paths, rules).files]
    total = estimate_files(client, files, collection=collection)
    show(total, as_json=as_json)
    sys.exit(1 if total.failed else 0)


@dataclass(slots=True)
class Folders:
    """Folders and files as they were brought last."""

    client: Carrel
    uploads: Uploads
    known: Known
    paths: Sequence[Path]
    rules: Rules
    collection: str
    delete: bool

    def bring(self, urls: Sequence[str], *, afresh: bool) -> dict[Path, tuple[int, int]]:
        """All that is not as it was; return which files are settled, and as what."""
        found = find_files(self.paths, self.rules)
        listed = {} if afresh else self._listed()
        fresh: list[Source] = []
        for file in found.files:
            if listed and self.known.has(file, listed):
                self.uploads.summary.unread += 1
                self.uploads.tell(Outcome(str(file.path), "unchanged"))
            else:
                fresh.append(file)
        settled = _settled(found.files, self.uploads.bring([*fresh, *urls]))
        self._clean(found.unread)
        return settled

    def again(
        self, before: Mapping[Path, tuple[int, int]], settled: dict[Path, tuple[int, int]]
    ) -> dict[Path, tuple[int, int]]:
        """Bring what has changed and is the same in two looks, so that no half-written file is; return this look."""
        found = find_files(self.paths, self.rules)
        now = {file.path: _stamp(file) for file in found.files}
        fresh = [file for file in found.files if before.get(file.path) == now[file.path] != settled.get(file.path)]
        if fresh:
            settled |= _settled(fresh, self.uploads.bring(fresh))
        self._clean(found.unread)
        return now

    def _listed(self) -> dict[str, int]:
        """Documents that the service has there; none if the key may not ask, and then every file is sent."""
        if self.known.is_empty():
            return {}
        try:
            documents = self.client.documents.list(collection=self.collection)
            return {one.id: one.version for one in documents if one.state == "live"}
        except (NotFoundError, PermissionDeniedError):
            return {}

    def _clean(self, unread: Sequence[str]) -> None:
        """Delete what is gone; of a folder that cannot be looked into nothing is known."""
        for folder in unread:
            notes.print(f"cannot be read: {escape(folder)}")
        if not self.delete or unread:
            return
        for root in self.paths:
            if not root.is_dir():  # gone as a whole: rather a mount that is missing
                continue
            for gone in self.known.gone(root):
                try:
                    self.client.documents.delete(gone.document_id)
                    self.uploads.summary.deleted += 1
                except NotFoundError:
                    pass
                self.known.forget(gone.path)


def _stamp(file: File) -> tuple[int, int]:
    return file.size, file.changed_ns


def _settled(files: Sequence[File], outcomes: Sequence[tuple[Source, Outcome]]) -> dict[Path, tuple[int, int]]:
    later = {source.path for source, outcome in outcomes if isinstance(source, File) and outcome.again}
    return {file.path: _stamp(file) for file in files if file.path not in later}


def _run(folders: Folders, urls: Sequence[str], *, afresh: bool, watch: bool) -> None:
    try:
        settled = folders.bring(urls, afresh=afresh)
        if watch:
            notes.print("Watching; Ctrl-C ends it.")
            _watch(folders, settled)
    except KeyboardInterrupt:
        notes.print(
            f"Stopped: {folders.uploads.summary.documents} documents were brought. The same command goes on where this one was."
        )
        sys.exit(0 if watch else EXIT_STOPPED)


def _watch(folders: Folders, settled: dict[Path, tuple[int, int]]) -> None:
    before: dict[Path, tuple[int, int]] = {}
    while True:
        began, pause = time.monotonic(), POLL_S
        try:
            before = folders.again(before, settled)
        except CarrelClientError as error:
            notes.print(f"The service does not answer: {escape(str(error))}")
            pause = RETRY_S
        time.sleep(max(pause, (time.monotonic() - began) * MAX_SHARE))


def bring_lines(client: Carrel, name: str, *, max_errors: int, as_json: bool) -> None:
    """Returns when all are accepted; their jobs go on."""
    accepted = unchanged = refused = 0
    with sys.stdin.buffer if name == "-" else Path(name).open("rb") as lines:
        for result in client.documents.bulk(lines, max_errors=max_errors):
            accepted, unchanged = accepted + (result.status == 202), unchanged + (result.status == 200)
            refused += result.problem is not None
            if as_json:
                print_json(result)
            elif result.problem is not None:
                notes.print(f"line {result.line}: {escape(str(result.problem.get('detail')))}")
    if as_json:
        print_json({"accepted": accepted, "unchanged": unchanged, "refused": refused})
    else:
        out.print(
            f"{accepted} documents accepted, {unchanged} unchanged, {refused} lines refused. `carrel job list` shows the work."
        )
    if refused:
        sys.exit(1)


def _sum_up(summary: Summary, *, as_json: bool) -> None:
    if as_json:
        print_json(asdict(summary))
    else:
        deleted = f", {summary.deleted} deleted" if summary.deleted else ""
        out.print(
            f"{summary.documents} documents, {summary.unchanged} of them unchanged{deleted}; {summary.chunks} chunks, "
            f"{summary.tokens_charged} tokens charged, {summary.tokens_cached} known already."
        )
        for failure in summary.failed:
            notes.print(f"failed: {escape(failure['path'])}: {escape(failure['reason'])}")
    if summary.failed:
        sys.exit(1)
