"""Documents of every format, made by the libraries that write them, and what makes them damaged."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Mapping
from datetime import datetime, time
from email.message import EmailMessage

import docx
import openpyxl
import pptx
from docx.oxml import parse_xml
from pptx.util import Inches

from ingestion.media import CSV, DOCX, EPUB, JSON, JSON_LINES, MAIL, NOTEBOOK, ODT, PPTX, RTF, SRT, TSV, VTT, XLSX

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


def slides() -> bytes:
    presentation = pptx.Presentation()
    presentation.core_properties.title = "Rules in short"
    first = presentation.slides.add_slide(presentation.slide_layouts[1])
    first.shapes.title.text = "Loans"
    body = first.placeholders[1].text_frame
    body.text = "Books may be kept for four weeks."
    deeper = body.add_paragraph()
    deeper.text, deeper.level = "longer on request", 1
    first.notes_slide.notes_text_frame.text = "Say it slowly."
    second = presentation.slides.add_slide(presentation.slide_layouts[6])
    table = second.shapes.add_table(2, 2, Inches(1), Inches(1), Inches(4), Inches(1)).table
    for place, text in enumerate(("kind", "fee", "late", "20 cents")):
        table.cell(place // 2, place % 2).text = text
    group = second.shapes.add_group_shape()
    group.shapes.add_textbox(0, 0, 100, 100).text_frame.text = "in a group"
    presentation.slides.add_slide(presentation.slide_layouts[6])
    return saved(presentation)


def workbook() -> bytes:
    book = openpyxl.Workbook()
    book.properties.title = "Lists"
    sheet = book.active
    sheet.title = "Loans"
    for row in (["rule", "weeks", "fee"], ["kept for four weeks", 4, 0.1 + 0.2], [None, None, None], ["#1 | x", True, None]):
        sheet.append(row)
    book.create_sheet("Empty")
    other = book.create_sheet("Days")
    other.append([datetime(2026, 3, 1), datetime(2026, 3, 1, 9, 30), time(18, 0)])
    return saved(book)


def notebook() -> bytes:
    cells = [
        {"cell_type": "markdown", "source": ["# Loans\n", "\n", "Kept for four weeks."]},
        {"cell_type": "code", "source": "weeks = 4\n", "outputs": [{"text": "printed"}]},
        {"cell_type": "code", "source": ""},
        {"cell_type": "code", "source": ['text = """\n', "```\n", '"""']},
    ]
    return json.dumps({"cells": cells, "metadata": {"language_info": {"name": "python"}}, "nbformat": 4}).encode()


def mail() -> bytes:
    message = EmailMessage()
    message["From"], message["To"] = "Jürgen <j@example.org>", "all@example.org"
    message["Subject"], message["Date"] = "Größe der Ausleihe", "Sun, 01 Mar 2026 09:30:00 +0000"
    message["X-Secret"] = "hidden header"
    message.set_content("Books may be kept for four weeks.\n# no heading\n")
    message.add_alternative("<p>in <b>HTML</b></p>", subtype="html")
    message.add_attachment(b"attached text", maintype="application", subtype="pdf", filename="rules für alle.pdf")
    return message.as_bytes()


def open_document(body: str = "") -> bytes:
    """An OpenDocument text; without a body, one that has everything."""
    names = " ".join(
        f'xmlns:{short}="urn:oasis:names:tc:opendocument:xmlns:{short}:1.0"' for short in ("office", "text", "table", "style")
    )
    styles = (
        '<office:automatic-styles><text:list-style style:name="L1"><text:list-level-style-number/></text:list-style>'
        "</office:automatic-styles>"
    )
    content = (
        f"<office:document-content {names}>{styles}<office:body><office:text>{body or ODT_BODY}</office:text></office:body>"
    )
    meta = '<x xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:title>House rules</dc:title></x>'
    members = {"content.xml": f'<?xml version="1.0"?>{content}</office:document-content>', "meta.xml": meta}
    return archive({"mimetype": ODT, **members})


ODT_BODY = """<text:tracked-changes><text:p>deleted</text:p></text:tracked-changes>
<text:h text:outline-level="2">Loans</text:h>
<text:p>Books may<text:s text:c="2"/>be kept
   for <text:span>four weeks</text:span><text:note><text:note-citation>1</text:note-citation><text:note-body>
