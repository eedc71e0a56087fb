"""A month's usage line by line, as CSV or JSON, written while it is read: exact in picodollars, shown in micro-dollars."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

from config.money import micro_usd
from tenants.counters import AMOUNTS
from tenants.ledger.bounds import kind_of
from tenants.ledger.usage import UsageRow

Format = Literal["csv", "json"]
COLUMNS = ("day", "operation", "kind", "key", "collection", "charged", "cached", "deduplicated", "hits",
           "cost_picodollars", "cost_micro_usd", "saved_picodollars", "saved_micro_usd")  # fmt: skip
#: What a spreadsheet would take for a formula when it stands first in a cell.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


class Invoice:
    """Lines in the order in which they are read, and last their sum: of exactly those lines."""

    def __init__(self, month: str, lines: Iterable[UsageRow]) -> None:
        self._month, self._lines = month, lines
        self._sums = dict.fromkeys(AMOUNTS, 0)

    def _rows(self) -> Iterator[dict[str, Any]]:
        for line in self._lines:
            for name in AMOUNTS:
                self._sums[name] += getattr(line, name)
            named = {"day": line.day, "operation": line.operation, "kind": kind_of(line.operation or "")}
            yield {
                **named,
                "key": line.key,
                "collection": line.collection,
                **_amounts({name: getattr(line, name) for name in AMOUNTS}),
            }

    def _total(self) -> dict[str, Any]:
        return _amounts(self._sums)

    def csv(self) -> Iterator[str]:
        yield _line(COLUMNS)
        for row in self._rows():
            yield _line([_cell(row[column]) for column in COLUMNS])
        total = {"day": "total", **self._total()}
        yield _line([total.get(column, "") for column in COLUMNS])

    def json(self) -> Iterator[str]:
        yield f'{{"month": {json.dumps(self._month)}, "lines": ['
        for number, row in enumerate(self._rows()):
            yield (",\n" if number else "\n") + json.dumps(row, ensure_ascii=False)
        yield f'\n], "total": {json.dumps(self._total())}}}\n'


def _amounts(of: Mapping[str, int]) -> dict[str, int]:
    tokens = {name: of[name] for name in ("charged", "cached", "deduplicated", "hits")}
    cost, saved = of["cost"], of["saved_cost"]
    money = {"cost_picodollars": cost, "cost_micro_usd": micro_usd(cost)}
    return {**tokens, **money, "saved_picodollars": saved, "saved_micro_usd": micro_usd(saved)}


def _cell(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def _line(cells: Iterable[object]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\r\n").writerow(cells)
    return buffer.getvalue()
