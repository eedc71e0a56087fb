"""Documents that LibreOffice and Chromium wrote (`tests/fixtures/make.sh`), against what went into them."""

from __future__ import annotations

from pathlib import Path

import pytest

from ingestion.media import sniff
from ingestion.readers.base import HIDDEN_TEXT, Parsed
from ingestion.readers.registry import read

FOLDER = Path(__file__).parents[1] / "fixtures"
PROSE = [
    "Forty seats stand under the north window. Whoever comes first chooses; a seat left for an hour is free again.",
    "Sheets are brought on trays. Größe und Gewicht: a tray holds 3 kg — no more. Ask before you unfold.",
    "A copy costs 30 cents. Bound volumes are not copied.",
    "From two to four nobody speaks, not even the staff.",
]
ITEMS = ["Pencils only at the map table", "Coats stay outside", "umbrellas as well", "Fill in the slip", "Hand it to the desk"]
HEADINGS = ["# The reading room", "## Maps and prints", "### Copies", "## Quiet hours"]
LISTS = ["- Pencils only at the map table", "- Coats stay outside", "  - umbrellas as well", "1. Fill in the slip"]
TABLE = ["| Sheet | Scale | Year |", "| --- | --- | --- |", "| Harbour | 1:5000 | 1884 |", "| Old town | 1:2500 | 1911 |"]
GUIDES = ["chromium.html", "chromium.pdf", *(f"libreoffice.{kind}" for kind in ("docx", "odt", "rtf", "epub", "pdf"))]
STRUCTURED = ["chromium.html", "libreoffice.docx", "libreoffice.odt"]  # the others are written without headings and lists


def _read(name: str) -> Parsed:
    content = (FOLDER / name).read_bytes()
    return read(content, sniff(content, name), max_chars=100_000)


@pytest.mark.parametrize("name", GUIDES)
def test_every_sentence_and_item_is_there_once_and_in_order(name: str) -> None:
    text = " ".join(_read(name).text.split())
    places = [text.find(part) for part in (PROSE[0], *ITEMS, *PROSE[1:])]
    assert -1 not in places
    assert places == sorted(places)
    assert all(text.count(part) == 1 for part in PROSE)
    rows = TABLE[2:] if name.endswith(".epub") else [TABLE[0], *TABLE[2:]]  # LibreOffice writes no heads of tables into books
    cells = [cell for row in rows for cell in row.strip("| ").split(" | ")]
    assert [cell for cell in cells if cell not in text] == []


@pytest.mark.parametrize("name", STRUCTURED)
def test_headings_lists_and_tables_survive(name: str) -> None:
    parsed = _read(name)
    lines = parsed.text.splitlines()
    assert parsed.markdown
    assert [line for line in lines if line.startswith("#")] == HEADINGS
    assert set(LISTS) <= set(lines)
    at = lines.index(TABLE[0])
    assert lines[at : at + 4] == TABLE


@pytest.mark.parametrize("name", ["chromium.pdf", "libreoffice.pdf"])
def test_pages_begin_where_they_were_broken(name: str) -> None:
    parsed = _read(name)
    firsts = [parsed.text[start:].lstrip().splitlines()[0] for start in parsed.pages]
    assert firsts[1:] == ["Maps and prints", "Quiet hours"]
    assert parsed.title == "The reading room"


def test_code_keeps_its_lines_and_what_every_page_repeats_is_left_out() -> None:
    text = _read("chromium.html").text
    assert '```\nslip = {"sheet": "Harbour"}\n    send(slip)\n```' in text
    assert not any(part in text for part in ("Start page", "Opening hours menu", "cookies", "Accept all", "Imprint"))


def test_white_text_is_flagged_where_it_cannot_be_seen() -> None:
    """Chromium paints the dark ground of the page's white text; LibreOffice left it out."""
    assert _read("chromium.pdf").warnings == ()
    [(code, detail)] = _read("libreoffice.pdf").warnings
    assert code == HIDDEN_TEXT
    assert detail.endswith("(pages: 2, 3).")


def test_a_workbook_and_slides() -> None:
    sheet = _read("libreoffice.xlsx").text.splitlines()
    assert sheet[2] == "Sheet | Scale | Year | Lent"
    assert sheet[3] == "Sheet: Harbour | Scale: 1:5000 | Year: 1884 | Lent: 2026-03-01"
    assert sheet[5] == "Sheet: Mill, upper | Scale: 1:1000 | Year: 1930"
    slides = _read("libreoffice.pptx")
    assert slides.text.splitlines() == [
        *("# The reading room", "", "Forty seats stand under the north window.", "- first come, first served", ""),
        *("Notes: Point at the window.", "", "# Quiet hours", "", "From two to four nobody speaks."),
    ]
    assert [slides.text[start:].splitlines()[0] for start in slides.pages] == ["# The reading room", "# Quiet hours"]
