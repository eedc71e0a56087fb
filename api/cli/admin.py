"""`carrel tenant …`: the operator's commands."""

from __future__ import annotations

from typing import Annotated

import typer

from api.cli.common import AsJson, operator, print_json, table
from carrel_client import Tenant
from config.settings import Settings

tenants = typer.Typer(no_args_is_help=True, help="Make and look at tenants.")

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
