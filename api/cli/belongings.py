"""`carrel session …` and `carrel subject …`: what is attached to sessions, and their end."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from api.cli.common import AsJson, TenantOption, notes, print_json, table, tenant_client
from api.cli.session import sessions
from carrel_client import Carrel, Erasure, TransportError
from config.settings import Settings

subjects = typer.Typer(no_args_is_help=True, help="Export or erase all that there is of an end user.")

SessionId = Annotated[str, typer.Argument(help="The session's id, ses_…")]
Subject = Annotated[str, typer.Argument(help="Your name for the end user.")]
Collection = Annotated[str, typer.Option("--collection", "-c", help="Where to; it is made if there is none of this name.")]
Output = Annotated[Path | None, typer.Option("--output", "-o", dir_okay=False, help="A file; else standard output.")]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Until it is done; what is erased is in no answer before that.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask: it cannot be taken back.")]

_PROMOTED = ("of", "document_id", "external_id", "tokens_charged")


@sessions.command("attach")
def attach(
    session_id: SessionId,
    files: Annotated[list[Path], typer.Argument(exists=True, dir_okay=False, help="The documents' contents.")],
    tenant: TenantOption = None,
    as_json: AsJson = False,
) -> None:
    """Attach documents to a session: they are found with it alone, and are gone with it.

    Example: carrel session attach ses_01… contract.pdf --tenant acme
    """
    with tenant_client(Settings(), tenant, ["converse", "query"]) as client:
        brought = [client.session_documents.create(session_id, file=file, external_id=file.name) for file in files]
        for one in brought:
            one.wait()
        found = [client.session_documents.get(session_id, one.document.id) for one in brought]
    rows: list[list[object]] = [[one.id, one.external_id, one.state, one.bytes] for one in found]
    print_json(found) if as_json else table(["id", "name", "state", "bytes"], rows)


@sessions.command("documents")
def documents(session_id: SessionId, tenant: TenantOption = None, as_json: AsJson = False) -> None:
    """List what is attached to a session."""
    with tenant_client(Settings(), tenant, ["query"]) as client:
        found = [*client.session_documents.list(session_id)]
    rows: list[list[object]] = [[one.id, one.external_id, one.state, one.bytes] for one in found]
    print_json(found) if as_json else table(["id", "name", "state", "bytes"], rows)


@sessions.command("promote")
def promote(
    session_id: SessionId,
    collection: Collection,
    documents: Annotated[list[str] | None, typer.Option("--document", help="Only this one, by id; repeat it.")] = None,
    turns: Annotated[bool, typer.Option("--turns", help="What was said too, as one document that is cut at turns.")] = False,
    tenant: TenantOption = None,
    as_json: AsJson = False,
) -> None:
    """Keep what is attached to a session in a collection. Nothing is embedded again.

    Example: carrel session promote ses_01… --collection handbook --turns --tenant acme
    """
    with tenant_client(Settings(), tenant, ["ingest", "query"]) as client:
        done = client.session_documents.promote(session_id, collection=collection, documents=documents, turns=turns)
        kept = [(one.session_document_id, one.submitted) for one in done.documents]
        kept += [] if done.transcript is None else [(session_id, done.transcript)]
        jobs = [submitted.wait() for _, submitted in kept]
    rows: list[list[object]] = [
        [old, new.document.id, new.document.external_id, 0 if job is None else job.tokens_charged]
        for (old, new), job in zip(kept, jobs, strict=True)
    ]
    names = ["in the session", "in the collection", "name", "tokens charged"]
    print_json([dict(zip(_PROMOTED, row, strict=True)) for row in rows]) if as_json else table(names, rows)


@sessions.command("export")
def export(session_id: SessionId, output: Output = None, tenant: TenantOption = None, as_json: AsJson = False) -> None:
    """Export a session with its turns and documents, a JSON object a line."""
    with tenant_client(Settings(), tenant, ["query"]) as client:
        _write(client.exports.session(session_id), output, as_json=as_json)


@sessions.command("erase")
def erase(
    session_id: SessionId, yes: Yes = False, wait: Wait = True, tenant: TenantOption = None, as_json: AsJson = False
) -> None:
    """Erase a session with everything of it, and print the receipt.

    Example: carrel session erase ses_01… --tenant acme
    """
    _confirmed(f"Erase {session_id} with everything of it?", yes=yes)
    with tenant_client(Settings(), tenant, ["converse", "query"]) as client:
        _print_erasure(client, client.erasures.session(session_id), wait=wait, as_json=as_json)


@subjects.command("export")
def export_subject(subject: Subject, output: Output = None, tenant: TenantOption = None, as_json: AsJson = False) -> None:
    """Export every session of an end user, a JSON object a line."""
    with tenant_client(Settings(), tenant, ["query"]) as client:
        _write(client.exports.subject(subject), output, as_json=as_json)


@subjects.command("erase")
def erase_subject(
    subject: Subject, yes: Yes = False, wait: Wait = True, tenant: TenantOption = None, as_json: AsJson = False
) -> None:
    """Erase whatever there is of an end user: sessions, memories, traces, feedback. Print the receipt.

    Example: carrel subject erase user-17 --tenant acme
    """
    _confirmed(f"Erase everything of {subject}?", yes=yes)
    with tenant_client(Settings(), tenant, ["converse", "query"]) as client:
        _print_erasure(client, client.erasures.subject(subject), wait=wait, as_json=as_json)


def _confirmed(question: str, *, yes: bool) -> None:
    if not yes:
        typer.confirm(question, abort=True, err=True)


def _write(lines: Iterator[dict[str, Any]], output: Path | None, *, as_json: bool) -> None:
    """`as_json`: without the note of how many lines there are. Raise TransportError for an export without its end."""
    count, last = 0, ""
    with nullcontext(sys.stdout) if output is None else output.open("w", encoding="utf-8") as file:
        for line in lines:
            count, last = count + 1, str(line["type"])
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
    if not last.endswith("_end"):
        raise TransportError(f"the export was cut off after {count} lines")
    if not as_json:
        notes.print(f"{count} lines.")


def _print_erasure(client: Carrel, erasure: Erasure, *, wait: bool, as_json: bool) -> None:
    erasure = client.erasures.wait(erasure.id) if wait else erasure
    if as_json:
        print_json(erasure)
        return
    rows: list[list[object]] = [
        [name, count, erasure.after.get(name) if erasure.after else None] for name, count in erasure.before.items() if count
    ]
    table(["what", "before", "after"], rows)
    notes.print(f"{erasure.id} is {erasure.state}.")
