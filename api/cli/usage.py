"""`carrel usage` and `carrel budget …`: what a tenant used, what it may use, and for how long that lasts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from api.cli.common import AsJson, TenantOption, operator, out, print_json, table, tenant_client
from carrel_client import Budget, BudgetLimit, Usage, UsageAmounts
from carrel_client.budgets import UNCHANGED
from config.settings import Settings

budgets = typer.Typer(no_args_is_help=True, help="Show and set what tenants may use.")

USAGE_COLUMNS = ["charged", "cached", "deduplicated", "hits", "cost", "saved"]
BUDGET_COLUMNS = ["kind", "period", "of", "limit", "used", "held", "left", "an hour", "reached", "used up at", "override until"]
Tenant = Annotated[str, typer.Option("--tenant", "-t", help="Tenant, by name or id.")]
Kind = Annotated[Literal["embedding", "llm"], typer.Option(help="Of which tokens.")]
Span = Annotated[Literal["day", "month"], typer.Option("--by", help="In UTC.")]
Tokens = Annotated[int | None, typer.Option(min=0, help="Most tokens.")]
MicroUsd = Annotated[int | None, typer.Option(min=0, help="Most micro-dollars: 1000000 is a dollar.")]
Reason = Annotated[str, typer.Option(help="Kept beside it.")]


def register(app: typer.Typer) -> None:
    app.command()(usage)
    app.add_typer(budgets, name="budget")


def usage(
    tenant: TenantOption = None,
    first: Annotated[str | None, typer.Option("--from", help="First day in UTC; default: the month's first.")] = None,
    last: Annotated[str | None, typer.Option("--to", help="Last day.")] = None,
    by: Annotated[list[str] | None, typer.Option(help="day, operation, key or collection; repeat it.")] = None,
    export: Annotated[str | None, typer.Option(metavar="MONTH", help="Write a month line by line, as 2026-11.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File of the export; default: standard output.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show tokens and money of this month, or of other days, by day and operation or as you like.

    Example: carrel usage --tenant acme

    Example: carrel usage --tenant acme --from 2026-11-01 --to 2026-11-15 --by collection

    Example: carrel usage --tenant acme --export 2026-11 -o november.csv
    """
    with tenant_client(Settings(), tenant, ["manage"]) as client:
        if export is not None:
            _write(client.export_usage(month=export, format="json" if as_json else "csv"), output)
            return
        found = client.usage(first=first, last=last, group_by=by or ())
    print_json(found) if as_json else _show(found, by or [])


def _write(text: str, output: Path | None) -> None:
    if output is None:
        print(text, end="")
    else:
        output.write_text(text, encoding="utf-8", newline="")


def _show(found: Usage, by: list[str]) -> None:
    limit = "no limit" if found.limit is None else f"{found.remaining:,} of {found.limit:,} tokens left"
    out.print(f"{found.month}: {found.used:,} tokens used ({_dollars(found.cost_micro_usd)}), {found.held:,} held, {limit}.")
    out.print(f"The cache holds {found.cache.vectors:,} vectors in {found.cache.bytes:,} bytes.")
    if by:
        names = [name for name in ("day", "operation", "key", "collection") if name in by]
        rows = [[*(getattr(group, name) for name in names), *_amounts(group)] for group in found.groups]
        table([*names, *USAGE_COLUMNS], [*rows, ["total", *[""] * (len(names) - 1), *_amounts(found.total)]])
        return
    rows = [[day.day, day.operation, *_amounts(day)] for day in found.days]
    table(["day", "operation", *USAGE_COLUMNS], [*rows, ["total", "", *_amounts(found.total)]])


def _amounts(of: UsageAmounts) -> list[object]:
    tokens = [of.charged, of.cached, of.deduplicated, of.hits]
    return [*tokens, _dollars(of.cost_micro_usd), _dollars(of.saved_micro_usd)]


def _dollars(micro: int) -> str:
    return f"${micro / 1_000_000:.6f}"


@budgets.command("show")
def show(tenant: Tenant, as_json: AsJson = False) -> None:
    """Show a tenant's budgets: this month's and this day's, how fast they go, and when they are used up.

    Example: carrel budget show --tenant acme
    """
    with operator(Settings()) as client:
        found = client.admin.budgets.show(tenant)
    print_json(found) if as_json else _table(found)


@budgets.command("set")
def set_budget(
    tenant: Tenant,
    kind: Kind = "embedding",
    span: Span = "month",
    tokens: Tokens = None,
    micro_usd: MicroUsd = None,
    unlimited: Annotated[bool, typer.Option("--unlimited", help="No limit of either.")] = False,
    soft: Annotated[bool | None, typer.Option("--soft/--hard", help="Whether it only tells, and refuses nothing.")] = None,
    reason: Reason = "",
    as_json: AsJson = False,
) -> None:
    """Set a budget from now on. What is not given stays as it is.

    Example: carrel budget set --tenant acme --tokens 5000000

    Example: carrel budget set --tenant acme --kind llm --by day --micro-usd 2000000 --soft
    """
    given = {"tokens": tokens, "micro_usd": micro_usd}
    changed = {name: value if unlimited or value is not None else UNCHANGED for name, value in given.items()}
    with operator(Settings()) as client:
        found = client.admin.budgets.set(tenant, kind=kind, span=span, soft=soft, reason=reason, **changed)
    print_json(found) if as_json else _table(found)


@budgets.command("override")
def override(
    tenant: Tenant,
    until: Annotated[str, typer.Option(help="When it ends, as 2026-12-01T00:00:00Z.")],
    kind: Kind = "embedding",
    span: Span = "month",
    tokens: Tokens = None,
    micro_usd: MicroUsd = None,
    reason: Reason = "",
    as_json: AsJson = False,
) -> None:
    """Set a budget until a time; then what was set before holds again.

    Example: carrel budget override --tenant acme --tokens 9000000 --until 2026-12-01T00:00:00Z --reason "ticket 17"
    """
    given = {"tokens": tokens, "micro_usd": micro_usd}
    changed = {name: UNCHANGED if value is None else value for name, value in given.items()}
    with operator(Settings()) as client:
        found = client.admin.budgets.override(tenant, kind=kind, span=span, until=until, reason=reason, **changed)
    print_json(found) if as_json else _table(found)


def _table(found: list[Budget]) -> None:
    rows = [_row(budget, unit, limit) for budget in found for unit, limit in _limits(budget)]
    table(BUDGET_COLUMNS, rows)


def _limits(budget: Budget) -> list[tuple[str, BudgetLimit]]:
    return [("tokens", budget.tokens), ("micro-dollars", budget.micro_usd)]


def _row(budget: Budget, unit: str, of: BudgetLimit) -> list[object]:
    limit = f"{of.limit} (soft)" if of.soft and of.limit is not None else of.limit
    spent = [limit, of.used, of.held, of.remaining, of.per_hour]
    return [budget.kind, budget.period, unit, *spent, f"{budget.step} %", budget.exhausted_at, of.override_until]
