"""`carrel job …` and `carrel events`."""

from __future__ import annotations

import sys
from itertools import islice
from typing import Annotated

import typer
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from api.cli.common import AsJson, TenantOption, notes, out, print_json, table, tenant_client
from carrel_client import Job
from config.settings import Settings

jobs = typer.Typer(no_args_is_help=True, help="Look at jobs, follow them, cancel and retry them.")

JobId = Annotated[str, typer.Argument(help="The job's id, job_…")]
Limit = Annotated[int, typer.Option(min=1, help="How many at most.")]
Error = Annotated[str | None, typer.Option("--error", help="Only jobs with this error code, as `document_parked`.")]
InCollection = Annotated[str | None, typer.Option("--collection", "-c", help="Of this collection only.")]
COLUMNS = ["id", "kind", "state", "stage", "%", "document", "created", "error"]


def register(app: typer.Typer) -> None:
    app.command()(events)


def _row(job: Job) -> list[object]:
    percent = f"{job.progress.fraction:.0%}"
    return [job.id, job.kind, job.state, job.stage, percent, job.document_id, job.created_at, job.error_code]


def _print(job: Job, *, as_json: bool) -> None:
    print_json(job) if as_json else table(COLUMNS, [_row(job)])


@jobs.command("list")
def list_jobs(
    tenant: TenantOption = None,
    collection: InCollection = None,
    state: Annotated[str | None, typer.Option(help="queued, running, succeeded, failed or cancelled.")] = None,
    error: Error = None,
    dead: Annotated[bool, typer.Option("--dead", help="Failed, not retried, and nothing newer was brought.")] = False,
    limit: Limit = 20,
    as_json: AsJson = False,
) -> None:
    """List jobs, newest first. `--dead` is what needs a look; `--error document_parked` are those that end their reader.

    Example: carrel job list --dead --tenant acme
    """
    with tenant_client(Settings(), tenant, ["query"]) as client:
        every = client.jobs.list(collection=collection, state=state, error=error, dead=dead, page_size=min(limit, 100))
        found = list(islice(every, limit))
    print_json(found) if as_json else table(COLUMNS, [_row(job) for job in found])


@jobs.command("show")
def show_job(job_id: JobId, tenant: TenantOption = None, as_json: AsJson = False) -> None:
    """Show how far a job is, and why it failed if it did."""
    with tenant_client(Settings(), tenant, ["query"]) as client:
        job = client.jobs.get(job_id)
    _print(job, as_json=as_json)
    if not as_json and job.error_detail:
        out.print(escape(job.error_detail))


@jobs.command("watch")
def watch_job(job_id: JobId, tenant: TenantOption = None, as_json: AsJson = False) -> None:
    """Follow a job to its end. Exits 0 if it succeeded. With --json each change is one line."""
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[left]}"))
    with (
        tenant_client(Settings(), tenant, ["query"]) as client,
        Progress(*columns, console=notes, disable=as_json) as bar,
    ):
        task = bar.add_task("waiting", total=1.0, left="")
        for job in client.jobs.watch(job_id):
            if as_json:
                print_json(job)
            bar.update(task, completed=job.progress.fraction, description=job.stage, left=time_left(job.progress.eta_seconds))
    if not as_json:
        _print(job, as_json=False)
    if job.state != "succeeded":
        sys.exit(1)


@jobs.command("cancel")
def cancel_job(job_id: JobId, tenant: TenantOption = None, as_json: AsJson = False) -> None:
    """End an ingest job. Its document's version never becomes live; a job that has ended stays as it is."""
    with tenant_client(Settings(), tenant, ["ingest"]) as client:
        _print(client.jobs.cancel(job_id), as_json=as_json)


@jobs.command("retry")
def retry_job(
    job_id: Annotated[str | None, typer.Argument(help="The job's id, job_…; or --all.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Every job that `carrel job list --dead` shows.")] = False,
    collection: InCollection = None,
    error: Error = None,
    tenant: TenantOption = None,
    as_json: AsJson = False,
) -> None:
    """Try a failed or cancelled job again, as a new job; asked twice, the same new job. With --all, every dead one.

    Example: carrel job retry --all --error engine_unavailable --tenant acme
    """
    if (job_id is None) != every or (job_id is not None and (collection or error)):
        raise typer.BadParameter("Give either a job's id, or --all with --collection and --error as you like.")
    with tenant_client(Settings(), tenant, ["ingest", "query"]) as client:
        if job_id is not None:
            _print(client.jobs.retry(job_id), as_json=as_json)
            return
        retried = list(client.jobs.retry_all(collection=collection, error=error))
    print_json(retried) if as_json else table(COLUMNS, [_row(job) for job in retried])


def events(
    tenant: TenantOption = None,
    type_: Annotated[str | None, typer.Option("--type", help="A type, or its beginning, as `document.`.")] = None,
    since: Annotated[str | None, typer.Option(help="Id of the last event that you have.")] = None,
    limit: Limit = 100,
    as_json: AsJson = False,
) -> None:
    """List what happened to a tenant's documents, jobs, keys and budget, oldest first.

    Example: carrel events --type document. --tenant acme
    """
    with tenant_client(Settings(), tenant, ["manage"]) as client:
        found = list(islice(client.events.list(type=type_, since=since, page_size=min(limit, 100)), limit))
    rows: list[list[object]] = [[event.at, event.type, event.subject, event.id] for event in found]
    print_json(found) if as_json else table(["at", "type", "subject", "id"], rows)


def time_left(seconds: float | None) -> str:
    """For people: to the second below a minute, and coarser above."""
    if seconds is None:
        return ""
    if seconds < 60:
        return f"{seconds:.0f} s left"
    return f"{seconds / 60:.0f} min left" if seconds < 3600 else f"{seconds / 3600:.1f} h left"
