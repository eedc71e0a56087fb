"""The kind of a content: bytes decide before names, and what cannot be read is refused at once."""

from __future__ import annotations

import pytest

from config.errors import UnsupportedMedia
from ingestion.media import HTML, MARKDOWN, PDF, TEXT, sniff


@pytest.mark.parametrize(
    ("content", "name", "expected"),
    [
        (b"plain", "", TEXT),
        (b"plain", "notes.txt", TEXT),
        (b"# x", "NOTES.MD", MARKDOWN),
        (b"# x", "a/b.c/readme.markdown", MARKDOWN),
        (b"<p>x", "page.htm", HTML),
        (b"<p>x", "", TEXT),
        (b"plain", "archive.tar.gz", TEXT),
        (b"plain", ".md", TEXT),
        (b"<!DOCTYPE HTML><p>x", "page.txt", HTML),
        (b"\xef\xbb\xbf \r\n <html lang=de>", "", HTML),
        (b"%PDF-1.7\n", "notes.txt", PDF),
        (b" \n%PDF-1.4\n\0\0", "", PDF),
        (b"junk before\n%PDF-1.4\n\0\0", "paper.pdf", PDF),
        (b"a PDF begins with %PDF-1.7", "formats.txt", TEXT),
        ("text".encode("utf-16"), "notes.md", MARKDOWN),
        (b"\xff\xfe\0\0", "", TEXT),
        (b"x" * 5000 + b"\0", "", TEXT),
    ],
)
def test_a_content_is_recognised(content: bytes, name: str, expected: str) -> None:
    assert sniff(content, name) == expected


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (b"PK\x03\x04\0\0", "report.docx"),
        (b"PK\x03\x04" + b"x" * 99, ""),
        (b"not one", "report.docx"),
        (b"\x89PNG\r\n\x1a\n\0", "notes.txt"),
        (b"\0", ""),
        (b"no pdf", "paper.PDF"),
    ],
)
def test_binary_and_misnamed_content_is_refused(content: bytes, name: str) -> None:
    with pytest.raises(UnsupportedMedia) as refused:
        sniff(content, name)
    assert refused.value.field == "file"
