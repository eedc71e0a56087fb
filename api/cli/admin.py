"""`carrel tenant …` and `carrel key …`: the operator's commands."""

from __future__ import annotations

from typing import Annotated

import typer

from api.cli.common import AsJson, operator, out, print_json, table
from carrel_client import Tenant
from config.settings import Settings

tenants = typer.Typer(no_args_is_help=True, help="Make and look at tenants.")
keys = typer.Typer(no_args_is_help=True, help="Make, list and revoke the keys of tenants.")

TENANT_COLUMNS = ["name", "id", "tokens a month", "created"]


def _row(tenant: Tenant) -> list[object]:
    return [tenant.name, tenant.id, tenant.monthly_tokens, tenant.created_at]


@tenants.command("create")
def create_tenant(
    name: Annotated[str, typer.Argument(help="1 to 63 of a-z, 0-9 and -.")],
    monthly_tokens: Annotated[int | None, typer.Option(help="Embedding tokens a month; none is no limit.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make a tenant.

    Example: carrel tenant create acme --monthly-tokens 5000000
    """
    with operator(Settings()) as client:
        tenant = client.admin.tenants.create(name=name, monthly_tokens=monthly_tokens)
    print_json(tenant) if as_json else table(TENANT_COLUMNS, [_row(tenant)])


@tenants.command("list")
def list_tenants(as_json: AsJson = False) -> None:
    """List all tenants."""
    with operator(Settings()) as client:
        found = list(client.admin.tenants.list())
    print_json(found) if as_json else table(TENANT_COLUMNS, [_row(tenant) for tenant in found])


@tenants.command("show")
def show_tenant(tenant: Annotated[str, typer.Argument(help="Name or id.")], as_json: AsJson = False) -> None:
    """Show one tenant."""
    with operator(Settings()) as client:
        found = client.admin.tenants.get(tenant)
    print_json(found) if as_json else table(TENANT_COLUMNS, [_row(found)])


@keys.command("create")
def create_key(
    tenant: Annotated[str, typer.Option("--tenant", "-t", help="Tenant, by name or id.")],
    name: Annotated[str, typer.Option(help="What the key is for.")] = "default",
    scope: Annotated[list[str] | None, typer.Option(help="query, ingest or manage; repeat it. Default: all three.")] = None,
    collection: Annotated[list[str] | None, typer.Option(help="Confine the key to this collection; repeat it.")] = None,
    label: Annotated[list[str] | None, typer.Option(help="Confine the key to documents of these labels.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make a key. Its secret is printed this once; only a hash is kept.

    Example: carrel key create --tenant acme --scope query --name website
    """
    with operator(Settings()) as client:
        key = client.admin.keys.create(
            tenant=tenant,
            name=name,
            scopes=scope or ["query", "ingest", "manage"],
            collections=collection,
            labels=label,
        )
    print_json(key) if as_json else out.print(key.secret)


@keys.command("list")
def list_keys(
    tenant: Annotated[str, typer.Option("--tenant", "-t", help="Tenant, by name or id.")], as_json: AsJson = False
) -> None:
    """List a tenant's keys, without their secrets."""
    with operator(Settings()) as client:
        found = list(client.admin.keys.list(tenant=tenant))
    if as_json:
        print_json(found)
    else:
        rows: list[list[object]] = [[key.id, key.name, ", ".join(key.scopes), key.created_at, key.revoked_at] for key in found]
        table(["id", "name", "scopes", "created", "revoked"], rows)


@keys.command("revoke")
def revoke_key(key_id: Annotated[str, typer.Argument(help="The key's id, key_…")], as_json: AsJson = False) -> None:
    """Revoke a key: refused from the next request on."""
    with operator(Settings()) as client:
        key = client.admin.keys.revoke(key_id)
    print_json(key) if as_json else out.print(f"{key.id} is revoked.")
