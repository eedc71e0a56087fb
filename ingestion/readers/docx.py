"""Word: headings, paragraphs, lists, tables and footnotes as Markdown, in reading order.

python-docx opens the package; its body is walked here, because python-docx passes over tracked insertions and content
controls, and a knowledge base must not lose them. Headers, footers, comments and deleted text are left out.
"""

from __future__ import annotations

import io
from collections.abc import Iterator

import docx
from docx.document import Document
from lxml.etree import _Element as Element

from ingestion.readers.archives import open_office, xml_of
from ingestion.readers.base import CannotRead, Draft, Parsed, unmarked
from ingestion.readers.docx_styles import MARKUP, Styles, W, number
from ingestion.readers.tables import markdown_table

_MATH = "{http://schemas.openxmlformats.org/officeDocument/2006/math}"
_BREAKS = {f"{W}t": "", f"{_MATH}t": "", f"{W}tab": "\t", f"{W}br": "\n", f"{W}cr": "\n", f"{W}noBreakHyphen": "-"}
#: Fallback repeats what its sibling Choice holds.
_LEFT_OUT = {f"{W}{name}" for name in ("del", "moveFrom", "pPr", "rPr", "tblPr", "tcPr", "trPr", "sectPr")} | {
    f"{MARKUP}Fallback"
}
_FOOTNOTES = "http://schemas.openxmlformats.org/officeDocument/2006/relationships/footnotes"


def read_docx(content: bytes, max_chars: int) -> Parsed:
    open_office(content).close()
    try:
        document = docx.Document(io.BytesIO(content))
    except ValueError as error:
        raise CannotRead("The file is a template or holds macros; save it as .docx and send that.") from error
    draft = Draft(max_chars)
    styles = Styles(document)
    for element in _blocks(document.element.body):
        if element.tag == f"{W}tbl":
            for piece in markdown_table([*_rows(element)]):
                draft.add(piece)
        else:
            _paragraph(draft, styles, element)
    for note, text in _footnotes(document):
        draft.add(f"[^{note}]: {unmarked(text)}")
    return draft.parsed(title=document.core_properties.title)


def _paragraph(draft: Draft, styles: Styles, element: Element) -> None:
    text = _text(element)
    if not text:
        return
    if level := styles.heading_level(element):
        draft.heading(level, text)
    elif (mark := styles.list_mark(element)) is not None:
        draft.add(mark + " ".join(text.split()), after="\n" if styles.in_list else "\n\n")
    else:
        draft.add(unmarked(text))
    styles.in_list = not level and mark is not None


def _blocks(parent: Element) -> Iterator[Element]:
    """Paragraphs and tables in reading order, also those in content controls and tracked insertions."""
    for child in parent:
        if child.tag in (f"{W}p", f"{W}tbl"):
            yield child
        elif child.tag not in _LEFT_OUT:
            yield from _blocks(child)


def _rows(table: Element) -> Iterator[list[str]]:
    for row in _nearest(table, f"{W}tr"):
        cells: list[str] = []
        for cell in _nearest(row, f"{W}tc"):
            merged = cell.find(f"{W}tcPr/{W}vMerge")
            below = merged is not None and merged.get(f"{W}val") != "restart"
            cells.append("" if below else _text(cell))
            cells += [""] * min(number(cell.find(f"{W}tcPr/{W}gridSpan"), 1) - 1, 100)
        yield cells


def _nearest(parent: Element, tag: str) -> Iterator[Element]:
    """The elements of this tag below, but not those within one: tables hold tables."""
    for child in parent:
        if child.tag == tag:
            yield child
        elif child.tag not in _LEFT_OUT:
            yield from _nearest(child, tag)


def _text(element: Element) -> str:
    return "".join(_inline(element)).strip()


def _inline(element: Element) -> Iterator[str]:
    for child in element:
        if child.tag in _BREAKS:
            yield _BREAKS[child.tag] or child.text or ""
        elif child.tag == f"{W}footnoteReference":
            yield f"[^{child.get(f'{W}id')}]"
        elif child.tag not in _LEFT_OUT:
            yield from _inline(child)
            if child.tag in (f"{W}p", f"{W}tc"):  # in a table's cell or a text box
                yield "\n"


def _footnotes(document: Document) -> Iterator[tuple[str, str]]:
    for relation in document.part.rels.values():
        if relation.reltype == _FOOTNOTES and not relation.is_external:
            for note in xml_of(relation.target_part.blob):
                if note.get(f"{W}type") in (None, "normal") and (text := _text(note)):
                    yield note.get(f"{W}id") or "", text
