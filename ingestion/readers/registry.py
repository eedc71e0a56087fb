"""Which reader reads what."""

from __future__ import annotations

from ingestion.media import HTML, MARKDOWN, PDF, TEXT
from ingestion.readers.base import CannotRead, Parsed
from ingestion.readers.html import read_html
from ingestion.readers.pdf import read_pdf
from ingestion.readers.text import read_text

BYTE_ORDER_MARK = "\ufeff"


def read(content: bytes, media_type: str, *, max_chars: int) -> Parsed:
    if media_type in (TEXT, MARKDOWN):
        parsed = read_text(content, markdown=media_type == MARKDOWN)
    elif media_type == HTML:
        parsed = read_html(content)
    elif media_type == PDF:
        parsed = read_pdf(content, max_chars=max_chars)
    else:
        raise CannotRead(f"There is no reader for {media_type}.")
    if len(parsed.text) > max_chars:
        raise CannotRead(f"The text has {len(parsed.text)} characters, at most {max_chars} are taken.")
    if not parsed.text.strip().strip(BYTE_ORDER_MARK):
        hint = " It may be scanned; text recognition is not done." if media_type == PDF else ""
        raise CannotRead(f"The document has no text.{hint}")
    return parsed
