"""Rows of spreadsheets and CSV name their columns, whatever the dialect, and sheets are pages."""

from __future__ import annotations

import csv
import io
import zipfile

import openpyxl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestion.media import CSV, TSV, XLSX
from ingestion.readers.base import CannotRead
from ingestion.readers.registry import read
from tests.documents import repacked, saved, workbook

MAX = 100_000


def _csv(text: str, kind: str = CSV) -> str:
    return read(text.encode(), kind, max_chars=MAX).text


def test_sheets_become_pages_of_rows() -> None:
    parsed = read(workbook(), XLSX, max_chars=MAX)
    assert parsed.markdown
    assert parsed.title == "Lists"
    loans = "# Loans\n\nrule | weeks | fee\nrule: kept for four weeks | weeks: 4 | fee: 0.3\nrule: #1 | x | weeks: TRUE\n\n"
    assert parsed.text == f"{loans}# Days\n\n2026-03-01 | 2026-03-01 09:30:00 | 18:00:00"
    assert parsed.pages == (0, len(loans), len(loans))


def test_formulas_count_as_last_calculated() -> None:
    book = openpyxl.Workbook()
    book.active.append(["sum", "=1+1"])
    content = saved(book)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        sheet = archive.read("xl/worksheets/sheet1.xml")
    calculated = sheet.replace(b"<v/>", b"<v>2</v>").replace(b"<v></v>", b"<v>2</v>").replace(b"<v />", b"<v>2</v>")
    assert calculated != sheet
    assert read(repacked(content, {"xl/worksheets/sheet1.xml": calculated}), XLSX, max_chars=MAX).text.endswith("sum | 2")


def test_a_workbook_without_values_is_refused() -> None:
    book = openpyxl.Workbook()
    book.active.append(["=1+1"])
    for empty in (book, openpyxl.Workbook()):
        with pytest.raises(CannotRead, match="no values"):
            read(saved(empty), XLSX, max_chars=MAX)


def test_a_sheet_that_lies_about_its_size_is_read() -> None:
    content = workbook()
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        sheet = archive.read("xl/worksheets/sheet1.xml")
    lying = sheet.replace(b'ref="A1:C4"', b'ref="A1:XFD1048576"')
    assert lying != sheet
    assert "four weeks" in read(repacked(content, {"xl/worksheets/sheet1.xml": lying}), XLSX, max_chars=MAX).text


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_delimiters_are_found(delimiter: str) -> None:
    text = f'name{delimiter}fee, in €\nEmma{delimiter}"1,50"\n"two\nlines{delimiter}"{delimiter}2\n'
    if delimiter == ",":
        text = text.replace("fee, in €", '"fee, in €"')
    parted = delimiter.strip()
    assert _csv(text) == f"name | fee, in €\nname: Emma | fee, in €: 1,50\nname: two lines{parted} | fee, in €: 2"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name,fee\nEmma,1\nPersuasion,\n,3\n", "name | fee\nname: Emma | fee: 1\nname: Persuasion\nfee: 3"),
        ("1,2\n3,4\n", "1 | 2\n3 | 4"),
        ("2026-01-01,x\n2026-01-02,y\n", "2026-01-01 | x\n2026-01-02 | y"),
        ("a,a\n1,2\n", "a | a\n1 | 2"),
        ("name,fee\n", "name | fee"),
        ("\n\nname,fee\nEmma,1,extra\n", "name | fee\nname: Emma | fee: 1 | extra"),
        ("one column\nonly\n", "one column\nonly"),
        ("\ufeffname,fee\r\nEmma,1\r\n", "name | fee\nname: Emma | fee: 1"),
    ],
)
def test_rows_name_their_columns(text: str, expected: str) -> None:
    assert _csv(text) == expected


def test_tsv_is_parted_by_tabs_only() -> None:
    assert _csv("name, first\tfee\nEmma, a\t1\n", TSV) == "name, first | fee\nname, first: Emma, a | fee: 1"


@pytest.mark.parametrize(
    ("text", "reason"),
    [('a,b\n"' + "x" * 200_000, "quotation mark"), (",".join("x" * 2_001), "columns"), (",,\n,,", "no text")],
)
def test_tables_that_are_none_are_refused(text: str, reason: str) -> None:
    with pytest.raises(CannotRead, match=reason):
        _csv(text)


VALUE = st.text(st.characters(exclude_characters="\0;|\t", exclude_categories=["Cs"]), max_size=8)


@given(st.lists(st.lists(VALUE, min_size=2, max_size=4), min_size=1, max_size=6))
def test_no_value_is_lost(rows: list[list[str]]) -> None:
    file = io.StringIO()
    csv.writer(file).writerows(rows)
    values = [" ".join(text.split()) for row in rows for text in row]
    if not any(values):
        return
    text = _csv(file.getvalue().removeprefix("\ufeff"))
    assert all(value in text for value in values)
