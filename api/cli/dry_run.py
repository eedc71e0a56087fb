"""`carrel ingest --dry-run`: what bringing files would cost, asked of the service that would embed them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich.markup import escape

from api.cli.common import notes, out, print_json
from carrel_client import APIError, Carrel, Estimate
from config.money import micro_usd


@dataclass
class Total:
    """Of all files, each taken for itself."""

    documents: int = 0
    chunks: int = 0
    tokens: int = 0
    cached_tokens: int = 0
    deduplicated_tokens: int = 0
    tokens_to_embed: int = 0
    cost_micro_usd: int = 0
    within_budget: bool = True
    failed: list[dict[str, str]] = field(default_factory=list)

    def add(self, one: Estimate) -> None:
        self.documents += 1
        for name in ("chunks", "tokens", "cached_tokens", "deduplicated_tokens", "tokens_to_embed"):
            setattr(self, name, getattr(self, name) + getattr(one, name))
        self.cost_micro_usd = micro_usd(self.tokens_to_embed * one.price)
        self.within_budget = one.remaining_tokens is None or self.tokens_to_embed <= one.remaining_tokens


def estimate_files(client: Carrel, files: Iterable[tuple[Path, str]], *, collection: str) -> Total:
    """One after the other: the service estimates one document of a tenant at a time."""
    total = Total()
    for path, name in files:
        try:
            total.add(client.documents.create(file=path, collection=collection, external_id=name, source=name, dry_run=True))
        except (APIError, OSError, UnicodeError) as error:
            total.failed.append({"path": ascii(str(path))[1:-1], "reason": getattr(error, "detail", None) or str(error)})
    return total


def show(total: Total, *, as_json: bool) -> None:
    if as_json:
        print_json(asdict(total))
        return
    out.print(
        f"{total.documents} documents, {total.chunks} chunks of {total.tokens} tokens: {total.tokens_to_embed} to embed for "
        f"${total.cost_micro_usd / 1_000_000:.6f}, {total.cached_tokens} known already, {total.deduplicated_tokens} repeated. "
        + ("The budget covers it." if total.within_budget else "The month's budget does not cover it.")
    )
    for failure in total.failed:
        notes.print(f"failed: {escape(failure['path'])}: {escape(failure['reason'])}")
