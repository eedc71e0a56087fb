"""HTML as Markdown, so that headings, lists and tables survive. What is not content by its own mark-up is left out.

Extractors that guess the "main content" drop sections of plain pages; a knowledge base must not. `page_parts` knows the marks.
"""

from __future__ import annotations

import re
import warnings
from typing import NamedTuple

from bs4 import BeautifulSoup, Tag, XMLParsedAsHTMLWarning
from markdownify import ATX, MarkdownConverter

from ingestion.readers.base import CannotRead, Parsed, left_out
from ingestion.readers.page_parts import reduce

MAX_DEPTH = 500  # of elements; markdownify recurses
_BLANK_LINES = re.compile(r"\n\s*\n\s*\n+")


class Converted(NamedTuple):
    text: str  #: can be empty
    title: str | None
    hidden: int  #: characters that a reader of the page does not see; they are not in the text


class _Tree(BeautifulSoup):
    """Gives up while it is built, since a tree of 100,000 levels takes many seconds."""

    def pushTag(self, tag: Tag) -> None:
        super().pushTag(tag)
        if len(self.tagStack) > MAX_DEPTH:
            raise CannotRead(f"The HTML is nested deeper than {MAX_DEPTH} levels.")


def read_html(content: bytes, max_chars: int) -> Parsed:
    found = to_markdown(content)
    if not found.text:
        raise CannotRead("The HTML has no text.")
    return Parsed(found.text, markdown=True, title=found.title or None, warnings=left_out(found.hidden))


def to_markdown(content: bytes | str) -> Converted:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", XMLParsedAsHTMLWarning)  # XHTML is read as HTML, whose parser forgives more
        tree = _Tree(content, "lxml")
    title = " ".join(tree.title.get_text(" ").split()) if tree.title else None
    hidden = reduce(tree)
    converter = MarkdownConverter(
        heading_style=ATX, bullets="-", strip=["a", "img"], escape_misc=False, table_infer_header=True
    )
    text = _BLANK_LINES.sub("\n\n", converter.convert_soup(tree)).strip().replace("\0", "")
    return Converted(text, title, hidden)
