"""HTML as Markdown, so that headings, lists and tables survive. Navigation and scripts are left out, nothing else is.

Extractors that guess the "main content" were tried and dropped whole sections of plain pages; a knowledge base must not.
"""

from __future__ import annotations

import re
import warnings

from bs4 import BeautifulSoup, XMLParsedAsHTMLWarning
from markdownify import ATX, MarkdownConverter

from ingestion.readers.base import CannotRead, Parsed

BOILERPLATE = ["script", "style", "noscript", "template", "nav", "svg", "iframe", "object", "head", "button", "select"]
_BLANK_LINES = re.compile(r"\n\s*\n\s*\n+")


def read_html(content: bytes, max_chars: int) -> Parsed:
    text, title = to_markdown(content)
    if not text:
        raise CannotRead("The HTML has no text.")
    return Parsed(text, markdown=True, title=title or None)


def to_markdown(content: bytes | str) -> tuple[str, str | None]:
    """Text, which can be empty, and title."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", XMLParsedAsHTMLWarning)  # XHTML is read as HTML, whose parser forgives more
        tree = BeautifulSoup(content, "lxml")
    title = " ".join(tree.title.get_text(" ").split()) if tree.title else None
    for element in tree.find_all(BOILERPLATE):
        element.decompose()
    converter = MarkdownConverter(heading_style=ATX, bullets="-", strip=["a", "img"], escape_misc=False)
    text = _BLANK_LINES.sub("\n\n", converter.convert_soup(tree)).strip().replace("\0", "")
    return text, title
