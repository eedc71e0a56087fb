"""`carrel tenant …` and `carrel plan …`: who the tenants are, what they may have, and their end."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from api.cli.common import AsJson, notes, number, operator, out, print_json, table
from carrel_client import Carrel, Limit, Tenant, TenantDeletion
from carrel_client.tenants import KEPT
from config.errors import InvalidInput
from config.settings import Settings

tenants = typer.Typer(no_args_is_help=True, help="Make, limit, suspend, import and delete tenants.")
plans = typer.Typer(no_args_is_help=True, help="Look at the plans that tenants can have.")

TENANT_COLUMNS = ["name", "id", "plan", "tokens a month", "state", "created"]
LIMIT_COLUMNS = ["limit", "value", "used", "from", "plan's", "until", "reason"]
UNLIMITED = "unlimited"
POLL_S = 0.5

TenantName = Annotated[str, typer.Argument(help="Name or id.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
Metadata = Annotated[list[str] | None, typer.Option(help="KEY=VALUE; repeat it, up to 16.")]


def _row(tenant: Tenant) -> list[object]:
    state = "suspended, reads" if tenant.state == "suspended" and tenant.reads else tenant.state
    return [tenant.name, tenant.id, tenant.plan or "(default)", tenant.monthly_tokens, state, tenant.created_at]


def _show(tenant: Tenant, *, as_json: bool) -> None:
    print_json(tenant) if as_json else table(TENANT_COLUMNS, [_row(tenant)])


def _pairs(given: list[str] | None) -> dict[str, str] | None:
    if given is None:
        return None
    wrong = [pair for pair in given if "=" not in pair]
    if wrong:
        raise InvalidInput(f"{wrong[0]!r} is no KEY=VALUE.", field="metadata")
    return dict(pair.split("=", 1) for pair in given)


def _sure(question: str, *, yes: bool) -> None:
    if not yes:
        typer.confirm(question, abort=True, err=True)


@tenants.command("create")
def create_tenant(
    name: Annotated[str, typer.Argument(help="1 to 63 of a-z, 0-9 and -.")],
    monthly_tokens: Annotated[int | None, typer.Option(help="Embedding tokens a month, over the plan's.")] = None,
    plan: Annotated[str | None, typer.Option(help="One of `carrel plan list`; the service's default without.")] = None,
    metadata: Metadata = None,
    as_json: AsJson = False,
) -> None:
    """Make a tenant.

    Example: carrel tenant create acme --plan starter --metadata crm=4711
    """
    with operator(Settings()) as client:
        made = client.admin.tenants.create(name=name, monthly_tokens=monthly_tokens, plan=plan, metadata=_pairs(metadata))
    _show(made, as_json=as_json)


@tenants.command("list")
def list_tenants(as_json: AsJson = False) -> None:
    """List all tenants."""
    with operator(Settings()) as client:
        found = list(client.admin.tenants.list())
    print_json(found) if as_json else table(TENANT_COLUMNS, [_row(tenant) for tenant in found])


@tenants.command("show")
def show_tenant(tenant: TenantName, as_json: AsJson = False) -> None:
    """Show one tenant."""
    with operator(Settings()) as client:
        found = client.admin.tenants.get(tenant)
    _show(found, as_json=as_json)
    if found.metadata and not as_json:
        table(["metadata", "value"], [[key, value] for key, value in sorted(found.metadata.items())])


@tenants.command("update")
def update_tenant(
    tenant: TenantName,
    plan: Annotated[str | None, typer.Option(help="A plan, or `default` for the service's.")] = None,
    monthly_tokens: Annotated[str | None, typer.Option(help="Embedding tokens a month, or `plan` for the plan's.")] = None,
    metadata: Annotated[list[str] | None, typer.Option(help="KEY=VALUE; repeat it. All keys: others go.")] = None,
    as_json: AsJson = False,
) -> None:
    """Change a tenant's plan, monthly tokens or metadata; what is not given stays.

    Example: carrel tenant update acme --plan professional
    """
    if monthly_tokens not in (None, "plan") and not str(monthly_tokens).isdecimal():
        raise InvalidInput("Tokens are a number, or `plan`.", field="monthly_tokens")
    with operator(Settings()) as client:
        changed = client.admin.tenants.update(
            tenant,
            plan=KEPT if plan is None else None if plan == "default" else plan,
            monthly_tokens=KEPT if monthly_tokens is None else None if monthly_tokens == "plan" else int(monthly_tokens),
            metadata=_pairs(metadata) or KEPT,
        )
    _show(changed, as_json=as_json)


@tenants.command("suspend")
def suspend_tenant(
    tenant: TenantName,
    reads: Annotated[bool, typer.Option("--reads", help="It may still ask and read.")] = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Suspend a tenant: all its keys and tokens are refused within a second. Its data stays, and its jobs go on.

    Example: carrel tenant suspend acme --reads --yes
    """
    _sure(f"Suspend {tenant}?", yes=yes)
    with operator(Settings()) as client:
        _show(client.admin.tenants.suspend(tenant, reads=reads), as_json=as_json)


@tenants.command("resume")
def resume_tenant(tenant: TenantName, as_json: AsJson = False) -> None:
    """Resume a tenant that was suspended."""
    with operator(Settings()) as client:
        _show(client.admin.tenants.resume(tenant), as_json=as_json)


