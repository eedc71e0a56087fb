"""`carrel memory …`: what is known of an end user."""

from __future__ import annotations

from itertools import islice
from typing import Annotated, Any

import typer

from api.cli.common import AsJson, TenantOption, out, print_json, table, tenant_client
from carrel_client import Memory, MemoryVersion
from config.errors import InvalidInput
from config.settings import Settings

memories = typer.Typer(no_args_is_help=True, help="Keep facts of end users, find them, and see how they changed.")

COLUMNS = ["id", "version", "subject", "key", "text", "valid from", "valid to", "superseded by"]
VERSION_COLUMNS = ["version", "action", "at", "by", "reason", "text", "valid from", "valid to"]
MemoryId = Annotated[str, typer.Argument(help="The memory's id, mem_…")]
SubjectOption = Annotated[str | None, typer.Option("--subject", "-s", help="Whose memories: the end user, as you name them.")]
AgentOption = Annotated[str | None, typer.Option("--agent", help="Of this agent.")]
SessionOption = Annotated[str | None, typer.Option("--session", help="Of this session, ses_…")]
KeyOption = Annotated[str | None, typer.Option("--key", help="What it tells, as home_city: another value supersedes.")]
TagOption = Annotated[str | None, typer.Option("--tag", help="Only those with this tag.")]
AsOfOption = Annotated[str | None, typer.Option("--as-of", help="As was believed then, as 2026-03-10T12:00:00Z.")]
ValidAtOption = Annotated[str | None, typer.Option("--valid-at", help="What was true then, as 2026-03-10T12:00:00Z.")]
EverythingOption = Annotated[bool, typer.Option("--everything", help="Also what is not true any more, or not yet.")]
ValidTo = Annotated[str | None, typer.Option("--valid-to", help="From when on it is not true any more.")]
Expires = Annotated[str | None, typer.Option("--expires-at", help="When it is forgotten, with its history.")]
ReasonOption = Annotated[str | None, typer.Option("--reason", help="Why, for its history.")]


def _row(memory: Memory) -> list[object]:
    what = [memory.id, memory.version, memory.subject, memory.key, " ".join(memory.text.split())[:80]]
    return [*what, memory.valid_from, memory.valid_to, memory.superseded_by]


def _version(row: MemoryVersion) -> list[object]:
    told = [row.version, row.action, row.recorded_at, row.changed_by, row.reason]
    return [*told, " ".join(row.text.split())[:80], row.valid_from, row.valid_to]


def _print(found: list[Memory], *, as_json: bool) -> None:
    print_json(found) if as_json else table(COLUMNS, [_row(each) for each in found])


@memories.command("add")
def add(
    text: Annotated[str, typer.Argument(help="The fact, as one short sentence.")],
    subject: SubjectOption = None,
    key: KeyOption = None,
    tag: Annotated[list[str] | None, typer.Option("--tag", help="Repeat it for several.")] = None,
    agent: AgentOption = None,
    session: SessionOption = None,
    valid_from: Annotated[str | None, typer.Option("--valid-from", help="Since when it is true; left out, now.")] = None,
    valid_to: ValidTo = None,
    expires_at: Expires = None,
    reason: ReasonOption = None,
    tenant: TenantOption = None,
    as_json: AsJson = False,
) -> None:
    """Keep a fact. What is known already is confirmed; another value of the same key supersedes.

    Example: carrel memory add "Ann lives in Berlin." --subject ann --key home_city --tenant acme
    """
    given = {"key": key, "valid_from": valid_from, "valid_to": valid_to, "expires_at": expires_at, "reason": reason}
    fact: dict[str, Any] = {"tags": tag or [], **{name: value for name, value in given.items() if value is not None}}
    with tenant_client(Settings(), tenant, ["converse"]) as client:
        added = client.memories.add(text, subject=subject, agent=agent, session_id=session, **fact)
    if as_json:
        print_json(added)
        return
    for placed in added.data:
        ended = f", instead of {', '.join(placed.superseded)}" if placed.superseded else ""
        out.print(f"{placed.memory.id} is {placed.outcome}{ended}.")
        if placed.memory.conflicts_with:
            out.print(f"It may contradict {', '.join(placed.memory.conflicts_with)}: all of them stay.")


