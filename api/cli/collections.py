"""`carrel collection …`: collections, and the profiles that their documents are processed by."""

from __future__ import annotations

from typing import Annotated

import typer

from api.cli.common import AsJson, TenantOption, number, operator, print_json, table, tenant_client
from api.evaluating import remove_collection
from carrel_client import Collection
from config.settings import Settings

collections = typer.Typer(no_args_is_help=True, help="Make collections and choose how their documents are processed.")

COLUMNS = ["name", "id", "profile", "near duplicates", "semantic cache", "documents", "created"]
NearDuplicates = Annotated[
    str | None, typer.Option("--near-duplicates", help="keep, link or skip documents that nearly repeat another.")
]
NearThreshold = Annotated[
    float | None, typer.Option("--near-threshold", callback=number, help="How similar those are: 0.8 to 1, else 0.9.")
]
SemanticCache = Annotated[
    bool | None,
    typer.Option("--semantic-cache/--no-semantic-cache", help="Answer a question as another one was that is near to it."),
]
SemanticThreshold = Annotated[
    float | None, typer.Option("--semantic-threshold", callback=number, help="How near: 0.9 to 1, else 0.95.")
]
KeepVersions = Annotated[
    int | None, typer.Option("--keep-versions-days", help="How long replaced versions can be asked for: 0 to 3650, else 0.")
]
Attributes = Annotated[
    list[str] | None,
    typer.Option("--attribute", help="KEY=KIND: string, number, bool, datetime, or inferred. As often as there are keys."),
]
PLACEMENT_COLUMNS = ["name", "placement", "chosen", "settled", "points", "indexed"]
PROFILE_COLUMNS = ["name", "chunk", "context", "overlap", "splitter", "parent", "priority", "rerank", "rewrite"]


def kinds_of(given: list[str] | None) -> dict[str, str] | None:
    if not given:
        return None
    pairs = [one.rpartition("=") for one in given]
    if any(not key for key, _, _ in pairs):
        raise typer.BadParameter("give KEY=KIND", param_hint="--attribute")
    return {key: kind for key, _, kind in pairs}


def _row(collection: Collection) -> list[object]:
    near = f"{collection.near_duplicates} {collection.near_threshold:g}"
    semantic = f"{collection.semantic_threshold:g}" if collection.semantic_cache else "off"
    return [collection.name, collection.id, collection.profile, near, semantic, collection.documents, collection.created_at]


@collections.command("create")
def create(
    name: Annotated[str, typer.Argument(help="1 to 100 letters, digits, `.`, `_` and `-`.")],
    profile: Annotated[str, typer.Option("--profile", "-p", help="One of `carrel collection profiles`.")] = "standard",
    near_duplicates: NearDuplicates = None,
    near_threshold: NearThreshold = None,
    semantic_cache: SemanticCache = None,
    semantic_threshold: SemanticThreshold = None,
    keep_versions_days: KeepVersions = None,
    attribute: Attributes = None,
    tenant: TenantOption = None,
    as_json: AsJson = False,
) -> None:
    """Make a collection.

    Example: carrel collection create contracts --profile precise --attribute year=number --tenant acme
    """
    with tenant_client(Settings(), tenant, ["ingest"]) as client:
        made = client.collections.create(
            name=name,
            profile=profile,
            near_duplicates=near_duplicates,
            near_threshold=near_threshold,
            semantic_cache=semantic_cache,
            semantic_threshold=semantic_threshold,
            keep_versions_days=keep_versions_days,
            attributes=kinds_of(attribute),
        )
    print_json(made) if as_json else table(COLUMNS, [_row(made)])


@collections.command("list")
def list_collections(tenant: TenantOption = None, as_json: AsJson = False) -> None:
    """List all collections, each with its profile and its number of documents."""
    with tenant_client(Settings(), tenant, ["query"]) as client:
        found = list(client.collections.list())
    print_json(found) if as_json else table(COLUMNS, [_row(collection) for collection in found])


@collections.command("update")
def update(
    name: Annotated[str, typer.Argument(help="The collection.")],
    profile: Annotated[str | None, typer.Option("--profile", "-p", help="One of `carrel collection profiles`.")] = None,
    near_duplicates: NearDuplicates = None,
    near_threshold: NearThreshold = None,
    semantic_cache: SemanticCache = None,
    semantic_threshold: SemanticThreshold = None,
    keep_versions_days: KeepVersions = None,
    attribute: Attributes = None,
    tenant: TenantOption = None,
    as_json: AsJson = False,
) -> None:
    """Choose another profile, or what becomes of near-duplicates, near questions or former versions, from now on.

    Example: carrel collection update contracts --profile precise --tenant acme
    """
    with tenant_client(Settings(), tenant, ["ingest"]) as client:
        changed = client.collections.update(
            name,
            profile=profile,
            near_duplicates=near_duplicates,
            near_threshold=near_threshold,
            semantic_cache=semantic_cache,
            semantic_threshold=semantic_threshold,
            keep_versions_days=keep_versions_days,
            attributes=kinds_of(attribute),
        )
    print_json(changed) if as_json else table(COLUMNS, [_row(changed)])


@collections.command("delete")
def delete(
    name: Annotated[str, typer.Argument(help="The collection.")],
    documents: Annotated[bool, typer.Option("--documents", help="With all its documents.")] = False,
    tenant: TenantOption = None,
    as_json: AsJson = False,
) -> None:
    """Delete a collection. One that has documents is refused, unless they are to go with it.

    Example: carrel collection delete contracts --documents --tenant acme
    """
    with tenant_client(Settings(), tenant, ["query", "ingest"]) as client:
        deleted = remove_collection(client, name) if documents else client.collections.delete(name)
    print_json(deleted) if as_json else table(COLUMNS, [_row(deleted)])


@collections.command("place")
def place(
    name: Annotated[str, typer.Argument(help="The collection.")],
    placement: Annotated[str, typer.Argument(help="dedicated, shared, or auto: by its number of points.")],
    tenant: Annotated[str, typer.Option("--tenant", "-t", help="Tenant, by name or id.")],
    as_json: AsJson = False,
) -> None:
    """Give a collection a shard of its own, or put it back. It stays in use while it is moved. For operators.

    Example: carrel collection place contracts dedicated --tenant acme
    """
    with operator(Settings()) as client:
        placed = client.admin.tenants.place(tenant, name, placement=placement)
    row = [placed.collection, placed.placement, placed.chosen, placed.settled, placed.points, placed.indexed]
    print_json(placed) if as_json else table(PLACEMENT_COLUMNS, [row])


@collections.command("profiles")
def list_profiles(tenant: TenantOption = None, as_json: AsJson = False) -> None:
    """List the profiles that a collection can have; sizes are tokens of the embedding model."""
    with tenant_client(Settings(), tenant, ["query"]) as client:
        found = client.collections.profiles()
    if as_json:
        print_json(found)
        return
    sizes = ("chunk_tokens", "context_tokens", "overlap_tokens", "splitter", "parent_tokens")
    rows = [[one.name, *map(one.chunking.get, sizes), one.priority, one.rerank, one.rewrite] for one in found]
    table(PROFILE_COLUMNS, rows)
