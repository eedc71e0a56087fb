"""`carrel document …`: one document at a time, with conditions and an order that `carrel ingest` has no use for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from api.cli.common import AsJson, TenantOption, print_json, table, tenant_client
from carrel_client import Document, Job
from config.settings import Settings

documents = typer.Typer(no_args_is_help=True, help="Look at one document, bring it on a condition, delete it.")

DocumentId = Annotated[str, typer.Argument(help="The document's id, doc_…")]
IfMatch = Annotated[str | None, typer.Option("--if-match", help="Only if this is its etag, as `carrel document show` says.")]
After = Annotated[list[str] | None, typer.Option("--after", help="A job that must end first; repeat it.")]
AnyEnd = Annotated[bool, typer.Option("--any-end", help="Also if one of those fails or is cancelled.")]
COLUMNS = ["id", "external id", "collection", "state", "version", "near duplicate of", "etag"]
JOB_COLUMNS = ["job", "state", "waits for"]


def _print(document: Document, *, as_json: bool) -> None:
    near = document.near_duplicate_of
    shown: list[object] = [document.id, document.external_id, document.collection, document.state, document.version]
    shown += [near and f"{near.document_id} {near.similarity:.2f}{' linked' if near.linked else ''}", document.etag]
    print_json(document) if as_json else table(COLUMNS, [shown])


def _policy(any_end: bool) -> str:
    return "any_end" if any_end else "all_succeeded"


def _print_job(job: Job, *, as_json: bool) -> None:
    print_json(job) if as_json else table(JOB_COLUMNS, [[job.id, job.state, " ".join(job.waits_for) or None]])


@documents.command("show")
def show(document_id: DocumentId, tenant: TenantOption = None, as_json: AsJson = False) -> None:
    """Show a document: its state, its etag, and what it nearly repeats."""
    with tenant_client(Settings(), tenant, ["query"]) as client:
        _print(client.documents.get(document_id), as_json=as_json)


@documents.command("put")
def put(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="The document's content.")],
    external_id: Annotated[str | None, typer.Option("--external-id", help="Your name for it; else the file's name.")] = None,
    collection: Annotated[str, typer.Option("--collection", "-c", help="Collection to put it in.")] = "default",
    if_match: IfMatch = None,
    create_only: Annotated[bool, typer.Option("--create-only", help="Only if there is no such document yet.")] = False,
    after: After = None,
    any_end: AnyEnd = False,
    tenant: TenantOption = None,
    as_json: AsJson = False,
) -> None:
    """Bring one document, if it is at the version that you saw, or when other jobs have ended.

    Example: carrel document put rules.md --if-match '"doc_01….3"' --tenant acme
    """
    with tenant_client(Settings(), tenant, ["ingest"]) as client:
        brought = client.documents.create(
            file=file,
            external_id=external_id or file.name,
            source=file.name,
            collection=collection,
            if_match=if_match,
            create_only=create_only,
            after=after,
            after_policy=_policy(any_end),
        )
    _print(brought.document, as_json=as_json)
    if brought.job is not None and not as_json:
        _print_job(brought.job, as_json=False)


@documents.command("delete")
def delete(
    document_id: DocumentId,
    if_match: IfMatch = None,
    after: After = None,
    any_end: AnyEnd = False,
    tenant: TenantOption = None,
    as_json: AsJson = False,
) -> None:
    """Delete a document: it is gone from every answer at once, or when other jobs have ended."""
    with tenant_client(Settings(), tenant, ["ingest"]) as client:
        job = client.documents.delete(document_id, if_match=if_match, after=after or (), after_policy=_policy(any_end))
    _print_job(job, as_json=as_json)
