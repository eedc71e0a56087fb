"""`carrel questions …`: question sets that are stored in the service."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from api.cli.common import AsJson, TenantOption, print_json, table, tenant_client
from carrel_client import QuestionSet
from config.settings import Settings
from rag.evaluation.questions import read_questions

questions = typer.Typer(no_args_is_help=True, help="Store judged questions, for `carrel eval` and `carrel tune`.")

Name = Annotated[str, typer.Argument(help="The set's name.")]
Collection = Annotated[str, typer.Option("--collection", "-c", help="Whose documents answer the questions.")]
COLUMNS = ["name", "id", "collection", "questions", "created"]


def _row(found: QuestionSet) -> list[object]:
    return [found.name, found.id, found.collection, found.count, found.created_at]


@questions.command("add")
def add(
    name: Annotated[str, typer.Argument(help="1 to 100 letters, digits, `.`, `_` and `-`.")],
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="Lines of {id, text, relevant}.")],
    collection: Collection = "default",
    tenant: TenantOption = None,
    as_json: AsJson = False,
) -> None:
    """Store up to 1,000 questions with the external ids of the documents that answer them.

    Example: carrel questions add support support.jsonl --tenant acme
    """
    judged = [{"text": each.text, "relevant": dict(each.relevant)} for each in read_questions(file)]
    with tenant_client(Settings(), tenant, ["ingest"]) as client:
        made = client.question_sets.create(name=name, questions=judged, collection=collection)
    print_json(made) if as_json else table(COLUMNS, [_row(made)])


@questions.command("list")
def list_sets(
    collection: Annotated[str | None, typer.Option("--collection", "-c", help="Only this one's.")] = None,
    tenant: TenantOption = None,
    as_json: AsJson = False,
) -> None:
    """List the stored question sets, oldest first."""
    with tenant_client(Settings(), tenant, ["query"]) as client:
        found = list(client.question_sets.list(collection=collection))
    print_json(found) if as_json else table(COLUMNS, [_row(each) for each in found])


@questions.command("delete")
def delete(name: Name, collection: Collection = "default", tenant: TenantOption = None, as_json: AsJson = False) -> None:
    """Delete a question set.

    Example: carrel questions delete support --tenant acme
    """
    with tenant_client(Settings(), tenant, ["query", "ingest"]) as client:
        gone = client.question_sets.delete(name, collection=collection)
    print_json(gone) if as_json else table(COLUMNS, [_row(gone)])