@memories.command("list")
def list_memories(
    subject: SubjectOption = None,
    agent: AgentOption = None,
    session: SessionOption = None,
    key: KeyOption = None,
    tag: TagOption = None,
    as_of: AsOfOption = None,
    valid_at: ValidAtOption = None,
    everything: EverythingOption = False,
    limit: Annotated[int, typer.Option("--limit", min=1, max=10_000, help="Show so many, oldest first.")] = 1000,
    tenant: TenantOption = None,
    as_json: AsJson = False,
) -> None:
    """List memories, oldest first.

    Example: carrel memory list --subject ann --everything --tenant acme
    """
    with tenant_client(Settings(), tenant, ["query"]) as client:
        found = client.memories.list(
            subject=subject,
            agent=agent,
            session_id=session,
            key=key,
            tag=tag,
            as_of=as_of,
            valid_at=valid_at,
            everything=everything,
        )
        _print(list(islice(found, limit)), as_json=as_json)


@memories.command("search")
def search(
    query: Annotated[str, typer.Argument(help="What is to be known.")],
    subject: SubjectOption = None,
    agent: AgentOption = None,
    session: SessionOption = None,
    tag: TagOption = None,
    as_of: AsOfOption = None,
    valid_at: ValidAtOption = None,
    everything: EverythingOption = False,
    limit: Annotated[int, typer.Option("--limit", min=1, max=100, help="How many at most.")] = 10,
    tenant: TenantOption = None,
    as_json: AsJson = False,
) -> None:
    """Find the memories of a subject that fit a question, best first.

    Example: carrel memory search "where does she live?" --subject ann --tenant acme
    """
    with tenant_client(Settings(), tenant, ["query"]) as client:
        found = client.memories.search(
            query,
            subject=subject,
            agent=agent,
            session_id=session,
            tag=tag,
            as_of=as_of,
            valid_at=valid_at,
            everything=everything,
            limit=limit,
        ).data
    if as_json:
        print_json(found)
        return
    table(["score", *COLUMNS], [[f"{hit.score:.2f}", *_row(hit.memory)] for hit in found])


@memories.command("show")
def show(memory_id: MemoryId, as_of: AsOfOption = None, tenant: TenantOption = None, as_json: AsJson = False) -> None:
    """Show one memory, as it is or was.

    Example: carrel memory show mem_01jd… --as-of 2026-03-10T12:00:00Z --tenant acme
    """
    with tenant_client(Settings(), tenant, ["query"]) as client:
        memory = client.memories.get(memory_id, as_of=as_of)
    print_json(memory) if as_json else table(COLUMNS, [_row(memory)])


@memories.command("update")
def update(
    memory_id: MemoryId,
    text: Annotated[str | None, typer.Option("--text", help="What it says from now on.")] = None,
    key: KeyOption = None,
    tag: Annotated[list[str] | None, typer.Option("--tag", help="Its tags; repeat it for several.")] = None,
    valid_to: ValidTo = None,
    expires_at: Expires = None,
    reason: ReasonOption = None,
    tenant: TenantOption = None,
    as_json: AsJson = False,
) -> None:
    """Change what is given; its history keeps what was. To say that a fact is over, give --valid-to.

    Example: carrel memory update mem_01jd… --valid-to 2026-03-10T12:00:00Z --reason "moved away" --tenant acme
    """
    given = {"text": text, "key": key, "tags": tag or None, "valid_to": valid_to, "expires_at": expires_at}
    changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if not changes:
        raise InvalidInput("Say what is to change.", field="text")
    with tenant_client(Settings(), tenant, ["converse"]) as client:
        memory = client.memories.update(memory_id, reason=reason, **changes)
    print_json(memory) if as_json else table(COLUMNS, [_row(memory)])


@memories.command("delete")
def delete(memory_id: MemoryId, reason: ReasonOption = None, tenant: TenantOption = None, as_json: AsJson = False) -> None:
    """Delete a memory, with all that its history says.

    Example: carrel memory delete mem_01jd… --tenant acme
    """
    with tenant_client(Settings(), tenant, ["converse"]) as client:
        client.memories.delete(memory_id, reason=reason)
    print_json({"id": memory_id, "deleted": True}) if as_json else out.print(f"{memory_id} is deleted.")


@memories.command("history")
def history(memory_id: MemoryId, tenant: TenantOption = None, as_json: AsJson = False) -> None:
    """List a memory's versions, oldest first: who changed it, when and why.

    Example: carrel memory history mem_01jd… --tenant acme
    """
    with tenant_client(Settings(), tenant, ["query"]) as client:
        found = list(client.memories.history(memory_id))
    print_json(found) if as_json else table(VERSION_COLUMNS, [_version(each) for each in found])
