"""`carrel key …`: the keys of tenants, as their operator handles them."""

from __future__ import annotations

from typing import Annotated

import typer

from api.cli.common import AsJson, operator, out, print_json, table
from config.settings import Settings

keys = typer.Typer(no_args_is_help=True, help="Make, list and revoke the keys of tenants.")


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
