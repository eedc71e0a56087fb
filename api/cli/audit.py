"""`carrel audit …`: who did what, and whether the record of it is whole."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Annotated

import typer

from api.cli.common import AsJson, operator, out, print_json, table
from carrel_client import AdminAudit, Carrel, NotFoundError
from config.errors import SetupError
from config.settings import Settings
from tenants.audit.archive import CheckpointArchive
from tenants.audit.chain import OPERATOR
from tenants.audit.verifier import Report, Verifier

audit = typer.Typer(no_args_is_help=True, help="Show, export and verify the record of who did what.")

OfTenant = Annotated[
    str | None, typer.Option("--tenant", "-t", help="Tenant, by name or id, a deleted one by its id; as an operator.")
]
OfOperators = Annotated[bool, typer.Option("--operators", help="The record of operators themselves.")]
COLUMNS = ["at", "decision", "status", "principal", "action", "target", "position"]


@contextmanager
def _client(settings: Settings, tenant: str | None, operators: bool) -> Iterator[tuple[Carrel, bool]]:
    """A client, and whether it is to be asked as an operator: with a key in CARREL_API_KEY and no option, as its tenant."""
    with operator(settings) as client:
        yield client, tenant is not None or operators or settings.api_key is None


@audit.command()
def tail(
    tenant: OfTenant = None,
    operators: OfOperators = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, max=10_000, help="How many entries.")] = 20,
    principal: Annotated[str | None, typer.Option(help="Only of this key, token or operator.")] = None,
    action: Annotated[str | None, typer.Option(help="Only of this method and route, as 'POST /v1/query'.")] = None,
    decision: Annotated[str | None, typer.Option(help="Only allowed, or only denied.")] = None,
    target: Annotated[str | None, typer.Option(help="Only paths that begin like this.")] = None,
    since: Annotated[str | None, typer.Option(help="From this time on: ISO 8601 with its zone.")] = None,
    until: Annotated[str | None, typer.Option(help="Before this time.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show the newest entries, the newest last: of a tenant, or of operators.

    Example: carrel audit tail --tenant acme --decision denied -n 50
    """
    filters = {"principal": principal, "action": action, "decision": decision, "target": target, "since": since}
    with _client(Settings(), tenant, operators) as (client, as_operator):
        chosen = {**filters, "until": until, "page_size": min(lines, 100)}
        listed = client.admin.audit.list(tenant, **chosen) if as_operator else client.audit.list(**chosen)  # type: ignore[arg-type]
        entries = [entry for _, entry in zip(range(lines), listed, strict=False)][::-1]
    if as_json:
        print_json(entries)
        return
    rows: list[list[object]] = [
        [one.at, one.decision, one.status, one.principal_id, one.action, _harmless(one.target), one.position] for one in entries
    ]
    table(COLUMNS, rows)


def _harmless(text: str) -> str:
    """A path is the caller's own words: no control character of it reaches a terminal."""
    return json.dumps(text)[1:-1]


@audit.command()
def export(
    tenant: OfTenant = None,
    operators: OfOperators = False,
    from_position: Annotated[int, typer.Option(min=1, help="Begin at the checkpoint that covers this position.")] = 1,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File to write; else standard output.")] = None,
    as_json: AsJson = False,
) -> None:
    """Write a chain as lines of JSON: entries, and the signed checkpoints that cover them. With --json, say what was written.

    Example: carrel audit export --tenant acme -o acme.ndjson
    """
    if as_json and output is None:
        raise SetupError("With --json the lines need a file: pass --output.")
    with _client(Settings(), tenant, operators) as (client, as_operator):
        exported = _lines(client, tenant if as_operator else None, as_operator, from_position)
        if output is None:
            for line in exported:
                print(line)
            return
        with output.open("w", encoding="utf-8") as file:
            count = sum(1 for line in exported if file.write(line + "\n"))
    told = {"file": str(output), "lines": count}
    print_json(told) if as_json else out.print(f"{count} lines are in {output}.")


def _lines(client: Carrel, tenant: str | None, as_operator: bool, from_position: int = 1) -> Iterator[str]:
    if as_operator:
        return client.admin.audit.export(tenant, from_position=from_position)
    return client.audit.export(from_position=from_position)


