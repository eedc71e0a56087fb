"""`carrel context` and `carrel passage`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from rich.markup import escape

from api.cli.common import AsJson, TenantOption, notes, out, print_json, tenant_client
from api.cli.telling import harmless
from carrel_client import Passage
from config.settings import Settings

Tokens = Annotated[int, typer.Option("--max-tokens", "-m", min=1, help="Tokens that the text has at most.")]
Tokenizer = Annotated[str, typer.Option("--tokenizer", help="o200k_base, cl100k_base, or embedding, the model's own.")]
Collection = Annotated[list[str] | None, typer.Option("--collection", "-c", help="Collections to search; repeat it.")]
Around = Annotated[int, typer.Option("--around", help="Characters before and after it.")]


def register(app: typer.Typer) -> None:
    app.command()(context)
    app.command()(passage)


def context(
    question: str,
    tenant: TenantOption = None,
    max_tokens: Tokens = 2000,
    tokenizer: Tokenizer = "o200k_base",
    collection: Collection = None,
    as_json: AsJson = False,
) -> None:
    """Pack the passages that answer a question into one text for a language model, within a budget of its tokens.

    The text goes to standard output, to a file or program as it is; what it has, to standard error.

    Example: carrel context "how long may I keep a book?" --max-tokens 500 --tenant acme > context.txt
    """
    with tenant_client(Settings(), tenant, ["query"]) as client:
        packed = client.context(question, max_tokens=max_tokens, tokenizer=tokenizer, collections=collection or None)
    if as_json:
        print_json(packed)
        return
    print(harmless(packed.text) if sys.stdout.isatty() else packed.text)
    passages = len({cited.id for cited in packed.citations})
    notes.print(f"{packed.tokens:,} of {max_tokens:,} tokens, {passages} passages; {packed.left_out} did not fit.")


def passage(passage_id: str, tenant: TenantOption = None, around: Around = 300, as_json: AsJson = False) -> None:
    """Show a passage inside the text that it was cut from.

    Example: carrel passage 7d0f9b2e-6c55-5d0e-9f61-2f5b1a3c4d5e --tenant acme
    """
    with tenant_client(Settings(), tenant, ["query"]) as client:
        view = client.passage(passage_id, around=around)
    if as_json:
        print_json(view)
        return
    out.print(
        f"[bold]{escape(_name(view.passage))}[/bold]  [dim]version {view.passage.version}, {_place(view.passage)}[/dim]\n"
    )
    out.print(f"[dim]{escape(view.before)}[/dim]{escape(view.passage.text)}[dim]{escape(view.after)}[/dim]")


def _name(passage: Passage) -> str:
    return passage.source or passage.title or passage.external_id


def _place(passage: Passage) -> str:
    page = f", page {passage.first_page}" if passage.first_page else ""
    return f"characters {passage.start}–{passage.end}{page}"
