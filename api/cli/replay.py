"""`carrel replay`: questions asked again, and what is other than then."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from api.cli.common import AsJson, TenantOption, out, print_json, table, tenant_client
from carrel_client import Carrel, ConversationItem, Replay, ReplayReport, ReplayRow, SkippedReplay
from config.errors import InvalidInput
from config.settings import Settings

SESSION = "ses_"
DEFAULT_LAST = 100
COLUMNS = ["then", "now", "", "score then", "score now", "shared", "document", "text"]
ITEM_COLUMNS = ["then", "now", "", "score then", "score now", "part", "of", "text"]
SIGNS = {"same": "=", "moved": "~", "overlaps": "≈", "changed": "≠", "came": "+", "gone": "-"}
SHOWN = 72  # characters of a passage or a question


def register(app: typer.Typer) -> None:
    app.command()(replay)


def replay(
    name: Annotated[str | None, typer.Argument(metavar="[TRACE|SESSION]", help="Id: trc_… or ses_…")] = None,
    last: Annotated[int | None, typer.Option("--last", min=1, max=500, help="So many of the newest.")] = None,
    profile: Annotated[str | None, typer.Option("--profile", "-p", help="Search as this profile says.")] = None,
    collection: Annotated[
        list[str] | None, typer.Option("--collection", "-c", help="Ask this instead, as with other chunks; repeat it.")
    ] = None,
    as_of: Annotated[str | None, typer.Option("--as-of", help="Answer as of then: ISO 8601 with its zone; or now.")] = None,
    tuned: Annotated[bool | None, typer.Option("--tuned/--untuned", help="Use what collections are tuned to, or not.")] = None,
    fresh_vector: Annotated[bool, typer.Option("--fresh-vector", help="Embed the question anew, for its tokens.")] = False,
    tenant: TenantOption = None,
    as_json: AsJson = False,
) -> None:
    """Ask a question again as it was asked, and show what is other than then: ids, ranks, scores, and the context.

    A session's context and a recall are asked of the conversation as it stood then; with --as-of now, as it stands today.

    With a session, all of its questions; with --last, the newest of the tenant, and a report of all. Signs: = same, ~ moved,
    ≈ another passage with the same text, ≠ another version, + came, - gone.

    Example: carrel replay trc_01jd3vk2m8e4x7q9s5t6w0y1z2 --profile precise --tenant acme

    Example: carrel replay ses_01jd3w0a4c6e8g9h1j3k5m7n9p --as-of now --tenant acme

    Example: carrel replay --last 500 --tenant acme --json > before-the-upgrade.jsonl
    """
    if name is None and last is None:
        raise InvalidInput("Give a trace, a session, or --last N.", field="name")
    otherwise: dict[str, Any] = {"profile": profile, "as_of": as_of, "tuned": tuned, "fresh_vector": fresh_vector or None}
    otherwise["collections"] = collection or None
    with tenant_client(Settings(), tenant, ["query"]) as client:
        if name is not None and not name.startswith(SESSION):
            found = client.traces.replay(name, **otherwise)
            print_json(found) if as_json else _show(found)
        else:
            _many(client, name, last or DEFAULT_LAST, otherwise, as_json=as_json)


def _many(client: Carrel, session: str | None, last: int, otherwise: dict[str, Any], *, as_json: bool) -> None:
    """Each as it is done: of a session all, of a tenant those that changed."""
    for told in client.traces.replays(last=last, session_id=session, **otherwise):
        if as_json:
            kind = {Replay: "replay", SkippedReplay: "skipped", ReplayReport: "report"}[type(told)]
            print_json({kind: asdict(told)})
        elif isinstance(told, Replay):
            if session is not None or not told.empty:
                _show(told)
                _say("")
        elif isinstance(told, SkippedReplay):
            _say(f"{told.trace_id} was not asked again: {told.detail}")
        else:
            _report(told)


def _show(replay: Replay) -> None:
    _say(f"{replay.trace_id}  {replay.at}  {_short(replay.query)}")
    if replay.rows or replay.conversation is None:
        table(COLUMNS, [_row(row) for row in replay.rows])
    if replay.conversation is not None:
        table(ITEM_COLUMNS, [_item(item) for item in replay.conversation.items])
        shares = (f"{part} {of['then']}→{of['now']}" for part, of in replay.conversation.tokens.items())
        _say(f"Conversation as of {replay.conversation.as_of}. {_tokens(', '.join(shares))}".strip())
    for line in (replay.context or {}).get("diff", ()):
        _say(line)
    for note in replay.notes:
        _say(note)
    _say(_summary(replay))


def _row(row: ReplayRow) -> list[object]:
    ranks = [None if place is None else place["rank"] for place in (row.then, row.now)]
    scores = [None if place is None else f"{place['score']:.4f}" for place in (row.then, row.now)]
    return [*ranks, SIGNS[row.change], *scores, f"{row.shared:.2f}", row.document, _short(row.snippet or "–")]


def _item(item: ConversationItem) -> list[object]:
    sides = [side or {} for side in (item.then, item.now)]
    scores = [None if side.get("score") is None else f"{side['score']:.4f}" for side in sides]
    versions = [side.get("version") for side in sides if side.get("version") is not None]
    of = " ".join(map(str, filter(None, (item.part in ("recap", "memory") and item.id, item.seq and f"#{item.seq}"))))
    shown = [_short(item.snippet or "–"), *([f"version {versions[-1]}"] if item.change == "changed" and versions else [])]
    unshown = [] if all(side.get("shown", True) for side in sides) else ["no room"]
    told = ", ".join([*shown, *unshown, *([item.why] if item.why else [])])
    return [*(side.get("rank") for side in sides), SIGNS[item.change], *scores, item.part, of or item.id, told]


def _tokens(shares: str) -> str:
    return f"Tokens then→now: {shares}." if shares else ""


def _counts(replay: Replay) -> dict[str, int]:
    """Of passages, and of what was in the conversation."""
    counts = {"same": replay.same, "moved": replay.moved, "overlapping": replay.overlapping, "changed": 0}
    counts |= {"came": replay.came, "gone": replay.gone}
    for item in replay.conversation.items if replay.conversation is not None else ():
        counts[item.change] += 1
    return counts


def _summary(replay: Replay) -> str:
    changes = _counts(replay)
    if replay.empty:
        told = f"{changes['same']} parts" if replay.conversation is not None else f"{replay.same} passages"
        return f"Nothing changed: {told}, equal scores." + _of_context(replay)
    told = ", ".join(f"{count} {name}" for name, count in changes.items() if count)
    measures = f"rank-biased overlap {replay.rbo:.3f}, largest score difference {replay.max_score_difference:.4f}"
    shared = f", {replay.shared:.0%} of the text in both" if replay.rows else ""
    return f"{told or 'nothing found'}; {measures}{shared}." + _of_context(replay)


def _of_context(replay: Replay) -> str:
    if replay.context is None:
        return ""
    if replay.context["equal"]:
        return " The context is equal."
    return f" The context differs: {replay.context['tokens_then']} tokens then, {replay.context['tokens_now']} now."


def _report(report: ReplayReport) -> None:
    overlaps = ", ".join(f"overlap@{k} {value:.3f}" for k, value in report.overlap.items())
    _say(f"{report.empty} of {report.replayed} answers are as they were; rank-biased overlap {report.rbo:.4f}, {overlaps}.")
    _say(f"Largest score difference {report.max_score_difference:.4f}; {report.tokens} tokens charged.")
    if report.contexts:
        _say(f"{report.contexts_equal} of {report.contexts} contexts are equal.")
    if report.useful_marked:
        recalls = f"{report.useful_recall_then:.3f} then, {report.useful_recall_now:.3f} now"
        _say(f"Of {report.useful_marked} passages and documents that were found useful: recall {recalls}.")
    for code, count in report.skipped.items():
        _say(f"{count} could not be asked again: {code}.")
    if report.worst:
        rows: list[list[object]] = [[f"{each['rbo']:.3f}", each["trace_id"], _short(each["query"])] for each in report.worst]
        table(["overlap", "trace", "question"], rows)
    if report.stopped is not None:
        _say(f"Stopped before the end: {report.stopped['detail']}")


def _say(text: str) -> None:
    out.print(text, markup=False)


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= SHOWN else f"{line[: SHOWN - 1]}…"