@audit.command()
def verify(
    file: Annotated[Path | None, typer.Argument(help="An exported file: verified without any service.")] = None,
    tenant: OfTenant = None,
    operators: OfOperators = False,
    public_key: Annotated[
        list[str] | None, typer.Option(help="Public key that you trust, hexadecimal; repeat it. Default: those that are named.")
    ] = None,
    archive: Annotated[
        Path | None, typer.Option(help="Folder of archived checkpoints; the default is CARREL_AUDIT_ARCHIVE_DIR.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Find every entry that was edited, removed, moved or inserted, up to the last checkpoint. Exit status 1 if there is one.

    Without a file: the chain of --tenant, of --operators, of CARREL_API_KEY's own tenant; as an operator, all chains.

    Examples: carrel audit verify
              carrel audit verify acme.ndjson --public-key 5f3c…
    """
    settings = Settings()
    folder = archive or settings.audit_archive_dir
    if file is not None:
        with file.open(encoding="utf-8", errors="replace") as lines:
            reports = [_verified(lines, public_key, folder)]
    else:
        with _client(settings, tenant, operators) as (client, as_operator):
            reports = [*_of_service(client, tenant, operators, as_operator, public_key, folder)]
    if as_json:
        print_json([{**asdict(report), "sound": report.sound} for report in reports])
    else:
        _tell(reports)
    if not all(report.sound for report in reports):
        raise typer.Exit(1)


def _of_service(
    client: Carrel, tenant: str | None, operators: bool, as_operator: bool, keys: list[str] | None, folder: Path | None
) -> Iterator[Report]:
    if not as_operator:
        yield _verified(client.audit.export(), keys, folder)
        return
    if tenant is not None:
        yield _of_chain(client.admin.audit, _id_of(client, tenant), keys, folder)
        return
    yield _of_chain(client.admin.audit, None, keys, folder)
    if not operators:
        for each in client.admin.tenants.list():
            yield _of_chain(client.admin.audit, each.id, keys, folder)
        for deletion in client.admin.tenants.deletions():
            if deletion.state == "done":
                yield _of_chain(client.admin.audit, deletion.tenant_id, keys, folder)


def _id_of(client: Carrel, tenant: str) -> str:
    try:
        return client.admin.tenants.get(tenant).id
    except NotFoundError:
        return tenant  # of one that was deleted, which is named by its id


def _of_chain(audit: AdminAudit, tenant_id: str | None, keys: list[str] | None, folder: Path | None) -> Report:
    archived = () if folder is None else [*CheckpointArchive(folder).read(tenant_id or OPERATOR)]  # read before the chain is
    verifier = Verifier(keys, archived)
    for line in audit.export(tenant_id):
        verifier.line(line)
    return verifier.finish()


def _verified(lines: Iterable[str], keys: list[str] | None, folder: Path | None) -> Report:
    """Whose chain it is, and so which archived checkpoints are its, says the first line."""
    given = iter(lines)
    first = next(given, "")
    owner = _chain_of(first)
    verifier = Verifier(keys, () if folder is None or owner is None else CheckpointArchive(folder).read(owner))
    for line in chain((first,), given):
        verifier.line(line)
    return verifier.finish()


def _chain_of(line: str) -> str | None:
    """None for what is no name of a chain: it becomes part of a path."""
    try:
        name = str(json.loads(line)["chain"])
    except (ValueError, KeyError, TypeError):
        return None
    return name if name.replace("_", "").isalnum() else None


def _tell(reports: list[Report]) -> None:
    for report in reports:
        state = "sound" if report.sound else f"NOT SOUND: {len(report.findings) + report.more_findings} findings"
        begun = f", beginning after {report.after}" if report.after else ""
        counts = f"{report.entries} entries through {report.through}{begun}, {report.unsealed} not sealed yet"
        print(f"{_harmless(report.chain) or '?'}: {state}; {counts}")
        for found in report.findings:
            place = str(found.first) if found.first == found.last else f"{found.first} to {found.last}"
            print(f"  {found.kind} at {place}: {found.detail}" + (f" ({_harmless(found.entry_id)})" if found.entry_id else ""))
    for key in dict.fromkeys(key for report in reports for key in report.keys):
        print(f"signed by {key}")
