"""`carrel session …`: conversations of a tenant's end users, turn by turn."""

from __future__ import annotations

import sys
from itertools import islice
from typing import Annotated

import typer

from api.cli.common import AsJson, TenantOption, notes, out, print_json, table, tenant_client
from carrel_client import Carrel, Session, Turn
from config.settings import Settings

sessions = typer.Typer(no_args_is_help=True, help="Sessions: conversations of a tenant's end users.")

SessionId = Annotated[str, typer.Argument(help="The session's id, ses_…")]
Limit = Annotated[int, typer.Option(min=1, max=10_000, help="How many at most.")]
COLUMNS = ["id", "subject", "title", "tags", "state", "turns", "tokens", "last active", "expires"]


def _client(tenant: str | None) -> Carrel:
    return tenant_client(Settings(), tenant, ["query", "converse"])


def _row(session: Session) -> list[object]:
    named = [session.id, session.subject, session.title, ", ".join(session.tags), session.state]
    return [*named, session.turns, session.tokens, session.last_active_at, session.expires_at]


def _print(found: list[Session], *, as_json: bool) -> None:
    print_json(found) if as_json else table(COLUMNS, [_row(session) for session in found])


def _print_one(session: Session, *, as_json: bool) -> None:
    print_json(session) if as_json else table(COLUMNS, [_row(session)])


@sessions.command("create")
def create_session(
    subject: Annotated[str, typer.Argument(help="The end user, as your application names its users.")],
    title: Annotated[str | None, typer.Option(help="What it is about.")] = None,
    tag: Annotated[list[str] | None, typer.Option("--tag", help="To find it by; repeat it.")] = None,
    idle_ttl: Annotated[int | None, typer.Option(min=1, help="Expires so many seconds after its last turn.")] = None,
    absolute_ttl: Annotated[int | None, typer.Option(min=1, help="Expires so many seconds after it was made.")] = None,
    max_turns: Annotated[int | None, typer.Option(min=1, help="Turns in its window.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Tokens in its window.")] = None,
    when_full: Annotated[str, typer.Option(help="What a turn beyond that does: refuse, or archive the oldest.")] = "refuse",
    budget_tokens: Annotated[int | None, typer.Option(min=0, help="Most tokens to be spent for it.")] = None,
    tenant: TenantOption = None,
    as_json: AsJson = False,
) -> None:
    """Begin a session of an end user. Prints it with its id.

    Example: carrel session create user-17 --title Returns --tag support --idle-ttl 86400 --tenant acme
    """
    with _client(tenant) as client:
        made = client.sessions.create(
            subject=subject,
            title=title,
            tags=tag or [],
            idle_ttl_seconds=idle_ttl,
            absolute_ttl_seconds=absolute_ttl,
            max_turns=max_turns,
            max_tokens=max_tokens,
            when_full=when_full,
            budget_tokens=budget_tokens,
        )
    _print_one(made, as_json=as_json)


@sessions.command("list")
def list_sessions(
    subject: Annotated[str | None, typer.Option(help="Only of this end user.")] = None,
    tag: Annotated[str | None, typer.Option(help="Only with this tag.")] = None,
    state: Annotated[str | None, typer.Option(help="open, closed or archived.")] = None,
    limit: Limit = 50,
    tenant: TenantOption = None,
    as_json: AsJson = False,
) -> None:
    """List sessions, the newest first.

    Example: carrel session list --subject user-17 --tag support --tenant acme
    """
    with _client(tenant) as client:
        found = client.sessions.list(subject=subject, tag=tag, state=state, page_size=min(limit, 100))
        _print(list(islice(found, limit)), as_json=as_json)


@sessions.command("get")
def get_session(session_id: SessionId, tenant: TenantOption = None, as_json: AsJson = False) -> None:
    """Show a session: its state, how long it is, when it expires.

    Example: carrel session get ses_01jd… --tenant acme --json
    """
    with _client(tenant) as client:
        _print_one(client.sessions.get(session_id), as_json=as_json)


