"""Excel: each sheet is a page under its name; each row a line that names its columns. Formulas count as last calculated."""

from __future__ import annotations

import io
import sys
import warnings
from collections.abc import Iterator
from datetime import date, datetime, time
from typing import Any

# openpyxl takes numpy along where it is installed: 20 MB, and threads, which a process that forks must not have.
_KEPT_OUT = sys.modules.setdefault("numpy", None) is None  # type: ignore[arg-type]

from openpyxl import load_workbook  # noqa: E402

from ingestion.readers.archives import open_office  # noqa: E402
from ingestion.readers.base import CannotRead, Draft, Parsed, unmarked  # noqa: E402
from ingestion.readers.rows import lines  # noqa: E402

if _KEPT_OUT:
    del sys.modules["numpy"]

MAX_SHEETS = 1_000


def read_xlsx(content: bytes, max_chars: int) -> Parsed:
    open_office(content).close()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of styles and extensions that are not kept
        workbook = load_workbook(io.BytesIO(content), read_only=True, data_only=True, keep_links=False)
        if len(workbook.worksheets) > MAX_SHEETS:
            raise CannotRead(f"The workbook has {len(workbook.worksheets)} sheets, at most {MAX_SHEETS} are read.")
        draft, empty = Draft(max_chars), True
        for sheet in workbook.worksheets:
            draft.page()
            sheet.reset_dimensions()  # what a sheet says of its size can be anything
            for number, line in enumerate(lines(_rows(sheet))):
                if number == 0:
                    draft.heading(1, sheet.title)
                draft.add(unmarked(line), after="\n" if number else "\n\n")
                empty = False
    if empty:
        raise CannotRead("The workbook has no values. Formulas need them: open it in a spreadsheet program and save it again.")
    return draft.parsed(title=workbook.properties.title)


def _rows(sheet: Any) -> Iterator[list[str]]:
    for row in sheet.iter_rows(values_only=True):
        yield [_cell(value) for value in row]


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, float):
        return format(value, ".15g")  # as many digits as Excel keeps
    if isinstance(value, datetime):
        return value.isoformat(" ").removesuffix(" 00:00:00")
    return value.isoformat() if isinstance(value, date | time) else str(value)
