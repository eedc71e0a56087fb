"""PDF: the text of each page, with the offset at which the page begins, and a warning of text that is not seen."""

from __future__ import annotations

from collections.abc import Callable

import pypdfium2 as pdfium

from ingestion.readers.base import HIDDEN_TEXT, CannotRead, Parsed
from ingestion.readers.pdf_hidden import hidden_chars

PAGE_BREAK = "\n\n"
MAX_PAGES = 5_000
MAX_NAMED = 20  # pages in a warning


def read_pdf(content: bytes, max_chars: int, page_read: Callable[[], None] = lambda: None) -> Parsed:
    """`page_read` is called after each page: of all formats this is the one whose pages can take seconds together."""
    try:
        document = pdfium.PdfDocument(content)
    except pdfium.PdfiumError as error:
        encrypted = "password" in str(error).lower()
        reason = "is encrypted; remove its password and send it again" if encrypted else "is damaged or no PDF"
        raise CannotRead(f"The PDF {reason}.") from error
    if len(document) > MAX_PAGES:
        raise CannotRead(f"The PDF has {len(document)} pages, at most {MAX_PAGES} are read.")
    texts: list[str] = []
    starts: list[int] = []
    offset, hidden = 0, dict[int, int]()
    for number, page in enumerate(document, 1):
        layer = page.get_textpage()
        if chars := hidden_chars(page, layer):
            hidden[number] = chars
        text = layer.get_text_bounded().replace("\r\n", "\n").replace("\0", "")
        text = text.encode("utf-8", "ignore").decode()  # PDFs can hold lone surrogates
        starts.append(offset)
        texts.append(text)
        offset += len(text) + len(PAGE_BREAK)
        page_read()
        if offset > max_chars:
            raise CannotRead(f"The PDF's text is longer than {max_chars} characters.")
    title = (document.get_metadata_dict().get("Title") or "").replace("\0", "").strip()
    return Parsed(PAGE_BREAK.join(texts), title=title or None, pages=tuple(starts), warnings=_warnings(hidden))


def _warnings(hidden: dict[int, int]) -> tuple[tuple[str, str], ...]:
    if not hidden:
        return ()
    pages = ", ".join(map(str, [*hidden][:MAX_NAMED])) + (", …" if len(hidden) > MAX_NAMED else "")
    said = f"{sum(hidden.values())} characters that a reader of the pages does not see are in the text (pages: {pages})."
    return ((HIDDEN_TEXT, said),)
