"""RTF, OpenDocument and EPUB: their text, structure where they have any, and what protects them."""

from __future__ import annotations

import pytest

from ingestion.media import EPUB, ODT, RTF
from ingestion.readers.base import CannotRead, Parsed
from ingestion.readers.registry import read
from tests.documents import archive, book, open_document, repacked


def _read(content: bytes, kind: str) -> Parsed:
    return read(content, kind, max_chars=100_000)


def test_open_document_structure_becomes_markdown() -> None:
    parsed = _read(open_document(), ODT)
    assert parsed.title == "House rules"
    assert parsed.text == (
        "## Loans\n\nBooks may  be kept for four weeks (or longer).\n\\# no heading\n\n"
        "1. first\n  1. inner\n2. second\n\n| kind | fee |\n| --- | --- |\n| late or lost | 20 |"
    )


def test_an_encrypted_open_document_is_refused() -> None:
    manifest = {"META-INF/manifest.xml": b"<m><encryption-data/></m>", "content.xml": b"\x93\x81"}
    with pytest.raises(CannotRead, match="password"):
        _read(repacked(open_document(), manifest), ODT)


def test_an_open_document_of_an_old_program_is_read() -> None:
    """OpenOffice 2 declared a type in the list of parts, which nobody parses here."""
    manifest = b'<!DOCTYPE manifest:manifest PUBLIC "-//OpenOffice.org//DTD Manifest 1.0//EN" "Manifest.dtd"><m/>'
    assert _read(repacked(open_document(), {"META-INF/manifest.xml": manifest}), ODT).title == "House rules"
    declared = {"content.xml": b'<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>'}
    with pytest.raises(CannotRead, match="document type"):
        _read(repacked(open_document(), declared), ODT)


def test_comments_of_an_open_document_are_no_text() -> None:
    assert _read(open_document("<text:p>seen<!-- not seen --><?not seen?> too</text:p>"), ODT).text == "seen too"


def test_an_open_document_without_text_is_refused() -> None:
    with pytest.raises(CannotRead, match="no text"):
        _read(open_document("<text:p> </text:p>"), ODT)


def test_a_book_is_read_in_the_order_of_its_spine() -> None:
    parsed = _read(book(), EPUB)
    assert parsed.title == "The rules"
    assert parsed.text == "# Größe\n\nfour weeks\n\n# Two\n\nend"
    assert not parsed.pages


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"META-INF/encryption.xml": '<e><CipherReference URI="OPS/text/two%20b.xhtml"/></e>'}, "protected"),
        ({"META-INF/container.xml": "<container/>"}, "not listed"),
        ({"META-INF/container.xml": '<container><rootfile full-path="no.opf"/></container>'}, "no.opf"),
        ({"OPS/book.opf": "<package><manifest/></package>"}, "no text"),
        ({"OPS/book.opf": '<package><item id="a" href="gone.xhtml"/><itemref idref="a"/></package>'}, "gone.xhtml"),
        ({"OPS/book.opf": "<!DOCTYPE x [<!ENTITY a 'b'>]><package/>"}, "document type"),
        ({"OPS/book.opf": "<package>"}, "XML"),
    ],
)
def test_books_that_cannot_be_read_say_why(changes: dict[str, str], reason: str) -> None:
    with pytest.raises(CannotRead, match=reason):
        _read(book(**changes), EPUB)


def test_a_book_with_obfuscated_fonts_is_read() -> None:
    assert "four weeks" in _read(book(**{"META-INF/encryption.xml": '<e><CipherReference URI="OPS/font.otf"/></e>'}), EPUB).text


def test_a_book_without_its_contents_is_refused() -> None:
    with pytest.raises(CannotRead, match="container"):
        _read(archive({"mimetype": EPUB}), EPUB)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (r"{\rtf1\ansi plain\par next\line more\tab x}", "plain\n\nnext\nmore\tx"),
        (r"{\rtf1\ansi\ansicpg1252 gr\'fc\'dfe \'80}", "grüße €"),
        (r"{\rtf1\ansi\ansicpg1251 \'ca\'ed\'e8\'e3\'e0}", "Книга"),
        (r"{\rtf1\ansi\ansicpg932 \'96\'7b}", "本"),
        (r"{\rtf1\uc1 gr\u252?\u223?e \u-10179?\u-8701?!}", "grüße 😃!"),
        (r"{\rtf1\uc0 \u252 x{\uc2\u252 ??}y}", "üxüy"),
        (r"{\rtf1{\fonttbl{\f0 Arial;}}{\*\generator Word;}{\info{\title T}}{\header head}kept{\footnote note}}", "keptnote"),
        (r"{\rtf1 {\field{\*\fldinst HYPERLINK x}{\fldrslt link}} \{braces\} \\ \~.}", "link {braces} \\ \xa0."),
        (r"{\rtf1\trowd kind\cell fee\cell\row late\cell 20\cell\row}", "kind | fee\n\nlate | 20"),
        (r"{\rtf1 a{\pict\bin5 }}}}}}b}", "ab"),
        ("{\\rtf1 one\r\n two}", "one two"),
    ],
)
def test_rtf_gives_its_text(source: str, expected: str) -> None:
    assert _read(source.encode("latin-1"), RTF) == Parsed(expected)


@pytest.mark.parametrize(
    ("source", "reason"),
    [("{\\rtf1 cut", "cut off"), ("text", "no RTF"), ("{\\rtf1{\\info x}}", "no text")],
)
def test_rtf_that_cannot_be_read_says_why(source: str, reason: str) -> None:
    with pytest.raises(CannotRead, match=reason):
        _read(source.encode(), RTF)
