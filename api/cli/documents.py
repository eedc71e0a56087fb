"""`carrel query`."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape

from api.cli.common import AsJson, TenantOption, out, print_json, tenant_client
from api.cli.explaining import show_how
from carrel_client import Passage
from config.settings import Settings


def register(app: typer.Typer) -> None:
    app.command()(query)


def query(
    question: Annotated[str, typer.Argument(help="What you want to know.")],
    tenant: TenantOption = None,
    collection: Annotated[list[str] | None, typer.Option("--collection", "-c", help="Where to look; repeat it.")] = None,
    top_k: Annotated[int, typer.Option("--top-k", "-k", help="How many passages.")] = 5,
    mode: Annotated[str | None, typer.Option("--mode", help="hybrid (default), dense or lexical.")] = None,
    rewrite: Annotated[
        str | None, typer.Option("--rewrite", help="By the language model: multi_query, hyde, decompose or none.")
    ] = None,
    as_of: Annotated[str | None, typer.Option("--as-of", help="Answer as of then, such as 2026-03-01T00:00:00Z.")] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Say how the answer came to be.")] = False,
    as_json: AsJson = False,
) -> None:
    """Find the passages that answer a question, with their sources.

    Example: carrel query "how long may I keep a book?" --tenant acme
    """
    with tenant_client(Settings(), tenant, ["query"]) as client:
        result = client.query(
            question, collections=collection, top_k=top_k, mode=mode, rewrite=rewrite, explain=explain, as_of=as_of
        )
    if as_json:
        print_json(result)
        return
    for rank, passage in enumerate(result.passages, 1):
        show_passage(rank, passage)
    if not result.passages:
        out.print("Nothing found.")
    if result.semantic_cache:
        out.print(f"[dim]Answered as another question was, of similarity {result.semantic_cache['similarity']:.3f}.[/dim]")
    show_how(result)


def show_passage(rank: int, passage: Passage) -> None:
    page = f", page {passage.first_page}" if passage.first_page else ""
    heading = f" › {passage.headings[-1]}" if passage.headings else ""
    name = passage.source or passage.title or passage.external_id
    out.print(
        f"[bold]{rank}. {escape(name)}[/bold]{escape(heading)}{page}"
        f"  [dim]characters {passage.start}–{passage.end}, score {passage.score:.3f}[/dim]"
    )
    out.print(f"   {escape(' '.join(passage.text.split()))}\n")