@tenants.command("import")
def import_tenants(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="CSV: name,plan,monthly_tokens,metadata.KEY")],
    as_json: AsJson = False,
) -> None:
    """Make the tenants of a CSV file, or bring them up to date. The same file again changes nothing.

    Example: carrel tenant import customers.csv
    """
    with operator(Settings()) as client:
        done = client.admin.tenants.import_csv(file.read_text(encoding="utf-8-sig"))
    if as_json:
        print_json([*done])
    else:
        rows: list[list[object]] = [[one.line, one.name, one.status, (one.problem or {}).get("detail")] for one in done]
        table(["line", "name", "status", "why"], rows)
    if any(one.status == "refused" for one in done):
        raise typer.Exit(1)


@tenants.command("delete")
def delete_tenant(
    tenant: TenantName,
    wait: Annotated[bool, typer.Option("--wait", help="Until everything is gone, and print the receipt.")] = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Delete a tenant and everything it has. It is refused at once, and it cannot be taken back.

    Example: carrel tenant delete acme --wait
    """
    _sure(f"Delete {tenant} with all its documents? It cannot be taken back.", yes=yes)
    with operator(Settings()) as client:
        deletion = client.admin.tenants.delete(tenant)
        while wait and deletion.state != "done":
            time.sleep(POLL_S)
            deletion = client.admin.tenants.deletion(deletion.id)
    _show_deletion(deletion, as_json=as_json)


@tenants.command("deletion")
def show_deletion(
    deletion_id: Annotated[str, typer.Argument(help="The deletion's id, del_…")], as_json: AsJson = False
) -> None:
    """Show how far a deletion is; of one that is done, the receipt.

    Example: carrel tenant deletion del_01m7y0mgme7z90bs5j1p8swqxh
    """
    with operator(Settings()) as client:
        _show_deletion(client.admin.tenants.deletion(deletion_id), as_json=as_json)


def _show_deletion(deletion: TenantDeletion, *, as_json: bool) -> None:
    if as_json:
        print_json(deletion)
        return
    out.print(f"{deletion.id}: {deletion.name} ({deletion.tenant_id}) is {deletion.state}, asked for {deletion.requested_at}")
    rows: list[list[object]] = [
        [name, count, deletion.after.get(name)] for name, count in sorted(deletion.before.items()) if count
    ]
    table(["what", "before", "after"], rows)


@tenants.command("limits")
def show_limits(tenant: TenantName, as_json: AsJson = False) -> None:
    """Show the limits that hold for a tenant, where they come from, and what is used."""
    with operator(Settings()) as client:
        found = client.admin.tenants.limits(tenant)
    if as_json:
        print_json(found)
        return
    out.print(f"Plan: {found.plan}")
    table(LIMIT_COLUMNS, [_limit_row(limit) for limit in found.limits])


def _limit_row(limit: Limit) -> list[object]:
    value, of_plan = _shown(limit.value), _shown(limit.of_plan)
    return [limit.name, value, limit.used, limit.source, of_plan, limit.expires_at, limit.reason or None]


@tenants.command("override")
def override_limit(
    tenant: TenantName,
    limit: Annotated[str, typer.Argument(help="One of `carrel tenant limits`.")],
    value: Annotated[str, typer.Argument(help="A number, true, false, names between commas, `unlimited`, or `plan`.")],
    days: Annotated[
        float | None, typer.Option(min=0.0001, max=36500, callback=number, help="Days that it holds; without, for ever.")
    ] = None,
    reason: Annotated[str, typer.Option(help="Why, for whoever looks later.")] = "",
    as_json: AsJson = False,
) -> None:
    """Let another limit hold for a tenant than its plan's; `plan` lets the plan's hold again.

    Example: carrel tenant override acme documents 5000 --days 30 --reason "migration"
    """
    until = None if days is None else (dt.datetime.now(dt.UTC) + dt.timedelta(days=days)).isoformat()
    with operator(Settings()) as client:
        changed = _override(client, tenant, limit, value, until, reason)
    print_json(changed) if as_json else table(LIMIT_COLUMNS, [_limit_row(changed)])


def _override(client: Carrel, tenant: str, limit: str, value: str, until: str | None, reason: str) -> Limit:
    if value == "plan":
        return client.admin.tenants.restore(tenant, limit)
    return client.admin.tenants.override(tenant, limit, _value(limit, value), expires_at=until, reason=reason)


def _value(limit: str, text: str) -> Any:
    if text == UNLIMITED:
        return None
    if limit == "profiles":
        return [name.strip() for name in text.split(",") if name.strip()]
    try:
        return json.loads(text, parse_constant=lambda word: word)  # JSON has no NaN
    except ValueError:
        return text  # the service says what is wrong


@plans.command("list")
def list_plans(as_json: AsJson = False) -> None:
    """List the plans with the most asked of their limits."""
    with operator(Settings()) as client:
        found = client.admin.tenants.plans()
    if as_json:
        print_json([*found])
        return
    shown = ("documents", "chunks", "bytes", "collections", "requests_per_second", "embedding_tokens_month")
    rows = [
        [f"{plan.name}{' (default)' if plan.default else ''}", *(_shown(getattr(plan, name)) for name in shown)]
        for plan in found
    ]
    table(["plan", *shown], rows)


def _shown(limit: object) -> object:
    return UNLIMITED if limit is None else limit


@plans.command("show")
def show_plan(name: Annotated[str, typer.Argument(help="One of `carrel plan list`.")], as_json: AsJson = False) -> None:
    """Show every limit of a plan.

    Example: carrel plan show starter
    """
    with operator(Settings()) as client:
        found = {plan.name: plan for plan in client.admin.tenants.plans()}
    if name not in found:
        notes.print(f"There is no plan {name!r}, only {', '.join(found)}.")
        raise typer.Exit(1)
    if as_json:
        print_json(found[name])
        return
    fields = dataclasses.asdict(found[name])
    table(["limit", "value"], [[key, _shown(value)] for key, value in fields.items()])