<text:p>or longer</text:p></text:note-body></text:note>.<text:line-break/># no heading</text:p>
<text:list text:style-name="L1"><text:list-item><text:p>first</text:p><text:list><text:list-item><text:p>inner</text:p>
</text:list-item></text:list></text:list-item><text:list-item><text:p>second</text:p></text:list-item></text:list>
<text:section><table:table><table:table-header-rows><table:table-row><table:table-cell><text:p>kind</text:p></table:table-cell>
<table:table-cell><text:p>fee</text:p></table:table-cell></table:table-row></table:table-header-rows>
<table:table-row><table:table-cell><text:p>late</text:p><text:p>or lost</text:p></table:table-cell>
<table:table-cell><text:p>20</text:p></table:table-cell></table:table-row></table:table></text:section>"""


def book(**more: str) -> bytes:
    container = (
        '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfile full-path="OPS/book.opf"/></container>'
    )
    package = """<package xmlns="http://www.idpf.org/2007/opf"><metadata xmlns:dc="http://purl.org/dc/elements/1.1/">
<dc:title>The rules</dc:title></metadata><manifest><item id="b" href="text/two%20b.xhtml"/><item id="a" href="text/one.xhtml"/>
<item id="c" href="cover.xhtml"/></manifest><spine><itemref idref="c"/><itemref idref="a"/><itemref idref="b"/></spine>
</package>"""
    page = (
        '<?xml version="1.0" encoding="utf-8"?><!DOCTYPE html><html xmlns="http://www.w3.org/1999/xhtml"><body>{}</body></html>'
    )
    chapters = {
        "OPS/cover.xhtml": page.format('<img src="x.png"/>'),
        "OPS/text/one.xhtml": page.format("<h1>Größe</h1><p>four weeks</p>"),
        "OPS/text/two b.xhtml": page.format("<h1>Two</h1><p>end</p>"),
    }
    return archive({"mimetype": EPUB, "META-INF/container.xml": container, "OPS/book.opf": package, **chapters, **more})


def archive(members: Mapping[str, str]) -> bytes:
    """With the first member uncompressed, as OpenDocument and EPUB have it."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as made:
        for number, (name, content) in enumerate(members.items()):
            made.writestr(name, content, zipfile.ZIP_DEFLATED if number else zipfile.ZIP_STORED)
    return file.getvalue()


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
GOOD: dict[str, tuple[str, Callable[[], bytes]]] = {
    DOCX: (".docx", word),
    PPTX: (".pptx", slides),
    XLSX: (".xlsx", workbook),
    CSV: (".csv", lambda: b'rule,weeks\n"kept for four weeks, at most",4\n'),
    TSV: (".tsv", lambda: b"rule\tweeks\nkept for four weeks\t4\n"),
    JSON: (".json", lambda: b'{"rules": [{"text": "kept for four weeks", "fee": null}]}'),
    JSON_LINES: (".jsonl", lambda: b'{"text": "kept for four weeks"}\n{"text": "or longer"}\n'),
    NOTEBOOK: (".ipynb", notebook),
    MAIL: (".eml", mail),
    SRT: (".srt", lambda: b"1\n00:00:01,000 --> 00:00:02,500\nfour weeks\n"),
    VTT: (".vtt", lambda: b"WEBVTT\n\n00:01.000 --> 00:02.500\nfour weeks\n"),
    RTF: (".rtf", lambda: b"{\\rtf1\\ansi{\\fonttbl{\\f0 Arial;}}\\f0 kept for {\\b four} weeks\\par}"),
    ODT: (".odt", open_document),
    EPUB: (".epub", book),
    "text/x-python": (".py", lambda: b"WEEKS = 4  # four weeks\n"),
}
#: The member that holds the text, of those that are archives.
MAIN_PART = {
    DOCX: "word/document.xml",
    PPTX: "ppt/slides/slide1.xml",
    XLSX: "xl/workbook.xml",
    ODT: "content.xml",
    EPUB: "OPS/book.opf",
}


def pdf(pages: int, lines: int = 40) -> bytes:
    """A PDF of so many pages of text, no two of them alike."""
    objects = [b"<< /Type /Catalog /Pages 2 0 R >>", b"", b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"]
    kids = []
    for page in range(pages):
        rows = [
            f"({page}.{row} On shelf {page * 31 + row} stands a board of oak beside {row} of pine.) Tj T*"
            for row in range(lines)
        ]
        stream = ("BT /F1 10 Tf 12 TL 50 780 Td\n" + "\n".join(rows) + "\nET").encode()
        objects.append(b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream))
        resources = b"/MediaBox [0 0 595 842] /Resources << /Font << /F1 3 0 R >> >>"
        objects.append(b"<< /Type /Page /Parent 2 0 R %s /Contents %d 0 R >>" % (resources, len(objects)))
        kids.append(b"%d 0 R" % len(objects))
    objects[1] = b"<< /Type /Pages /Count %d /Kids [%s] >>" % (pages, b" ".join(kids))
    body, places = b"%PDF-1.4\n", []
    for number, content in enumerate(objects, 1):
        places.append(len(body))
        body += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    size = len(objects) + 1
    head = b"xref\n0 %d\n0000000000 65535 f \n" % size
    trailer = b"trailer << /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (size, len(body))
    return body + head + table + trailer
