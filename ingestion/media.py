"""What kind of content this is: by its bytes first, by its name where bytes do not tell."""

from __future__ import annotations

from pathlib import PurePosixPath

from config.errors import UnsupportedMedia

TEXT, MARKDOWN, HTML, PDF = "text/plain", "text/markdown", "text/html", "application/pdf"
SUFFIXES = {
    ".txt": TEXT,
    ".text": TEXT,
    ".md": MARKDOWN,
    ".markdown": MARKDOWN,
    ".html": HTML,
    ".htm": HTML,
    ".pdf": PDF,
}
_SNIFFED = 4096


def sniff(content: bytes, file_name: str) -> str:
    """Return the media type, or raise UnsupportedMedia. A name that contradicts the bytes loses."""
    head = content[:_SNIFFED]
    named = SUFFIXES.get(PurePosixPath(file_name).suffix.lower())
    # Readers of PDF accept junk before the mark; a text about PDF must not become one.
    if head.lstrip().startswith(b"%PDF-") or (named == PDF and b"%PDF-" in head[:1024]):
        return PDF
    utf16 = head.startswith((b"\xff\xfe", b"\xfe\xff"))
    if b"\0" in head and not utf16:
        raise UnsupportedMedia(f"The content is binary and no PDF. Readable are {', '.join(sorted(SUFFIXES))}.", field="file")
    if head.removeprefix(b"\xef\xbb\xbf").lstrip().lower().startswith((b"<!doctype html", b"<html")):
        return HTML
    if named == PDF:
        raise UnsupportedMedia("The file is named .pdf but is no PDF.", field="file")
    return named or TEXT
