"""Plain text and Markdown: decoded, otherwise exactly as they came, so that offsets hold in the user's own copy."""

from __future__ import annotations

import codecs

from ingestion.readers.base import CannotRead, Parsed


def read_text(content: bytes, *, markdown: bool) -> Parsed:
    # A UTF-8 byte order mark stays: it is a character of the user's copy, and offsets must hold there.
    encoding = "utf-16" if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        raise CannotRead(f"The text is not UTF-8 (byte {error.start}); convert it and send it again.") from error
    if "\0" in text:
        raise CannotRead("The text contains NUL characters.")
    return Parsed(text, markdown=markdown)