@sessions.command("append")
def append_turn(
    session_id: SessionId,
    content: Annotated[str, typer.Argument(help="What is said; - reads it from standard input.")],
    role: Annotated[str, typer.Option(help="user, assistant, system or tool.")] = "user",
    speaker: Annotated[str | None, typer.Option(help="A name, where several have the same role.")] = None,
    said_at: Annotated[str | None, typer.Option(help="If that was not now, as 2026-03-10T12:00:00Z.")] = None,
    key: Annotated[str | None, typer.Option(help="Names the turn: appended again with it, it is there once.")] = None,
    tenant: TenantOption = None,
    as_json: AsJson = False,
) -> None:
    """Append a turn to a session. Prints its id and its number.

    Example: carrel session append ses_01jd… "How long may I keep a book?" --tenant acme
    """
    given = {"speaker": speaker, "said_at": said_at, "idempotency_key": key}
    more = {name: value for name, value in given.items() if value is not None}
    text = sys.stdin.read() if content == "-" else content
    with _client(tenant) as client:
        turn = client.sessions.say(session_id, role, text, **more)
    print_json(turn) if as_json else out.print(f"{turn.id} is turn {turn.seq}.")


@sessions.command("turns")
def list_turns(
    session_id: SessionId,
    newest: Annotated[bool, typer.Option("--newest", help="The newest first.")] = False,
    limit: Limit = 100,
    tenant: TenantOption = None,
    as_json: AsJson = False,
) -> None:
    """Show what was said in a session.

    Example: carrel session turns ses_01jd… --newest --limit 10 --tenant acme
    """
    with _client(tenant) as client:
        order = "newest" if newest else "oldest"
        found = list(islice(client.sessions.turns(session_id, order=order, page_size=min(limit, 100)), limit))
    if as_json:
        print_json(found)
        return
    for turn in found:
        _print_turn(turn)


def _print_turn(turn: Turn) -> None:
    notes.print(f"{turn.seq} {turn.speaker or turn.role}, {turn.said_at}, {turn.id}", markup=False)
    out.print(turn.content, markup=False)


@sessions.command("close")
def close_session(session_id: SessionId, tenant: TenantOption = None, as_json: AsJson = False) -> None:
    """Let a session take no more turns, until it is resumed.

    Example: carrel session close ses_01jd… --tenant acme
    """
    with _client(tenant) as client:
        _print_one(client.sessions.close(session_id), as_json=as_json)


@sessions.command("archive")
def archive_session(session_id: SessionId, tenant: TenantOption = None, as_json: AsJson = False) -> None:
    """Put a session away: it takes no turns, and its idle time does not run.

    Example: carrel session archive ses_01jd… --tenant acme
    """
    with _client(tenant) as client:
        _print_one(client.sessions.archive(session_id), as_json=as_json)


@sessions.command("resume")
def resume_session(session_id: SessionId, tenant: TenantOption = None, as_json: AsJson = False) -> None:
    """Open a closed or archived session again.

    Example: carrel session resume ses_01jd… --tenant acme
    """
    with _client(tenant) as client:
        _print_one(client.sessions.resume(session_id), as_json=as_json)


@sessions.command("fork")
def fork_session(
    session_id: SessionId,
    turn: Annotated[str | None, typer.Option(help="The last turn it takes over, trn_…; the last one by default.")] = None,
    tenant: TenantOption = None,
    as_json: AsJson = False,
) -> None:
    """Begin another session with the turns of this one, and leave this one as it is.

    Example: carrel session fork ses_01jd… --turn trn_01jd… --tenant acme
    """
    with _client(tenant) as client:
        _print_one(client.sessions.fork(session_id, turn_id=turn), as_json=as_json)


@sessions.command("tag")
def tag_session(
    session_id: SessionId,
    tag: Annotated[list[str] | None, typer.Argument(help="All tags it is to have; none takes them away.")] = None,
    tenant: TenantOption = None,
    as_json: AsJson = False,
) -> None:
    """Set a session's tags.

    Example: carrel session tag ses_01jd… support urgent --tenant acme
    """
    with _client(tenant) as client:
        _print_one(client.sessions.update(session_id, tags=tag or []), as_json=as_json)
