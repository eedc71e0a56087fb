"""Rows of a table as lines that name their columns, `header: value | header: value`: a row says alone what it is. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from ingestion.readers.base import CannotRead

MAX_COLUMNS = 2_000
_NUMBER = re.compile(r"[+-]?[.,:/ \-]*\d[\d.,:/ \-]*[%€$£]?")


def lines(rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """The headers stand first, alone. Empty cells and rows are left out. Raise CannotRead for more columns than a table has;
    programs write empty cells up to the last column that they know."""
    filled = (row for row in (_clean(row) for row in rows) if any(row))
    first = next(filled, None)
    if first is None:
        return
    headers = first if _are_headers(first) else []
    yield " | ".join(filter(None, first))
    for row in filled:
        yield " | ".join(_named(headers, place, text) for place, text in enumerate(row) if text)


def _clean(row: Sequence[str]) -> list[str]:
    last = next((place for place in range(len(row), MAX_COLUMNS, -1) if row[place - 1].strip()), 0)
    if last:
        raise CannotRead(f"The table has {last} columns, at most {MAX_COLUMNS} are read.")
    return [" ".join(text.split()) for text in row[:MAX_COLUMNS]]


def _are_headers(row: Sequence[str]) -> bool:
    """Distinct names in all columns or all but one: no numbers and no dates."""
    names = [text for text in row if text]
    return (
        len(row) > 1
        and len(names) >= max(2, len(row) - 1)
        and len({*names}) == len(names)
        and not any(map(_NUMBER.fullmatch, names))
    )


def _named(headers: Sequence[str], place: int, text: str) -> str:
    name = headers[place] if place < len(headers) else ""
    return f"{name}: {text}" if name else text
