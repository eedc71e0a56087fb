"""Which reader reads what, and what is asked of every text whoever read it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeAlias

from ingestion.media import (
    CODE_SUFFIXES,
    CSV,
    DOCX,
    EPUB,
    HTML,
    JSON,
    JSON_LINES,
    MAIL,
    MARKDOWN,
    NOTEBOOK,
    ODT,
    PDF,
    PPTX,
    RTF,
    SRT,
    TEXT,
    TSV,
    VTT,
    XLSX,
    language_of,
)
from ingestion.readers.base import CannotRead, Parsed, storable
from ingestion.readers.csv import read_csv, read_tsv
from ingestion.readers.epub import read_epub
from ingestion.readers.html import read_html
from ingestion.readers.json import read_json, read_json_lines
from ingestion.readers.mail import read_mail
from ingestion.readers.notebook import read_notebook
from ingestion.readers.odt import read_odt
from ingestion.readers.pdf import read_pdf
from ingestion.readers.rtf import read_rtf
from ingestion.readers.subtitles import read_subtitles
from ingestion.readers.text import read_markdown, read_text
from rag.splitting.syntax import LANGUAGES, outline

BYTE_ORDER_MARK = "\ufeff"
MAX_TITLE_CHARS = 1_000

#: From the content, and how many characters of text there may be.
Reader: TypeAlias = Callable[[bytes, int], Parsed]
READERS: dict[str, Reader] = {
    TEXT: read_text,
    MARKDOWN: read_markdown,
    HTML: read_html,
    PDF: read_pdf,
    CSV: read_csv,
    TSV: read_tsv,
    JSON: read_json,
    JSON_LINES: read_json_lines,
    NOTEBOOK: read_notebook,
    MAIL: read_mail,
    SRT: read_subtitles,
    VTT: read_subtitles,
    RTF: read_rtf,
    ODT: read_odt,
    EPUB: read_epub,
    **dict.fromkeys(CODE_SUFFIXES.values(), read_text),
}


def _docx() -> Reader:
    from ingestion.readers.docx import read_docx

    return read_docx


def _pptx() -> Reader:
    from ingestion.readers.pptx import read_pptx

    return read_pptx


def _xlsx() -> Reader:
    from ingestion.readers.xlsx import read_xlsx

    return read_xlsx


#: Their libraries take 21 MB and 0.2 s, which a process that meets no such file is spared.
LATE: dict[str, Callable[[], Reader]] = {DOCX: _docx, PPTX: _pptx, XLSX: _xlsx}


def load(media_type: str) -> Reader | None:
    """What reads it; its library is imported at the latest now."""
    if language_of(media_type) in LANGUAGES:
        from rag.splitting import grammars  # noqa: F401  what a child could not import any more

    late = LATE.get(media_type)
    return late() if late else READERS.get(media_type)


def read(
    content: bytes,
    media_type: str,
    *,
    max_chars: int,
    page_read: Callable[[], None] = lambda: None,
    outlined: bool = True,
) -> Parsed:
    """`outlined`: of source code, make its outline too. Raise CannotRead, and whatever a parser raises."""
    reader = load(media_type)
    if reader is None:
        raise CannotRead(f"There is no reader for {media_type}.")
    parsed = read_pdf(content, max_chars, page_read) if media_type == PDF else reader(content, max_chars)
    if len(parsed.text) > max_chars:
        raise CannotRead(f"The text has {len(parsed.text)} characters, at most {max_chars} are taken.")
    if not parsed.text.strip().strip(BYTE_ORDER_MARK):
        hint = " It may be scanned; text recognition is not done: send it with a text layer." if media_type == PDF else ""
        raise CannotRead(f"The document has no text.{hint}")
    shape = outline(parsed.text, language_of(media_type)) if outlined else ""
    return replace(parsed, title=storable(parsed.title or "").strip()[:MAX_TITLE_CHARS] or None, outline=shape)
