"""Tenants from a table: each line is made or brought up to date by itself, and a line that came before changes nothing."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from config.errors import CarrelError, InvalidInput, NotFound
from config.plans import MAX_TOKENS
from tenants.limits.plans import Plans
from tenants.registry import CHANGES, TenantRegistry
from tenants.tables import Tenant

MAX_LINES = 1_000  # of one table
METADATA = "metadata."  # columns of this prefix are metadata keys
TOKENS = re.compile(r"[0-9]{1,20}")
COLUMNS = ("name", "plan", "monthly_tokens")


@dataclass(frozen=True, slots=True)
class Imported:
    line: int  #: of the table, whose first is the header
    name: str
    status: str  #: created, updated, unchanged or refused
    tenant_id: str | None = None
    refusal: CarrelError | None = None


class TenantImport:
    def __init__(self, registry: TenantRegistry, plans: Plans, *, monthly_tokens: int | None) -> None:
        """`monthly_tokens`: of new tenants whose line says nothing of them."""
        self._registry, self._plans, self._monthly_tokens = registry, plans, monthly_tokens

    def run(self, table: str) -> list[Imported]:
        """One transaction a line. Raise InvalidInput for a table that is none; then nothing was done."""
        return [self._line(number, row) for number, row in _rows(table)]

    def _line(self, number: int, row: Mapping[str, str]) -> Imported:
        name = row["name"]
        try:
            given = _given(row)
            if given.get("plan") is not None:
                self._plans.require(given["plan"])
            tenant, status = self._bring(name, given)
        except CarrelError as error:
            return Imported(number, name, "refused", refusal=error)
        return Imported(number, name, status, tenant.id)

    def _bring(self, name: str, given: Mapping[str, Any]) -> tuple[Tenant, str]:
        try:
            there = self._registry.get(name)
        except NotFound:
            return self._registry.create(name, **{"monthly_tokens": self._monthly_tokens, **given}), "created"
        if there.name != name:
            raise InvalidInput("A line names its tenant, not its id.", field="name")
        if "metadata" in given:
            given = {**given, "metadata": {**there.details, **given["metadata"]}}
        if all(getattr(there, CHANGES[name]) == value for name, value in given.items()):
            return there, "unchanged"
        return self._registry.update(there.id, given), "updated"


def _rows(table: str) -> list[tuple[int, dict[str, str]]]:
    reader = csv.reader(io.StringIO(table.removeprefix("\ufeff"), newline=""), strict=True)
    rows: list[tuple[int, dict[str, str]]] = []
    try:
        header = [name.strip() for name in next(reader, [])]
        _check(header)
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != len(header) or len(rows) >= MAX_LINES:
                detail = f"Line {reader.line_num} has {len(cells)} cells, the header {len(header)}"
                raise InvalidInput(f"{detail}; at most {MAX_LINES} lines can come at once.", field="csv", limit=MAX_LINES)
            rows.append((reader.line_num, dict(zip(header, (cell.strip() for cell in cells), strict=True))))
    except csv.Error as error:
        raise InvalidInput(f"Line {reader.line_num} is no CSV: {error}.", field="csv") from error
    return rows


def _check(header: list[str]) -> None:
    wrong = [name for name in header if name not in COLUMNS and not name.startswith(METADATA)]
    if "name" not in header or wrong or len({*header}) < len(header):
        detail = f"The first line names the columns, each once: name, plan, monthly_tokens, {METADATA}KEY."
        raise InvalidInput(detail, field="csv")


def _given(row: Mapping[str, str]) -> dict[str, Any]:
    """What the line says; an empty cell says nothing, `unlimited` takes a limit away."""
    given: dict[str, Any] = {}
    if plan := row.get("plan"):
        given["plan"] = plan
    if tokens := row.get("monthly_tokens"):
        if tokens != "unlimited" and not (TOKENS.fullmatch(tokens) and int(tokens) <= MAX_TOKENS):
            raise InvalidInput(f"Tokens are 0 to {MAX_TOKENS}, or `unlimited`.", field="monthly_tokens", limit=MAX_TOKENS)
        given["monthly_tokens"] = None if tokens == "unlimited" else int(tokens)
    details = {key.removeprefix(METADATA): value for key, value in row.items() if key.startswith(METADATA) and value}
    return given | ({"metadata": details} if details else {})
