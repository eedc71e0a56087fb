"""`carrel session recall`: turns that answer a question, of a session or of all sessions of an end user."""

from __future__ import annotations

from typing import Annotated

import typer

from api.cli.common import AsJson, TenantOption, notes, out, print_json, tenant_client
from carrel_client.recall import Recalled, RecallWishes
from config.errors import InvalidInput
from config.settings import Settings


def recall(
    query: Annotated[str, typer.Argument(help="What to find, in plain words; it may name people and times.")],
    session: Annotated[str | None, typer.Option("--session", "-s", help="Among the turns of this session, ses_…")] = None,
    subject: Annotated[str | None, typer.Option(help="Among the turns of all sessions of this end user.")] = None,
    tag: Annotated[list[str] | None, typer.Option("--tag", help="With --subject: only sessions with this tag.")] = None,
    top_k: Annotated[int, typer.Option(min=1, max=100, help="How many turns.")] = 5,
    neighbours: Annotated[int, typer.Option(min=0, max=5, help="Turns to either side that are shown with each.")] = 0,
    role: Annotated[list[str] | None, typer.Option("--role", help="Only turns of this role; repeat it.")] = None,
    times: Annotated[str, typer.Option(help="What a time in the query does: boost, narrow or ignore.")] = "boost",
    explain: Annotated[bool, typer.Option(help="Say what each leg added to each score.")] = False,
    tenant: TenantOption = None,
    as_json: AsJson = False,
) -> None:
    """Find the turns that answer a question.

    Example: carrel session recall "what did Ann say about the shelf last week?" --subject user-17 --tenant acme
    """
    if (session is None) == (subject is None):
        raise InvalidInput("Pass either --session or --subject.", field="session")
    wishes = RecallWishes(neighbours=neighbours, roles=role or None, times=times, explain=explain)
    with tenant_client(Settings(), tenant, ["query"]) as client:
        if session is not None:
            found = client.sessions.recall(session, query, top_k=top_k, **wishes)
        else:
            found = client.recall(query, subject=subject, tags=tag or (), top_k=top_k, **wishes)
    print_json(found) if as_json else _print(found)


def _print(found: Recalled) -> None:
    for turn in found.turns:
        out.print(f"[bold]{turn.score:.2f}[/bold]  {turn.session_id} #{turn.seq}  {turn.said_at}")
        for each in (*turn.before, turn, *turn.after):
            out.print(f"{'  >' if each is turn else '   '} {each.speaker or each.role}: {each.content}", markup=False)
        if turn.legs:
            out.print("    " + ", ".join(f"{name} {value:+.2f}" for name, value in turn.legs.items()), style="dim")
    if not found.turns:
        notes.print("Nothing was found.")
    if found.degraded:
        notes.print("By words alone: there was no model or no budget for the query.")
