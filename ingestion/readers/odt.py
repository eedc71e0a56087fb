"""OpenDocument text (LibreOffice): headings, paragraphs, lists, tables and notes as Markdown, in reading order.

Headers and footers of pages, comments, deleted text and tables of contents are left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from lxml.etree import _Element as Element

from ingestion.readers.archives import open_archive, read_member, xml_of
from ingestion.readers.base import CannotRead, Draft, Parsed, unmarked
from ingestion.readers.tables import markdown_table

_NAMES = "{urn:oasis:names:tc:opendocument:xmlns:%s:1.0}"
TEXT, TABLE, OFFICE = _NAMES % "text", _NAMES % "table", _NAMES % "office"
TITLE = "{http://purl.org/dc/elements/1.1/}title"
MAX_SPACES, MAX_LEVEL = 100, 8
_LEFT_OUT = {f"{TEXT}{name}" for name in ("tracked-changes", "table-of-content", "sequence-decls", "note-citation")}
_LEFT_OUT |= {f"{OFFICE}annotation", f"{OFFICE}forms"}
_BREAKS = {f"{TEXT}tab": "\t", f"{TEXT}line-break": "\n"}
_PARAGRAPHS = (f"{TEXT}p", f"{TEXT}h")
_WHITE = re.compile(r"[ \t\r\n]+")


def read_odt(content: bytes, max_chars: int) -> Parsed:
    archive = open_archive(content)
    names = archive.namelist()
    if "META-INF/manifest.xml" in names and b"encryption-data" in read_member(archive, "META-INF/manifest.xml"):
        raise CannotRead("The document is encrypted; remove its password and send it again.")
    tree = xml_of(read_member(archive, "content.xml"))
    body = tree.find(f"{OFFICE}body/{OFFICE}text")
    if body is None:
        raise CannotRead("The document is damaged: it has no text part.")
    draft = Draft(max_chars)
    _blocks(draft, body, _ordered(tree))
    title = xml_of(read_member(archive, "meta.xml")).find(f".//{TITLE}") if "meta.xml" in names else None
    return draft.parsed(title=None if title is None else title.text)


def _blocks(draft: Draft, parent: Element, ordered: set[str | None]) -> None:
    for child in parent:
        if child.tag == f"{TEXT}h":
            draft.heading(int(child.get(f"{TEXT}outline-level", "1")), _text(child))
        elif child.tag == f"{TEXT}p":
            draft.add(unmarked(_text(child)))
        elif child.tag == f"{TEXT}list":
            draft.add("\n".join(_items(child, 0, child.get(f"{TEXT}style-name") in ordered)))
        elif child.tag == f"{TABLE}table":
            for piece in markdown_table([*_rows(child)]):
                draft.add(piece)
        elif child.tag not in _LEFT_OUT:
            _blocks(draft, child, ordered)


def _items(parent: Element, level: int, numbered: bool) -> Iterator[str]:
    for number, item in enumerate(parent.iterchildren(f"{TEXT}list-item", f"{TEXT}list-header"), 1):
        mark = f"{number}." if numbered else "-"
        for child in item:
            if child.tag == f"{TEXT}list":
                yield from _items(child, level + 1, numbered)
            elif text := " ".join(_text(child).split()):
                yield f"{'  ' * min(level, MAX_LEVEL)}{mark} {text}"


def _rows(table: Element) -> Iterator[list[str]]:
    for child in table:
        if child.tag == f"{TABLE}table-row":
            yield [_text(cell) for cell in child]
        elif child.tag != f"{TABLE}table":
            yield from _rows(child)  # rows of headers and groups


def _text(element: Element) -> str:
    return "".join(_inline(element)).strip()


def _inline(element: Element) -> Iterator[str]:
    yield _WHITE.sub(" ", element.text or "")
    for child in element:
        if child.tag == f"{TEXT}s":
            count = child.get(f"{TEXT}c", "1")
            yield " " * min(int(count) if count.isdecimal() else 1, MAX_SPACES)
        elif child.tag == f"{TEXT}note":
            yield f" ({_text(child)})"
        elif child.tag in _BREAKS:
            yield _BREAKS[child.tag]
        elif child.tag not in _LEFT_OUT:
            yield from _inline(child)
            if child.tag in _PARAGRAPHS:  # in a cell or a text box
                yield "\n"
        yield _WHITE.sub(" ", child.tail or "")


def _ordered(tree: Element) -> set[str | None]:
    """Styles of lists that count at their first level."""
    found = tree.iter(f"{TEXT}list-style")
    return {style.get(_NAMES % "style" + "name") for style in found if style.find(f"{TEXT}list-level-style-number") is not None}
