"""Excel: each sheet is a page under its name; each row a line that names its columns. Formulas count as last calculated."""

from __future__ import annotations

import io
import sys
import warnings
import zipfile
from collections.abc import Callable, Iterator
from datetime import date, datetime, time
from typing import Any

# openpyxl takes numpy along where it is installed: 20 MB, and threads, which a process that forks must not have.
_KEPT_OUT = sys.modules.setdefault("numpy", None) is None  # type: ignore[arg-type]

from openpyxl.reader.excel import SHARED_STRINGS, ExcelReader  # noqa: E402
from openpyxl.styles.stylesheet import apply_stylesheet  # noqa: E402
from openpyxl.utils.datetime import from_excel, from_ISO8601  # noqa: E402

from ingestion.readers.archives import open_office  # noqa: E402
from ingestion.readers.base import CannotRead, Draft, Parsed, unmarked  # noqa: E402
from ingestion.readers.rows import lines  # noqa: E402
from ingestion.readers.sheets import Meaning, rows, strings  # noqa: E402

if _KEPT_OUT:
    del sys.modules["numpy"]

MAX_SHEETS = 1_000


def read_xlsx(content: bytes, max_chars: int) -> Parsed:
    archive = open_office(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of styles and extensions that are not kept
        reader = _opened(content)
        sheets = [*_sheets(reader)]
    if len(sheets) > MAX_SHEETS:
        raise CannotRead(f"The workbook has {len(sheets)} sheets, at most {MAX_SHEETS} are read.")
    meaning = _meaning(archive, reader)
    draft, empty = Draft(max_chars), True
    for name, part in sheets:
        draft.page()
        with archive.open(part) as source:
            for number, line in enumerate(lines(rows(source, meaning))):
                if number == 0:
                    draft.heading(1, name)
                draft.add(unmarked(line), after="\n" if number else "\n\n")
                empty = False
    if empty:
        raise CannotRead("The workbook has no values. Formulas need them: open it in a spreadsheet program and save it again.")
    return draft.parsed(title=reader.wb.properties.title)


def _opened(content: bytes) -> Any:
    """All but the two large parts, texts and cells."""
    reader = ExcelReader(io.BytesIO(content), read_only=True, data_only=True, keep_links=False)
    reader.read_manifest()
    reader.read_workbook()
    reader.read_properties()
    apply_stylesheet(reader.archive, reader.wb)
    return reader


def _sheets(reader: Any) -> Iterator[tuple[str, str]]:
    for sheet, relation in reader.parser.find_sheets():
        if relation.target in reader.valid_files and "chartsheet" not in relation.Type:
            yield sheet.name, relation.target


def _meaning(archive: zipfile.ZipFile, reader: Any) -> Meaning:
    book, part = reader.wb, reader.package.find(SHARED_STRINGS)
    texts: list[str] = []
    if part is not None:
        with archive.open(part.PartName[1:]) as source:
            texts = strings(source)
    styles = {style: _day_of(book.epoch, style in book._timedelta_formats) for style in book._date_formats}
    return Meaning(texts, {str(style): day for style, day in styles.items()}, lambda value: _day(from_ISO8601(value)))


def _day_of(epoch: datetime, timedelta: bool) -> Callable[[str], str]:
    def day_of(value: str) -> str:
        number = float(value) if {".", "e", "E"} & {*value} else int(value)
        try:
            return _day(from_excel(number, epoch, timedelta=timedelta))
        except (OverflowError, ValueError):
            return "#VALUE!"

    return day_of


def _day(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat(" ").removesuffix(" 00:00:00")
    return value.isoformat() if isinstance(value, date | time) else str(value)
