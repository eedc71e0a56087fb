"""Documents of every format, made by the libraries that write them, and what makes them damaged."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Mapping

import docx
from docx.oxml import parse_xml

from ingestion.media import DOCX

_W = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'


def word() -> bytes:
    document = docx.Document()
    document.core_properties.title = "House rules"
    document.sections[0].header.paragraphs[0].text = "printed header"
    document.add_heading("Loans", 1)
    document.add_paragraph("Books may be kept for four weeks.")
    document.add_heading("Fees", 2)
    table = document.add_table(2, 2)
    for cell, text in zip(table._cells, ("kind", "fee", "late | lost", "20 cents\na day"), strict=True):
        cell.text = text
    document.add_paragraph("first", style="List Number")
    document.add_paragraph("second", style="List Number")
    document.add_paragraph("loose", style="List Bullet")
    document.add_paragraph("# no heading")
    return saved(document)


def word_with(body: str) -> bytes:
    """A Word document whose body begins with this XML."""
    document = docx.Document()
    element = parse_xml(f"<w:body {_W}>{body}</w:body>")
    for place, child in enumerate(element):
        document.element.body.insert(place, child)
    return saved(document)


def saved(document: object) -> bytes:
    file = io.BytesIO()
    document.save(file)  # type: ignore[attr-defined]
    return file.getvalue()


def repacked(content: bytes, changes: Mapping[str, bytes]) -> bytes:
    """The archive with these members changed or added."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            if name not in changes:
                new.writestr(old.getinfo(name), old.read(name))
        for name, value in changes.items():
            new.writestr(name, value)
    return file.getvalue()


def encrypted(content: bytes) -> bytes:
    """An archive with the flags of encryption set, in every member."""
    changed = bytearray(content)
    for mark, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = changed.find(mark)
        while at >= 0:
            changed[at + flags] |= 1
            at = changed.find(mark, at + 4)
    return bytes(changed)


#: A good document of each kind, with its suffix.
GOOD: dict[str, tuple[str, Callable[[], bytes]]] = {DOCX: (".docx", word)}
#: The member that holds the text, of those that are archives.
MAIN_PART = {DOCX: "word/document.xml"}
