"""`carrel key …`: the operator's commands for the keys of tenants."""

from __future__ import annotations

from typing import Annotated

import typer

from api.cli.common import AsJson, number, operator, out, print_json, table
from carrel_client import Key, NewKey
from config.settings import Settings

keys = typer.Typer(no_args_is_help=True, help="Make, show, rotate and revoke the keys of tenants.")

COLUMNS = ["id", "name", "scopes", "created", "expires", "last used", "revoked"]
KeyId = Annotated[str, typer.Argument(help="The key's id, key_…")]
TenantName = Annotated[str, typer.Option("--tenant", "-t", help="Tenant, by name or id.")]


def _row(key: Key) -> list[object]:
    scopes = ", ".join(key.scopes) + (" (read-only)" if key.read_only else "")
    return [key.id, key.name, scopes, key.created_at, key.expires_at, key.last_used_at, key.revoked_at]


def _tell_secret(key: NewKey, as_json: bool) -> None:
    print_json(key) if as_json else out.print(key.secret)


@keys.command("create")
def create(
    tenant: TenantName,
    name: Annotated[str, typer.Option(help="What the key is for.")] = "default",
    scope: Annotated[list[str] | None, typer.Option(help="query, converse, ingest or manage; repeat it. Default: all.")] = None,
    collection: Annotated[list[str] | None, typer.Option(help="Confine the key to this collection; repeat it.")] = None,
    label: Annotated[list[str] | None, typer.Option(help="Confine the key to documents of these labels.")] = None,
    read_only: Annotated[bool, typer.Option("--read-only", help="Whatever its scopes, it changes nothing.")] = False,
    expires: Annotated[str | None, typer.Option(help="From then on it is refused: 2027-01-31T00:00:00Z.")] = None,
    address: Annotated[list[str] | None, typer.Option(help="Address or network it may be used from; repeat it.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make a key. Its secret is printed this once; only a hash is kept.

    Example: carrel key create --tenant acme --scope query --name website --address 192.0.2.0/24
    """
    with operator(Settings()) as client:
        key = client.admin.keys.create(
            tenant=tenant,
            name=name,
            scopes=scope or ["query", "converse", "ingest", "manage"],
            collections=collection,
            labels=label,
            read_only=read_only,
            expires_at=expires,
            allowed_addresses=address,
        )
    _tell_secret(key, as_json)


@keys.command("list")
def list_keys(tenant: TenantName, as_json: AsJson = False) -> None:
    """List a tenant's keys, without their secrets.

    Example: carrel key list --tenant acme
    """
    with operator(Settings()) as client:
        found = list(client.admin.keys.list(tenant=tenant))
    print_json(found) if as_json else table(COLUMNS, [_row(key) for key in found])


@keys.command("show")
def show(key_id: KeyId, as_json: AsJson = False) -> None:
    """Show what a key allows and when it was last used, to the minute.

    Example: carrel key show key_01m7y0mgme7z90bs5j1p8swqxh
    """
    with operator(Settings()) as client:
        key = client.admin.keys.get(key_id)
    if as_json:
        print_json(key)
        return
    table(COLUMNS, [_row(key)])
    for what, bounds in (("collections", key.collections), ("labels", key.labels), ("addresses", key.allowed_addresses)):
        print(f"{what}: {'all' if bounds is None else ', '.join(bounds) or 'none'}")


@keys.command("rotate")
def rotate(
    key_id: KeyId,
    overlap_hours: Annotated[
        float, typer.Option(min=0, max=720, callback=number, help="How long the old key stays valid.")
    ] = 24,
    as_json: AsJson = False,
) -> None:
    """Make a key with the same terms in place of this one, which stays valid for a while. Prints the new secret.

    Example: carrel key rotate key_01m7y0mgme7z90bs5j1p8swqxh --overlap-hours 48
    """
    with operator(Settings()) as client:
        key = client.admin.keys.rotate(key_id, overlap_seconds=int(overlap_hours * 3600))
    _tell_secret(key, as_json)


@keys.command("revoke")
def revoke(key_id: KeyId, as_json: AsJson = False) -> None:
    """Revoke a key, and with it every token that was made with it: refused everywhere within a second.

    Example: carrel key revoke key_01m7y0mgme7z90bs5j1p8swqxh
    """
    with operator(Settings()) as client:
        key = client.admin.keys.revoke(key_id)
    print_json(key) if as_json else out.print(f"{key.id} is revoked.")
