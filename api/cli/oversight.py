"""`carrel admin …`: what the operator sees across tenants."""

from __future__ import annotations

from typing import Annotated

import typer

from api.cli.common import AsJson, operator, out, print_json, table
from config.settings import Settings

admin = typer.Typer(no_args_is_help=True, help="Look across tenants: search with a reason, sums, and who is noisiest.")

Hours = Annotated[int, typer.Option(min=1, max=2160, help="How far back.")]


@admin.command()
def search(
    query: Annotated[str, typer.Argument(help="The question.")],
    tenant: Annotated[list[str], typer.Option("--tenant", "-t", help="Tenant to look at, by name or id; repeat it.")],
    reason: Annotated[str, typer.Option(help="Why; it stands in the audit record of each of these tenants.")],
    collection: Annotated[list[str] | None, typer.Option("--collection", "-c", help="Collection; repeat it.")] = None,
    top_k: Annotated[int, typer.Option(min=1, max=50, help="Passages of each tenant.")] = 5,
    as_json: AsJson = False,
) -> None:
    """Ask several tenants, each through a handle of its own. None of them is charged, and each can read the reason.

    Example: carrel admin search "leaked password" -t acme -t globex --reason "incident 2211"
    """
    with operator(Settings()) as client:
        found = client.admin.search(query, tenants=tenant, reason=reason, collections=collection or ["default"], top_k=top_k)
    if as_json:
        print_json(found)
        return
    for one in found:
        out.print(f"{one.tenant} ({one.tenant_id}){': ' + one.problem if one.problem else ''}", markup=False)
        for passage in one.passages:
            out.print(f"  {passage.score:.3f}  {passage.document_id}  {' '.join(passage.text.split())[:100]}", markup=False)


@admin.command()
def statistics(hours: Hours = 24, as_json: AsJson = False) -> None:
    """Sums over all tenants: documents, chunks, bytes; requests and tokens of the last hours.

    Example: carrel admin statistics --hours 168
    """
    with operator(Settings()) as client:
        found = client.admin.statistics(hours=hours)
    if as_json:
        print_json(found)
        return
    totals = ["tenants", "documents", "chunks", "bytes"]
    table(totals, [[getattr(found, name) for name in totals]])
    recent = ["requests", "queries", "denied", "failed", "tokens"]
    table([f"{recent[0]} in {hours} h", *recent[1:]], [[getattr(found.recent, name) for name in recent]])


@admin.command()
def noisiest(
    by: Annotated[str, typer.Option(help="requests, queries, denied, failed or tokens.")] = "requests",
    hours: Hours = 24,
    top: Annotated[int, typer.Option(min=1, max=100, help="How many tenants.")] = 10,
    as_json: AsJson = False,
) -> None:
    """The tenants with the most of something in the last hours.

    Example: carrel admin noisiest --by failed --hours 1
    """
    with operator(Settings()) as client:
        found = client.admin.noisiest(by=by, hours=hours, top=top)
    columns = ["tenant", "requests", "queries", "denied", "failed", "tokens"]
    print_json(found) if as_json else table(columns, [[getattr(one, name) for name in columns] for one in found])
