"""`carrel feedback …`: what users say of answers."""

from __future__ import annotations

from itertools import islice
from typing import Annotated

import typer

from api.cli.common import AsJson, TenantOption, print_json, table, tenant_client
from carrel_client import Feedback
from config.errors import InvalidInput
from config.settings import Settings

feedback = typer.Typer(no_args_is_help=True, help="Say how useful answers were, and read what others say.")

COLUMNS = ["at", "useful", "rating", "document", "collection", "query", "comment"]
Shown = Annotated[int, typer.Option("--limit", min=1, max=10_000, help="Show so many, oldest first.")]


def _row(given: Feedback) -> list[object]:
    said = [given.created_at, given.useful, given.rating, given.external_id, given.collection]
    return [*said, " ".join(given.query.split())[:60], given.comment and " ".join(given.comment.split())[:60]]


@feedback.command("give")
def give(
    query: Annotated[str, typer.Argument(help="The question.")],
    passage: Annotated[str | None, typer.Option("--passage", help="Id of the passage that answered it.")] = None,
    document: Annotated[str | None, typer.Option("--document", help="Id of the document, instead.")] = None,
    useful: Annotated[bool | None, typer.Option("--useful/--useless", help="Whether it answered the question.")] = None,
    rating: Annotated[int | None, typer.Option("--rating", min=1, max=5, help="5 is best.")] = None,
    comment: Annotated[str | None, typer.Option("--comment", help="At most 1,000 characters.")] = None,
    tenant: TenantOption = None,
    as_json: AsJson = False,
) -> None:
    """Say how useful a passage or a document was.

    Example: carrel feedback give "how long may I keep a book?" --passage 7d0f9b2e-… --useful --tenant acme
    """
    if (passage is None) == (document is None):
        raise InvalidInput("Give either --passage or --document.", field="passage")
    with tenant_client(Settings(), tenant, ["query"]) as client:
        given = client.feedback.give(
            query=query, passage_id=passage, document_id=document, useful=useful, rating=rating, comment=comment
        )
    print_json(given) if as_json else table(COLUMNS, [_row(given)])


@feedback.command("list")
def list_feedback(
    collection: Annotated[str | None, typer.Option("--collection", "-c", help="Only this one's.")] = None,
    limit: Shown = 1000,
    tenant: TenantOption = None,
    as_json: AsJson = False,
) -> None:
    """List what was said, oldest first.

    Example: carrel feedback list --collection default --tenant acme
    """
    with tenant_client(Settings(), tenant, ["manage"]) as client:
        found = list(islice(client.feedback.list(collection=collection), limit))
    print_json(found) if as_json else table(COLUMNS, [_row(each) for each in found])
