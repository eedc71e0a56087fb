"""`carrel query --explain`: how an answer came to be, as people read it."""

from __future__ import annotations

from typing import Any

from rich.markup import escape

from api.cli.common import out, table
from carrel_client import QueryResult

_LEFT_OUT = {"rewrite": "Rewriting", "rerank": "Reranking"}


def show_how(result: QueryResult) -> None:
    """What is missing from an answer, always; how it was found, where that was asked for."""
    for part in result.degraded:
        if part == "budget":
            out.print("[yellow]Reranking was left out:[/yellow] the budget nears its end. `carrel usage` shows it.")
            continue
        out.print(f"[yellow]{_LEFT_OUT.get(part, f'The {part} leg')} took no part.[/yellow] `carrel doctor` shows why.")
    if result.explanation is None:
        return
    how = result.explanation
    if how.get("rewrite"):
        out.print(f"Rewritten by {how['rewrite']['mode']}:")
        for text in how["rewrite"]["texts"]:
            out.print(f"  {escape(text)}")
    legs = [
        [leg["name"], how["weights"].get(leg["name"], 0), leg["features"], leg["hits"], leg["limit"]] for leg in how["legs"]
    ]
    table(["leg", "weight", "features", "hits", "limit"], legs)
    names = [leg["name"] for leg in how["legs"]]
    columns = [*(f"{name} {what}" for name in names for what in ("rank", "score")), "score"]
    table(["passage", *columns], [_row(rank, passage, names) for rank, passage in enumerate(how["passages"], 1)])
    dropped = ", ".join(f"{count} {reason}" for reason, count in how["dropped"].items() if count) or "none"
    times = ", ".join(f"{stage} {took:.1f}" for stage, took in how["timings_ms"].items())
    out.print(f"{how['candidates']} candidates in {how['rounds']} rounds; dropped: {dropped}.")
    out.print(f"Fusion by {how['fusion']['method']}, the question's vector from: {how['embedding']}. Milliseconds: {times}.")


def _row(rank: int, passage: dict[str, Any], names: list[str]) -> list[object]:
    cells: list[object] = [rank]
    for name in names:
        place = passage["legs"].get(name)
        cells += ["", ""] if place is None else [place["rank"], f"{place['score']:.3f}"]
    return [*cells, f"{passage['score']:.3f}"]
