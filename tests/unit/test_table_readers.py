"""Rows of spreadsheets and CSV name their columns, whatever the dialect, and sheets are pages."""

from __future__ import annotations

import csv
import io
import zipfile
from datetime import datetime, time, timedelta
from typing import Any

import openpyxl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingestion.media import CSV, TSV, XLSX
from ingestion.readers import sheets
from ingestion.readers.base import CannotRead
from ingestion.readers.registry import read
from ingestion.readers.xlsx import _meaning, _opened
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


def _sheet(rows: str) -> str:
    """What is read of a sheet with this XML between its first and last row."""
    content = workbook()
    name = "xl/worksheets/sheet1.xml"
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        sheet = archive.read(name).decode()
    head, tail = sheet.partition("<sheetData>")[0], sheet.partition("</sheetData>")[2]
    made = f"{head}<sheetData>{rows}</sheetData>{tail}".encode()
    text = read(repacked(content, {name: made}), XLSX, max_chars=MAX).text
    return text.partition("# Days")[0].strip().removeprefix("# Loans").strip()


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        ('<c t="inlineStr"><is><t>a</t></is></c><c t="inlineStr"><is><r><t>b</t></r><r><t> c</t></r></is></c>', "a | b c"),
        ('<c t="inlineStr"><is><t>\u6771</t><rPh sb="0" eb="1"><t>spoken</t></rPh></is></c>', "\u6771"),
        ('<c r="C1"><v>3</v></c><c r="A1"><v>1</v></c><c><v>2</v></c>', "1 | 2 | 3"),
        ("<c><f>1+1</f><v>2</v></c><c><f>x</f><v/></c><c><v>0.1000</v></c><c><v>1e3</v></c>", "2 | 0.1 | 1000"),
        ('<c t="e"><v>#N/A</v></c><c t="str"><v>made</v></c><c t="b"><v>0</v></c>', "#N/A | made | FALSE"),
        ('<c t="d"><v>2026-03-01T09:30:00</v></c><c><v>007</v></c>', "2026-03-01 09:30:00 | 7"),
    ],
)
def test_every_kind_of_cell_is_read(cells: str, expected: str) -> None:
    assert _sheet(f"<row>{cells}</row>") == expected


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ('<row><c r="BZZ1"><v>1</v></c></row>', "columns"),
        ('<row><c r="ABCDEFGH1"><v>1</v></c></row>', "columns"),
        ("<row><c><v>1</v></row>", "damaged"),
        ("<row><c><v>&more;</v></c></row>", "damaged"),
    ],
)
def test_sheets_that_are_none_are_refused(rows: str, reason: str) -> None:
    with pytest.raises(CannotRead, match=reason):
        _sheet(rows)


def test_empty_cells_behind_the_last_column_are_none() -> None:
    """Programs write a formatted row, or one of a wide sheet, up to the last column that they know."""
    assert _sheet('<row><c><v>1</v></c><c r="XFD1" s="0"/></row>') == "1"
    assert _sheet(f"<row><c><v>1</v></c>{'<c/>' * 16_383}</row>") == "1"
    wide = "," * 16_383
    assert _csv(f"name,weeks{wide}\nAnn,4{wide}\n") == "name | weeks\nAnn | 4"
    with pytest.raises(CannotRead, match="16386 columns"):
        _csv(f"name,weeks{wide},last\n")


def test_no_part_may_declare_a_document_type_whatever_it_is_called() -> None:
    texts = b'<!DOCTYPE sst [<!ENTITY a "b">]><sst xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"/>'
    with pytest.raises(CannotRead, match="document type"):
        sheets.strings(io.BytesIO(texts))


CELL = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**15), 10**15),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(categories=["L", "N", "P", "Zs"], exclude_characters="=_"), max_size=8),
    st.datetimes(datetime(1905, 1, 1), datetime(2200, 1, 1)),
    st.times(),
    st.timedeltas(timedelta(0), timedelta(days=99)),
)


@settings(max_examples=25)
@given(st.lists(st.lists(CELL, min_size=1, max_size=5), min_size=1, max_size=6))
def test_values_mean_what_openpyxl_says(table: list[list[Any]]) -> None:
    book = openpyxl.Workbook()
    for row in table:
        book.active.append(["kept", *row])
    content = saved(book)
    opened = openpyxl.load_workbook(io.BytesIO(content))
    told = [[" ".join(_shown(value).split()) for value in row] for row in opened.active.iter_rows(values_only=True)]
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        meaning = _meaning(archive, _opened(content))
        with archive.open("xl/worksheets/sheet1.xml") as source:
            found = [[" ".join(text.split()) for text in row] for row in sheets.rows(source, meaning)]
    width = max(map(len, told))
    assert [row + [""] * (width - len(row)) for row in found] == told


def _shown(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "", True: "TRUE", False: "FALSE"}[value]
    if isinstance(value, datetime):
        return value.isoformat(" ").removesuffix(" 00:00:00")
    if isinstance(value, float):
        return format(value, ".15g")
    return value.isoformat() if isinstance(value, time) else str(value)


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
