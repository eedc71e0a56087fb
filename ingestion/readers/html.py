"""HTML as Markdown, so that headings, lists and tables survive. What is not content by its own mark-up is left out.

Extractors that guess the "main content" drop sections of plain pages; a knowledge base must not. `page_parts` knows the marks.
"""

from __future__ import annotations

import re
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from bs4 import BeautifulSoup, Tag, XMLParsedAsHTMLWarning
from markdownify import ATX, MarkdownConverter

from ingestion.readers.base import CannotRead, Parsed, left_out
from ingestion.readers.page_parts import reduce

MAX_DEPTH = 500  # of elements; markdownify recurses, with FRAMES for each
FRAMES = 4
_BLANK_LINES = re.compile(r"\n\s*\n\s*\n+")


class Converted(NamedTuple):
    text: str  #: can be empty
    title: str | None
    hidden: int  #: characters that a reader of the page does not see; they are not in the text


class _Element(Tag):
    """markdownify looks for the parent "pre" of every element, which takes Beautiful Soup a microsecond a level.

    And without the attribute, asking whether an element was taken out has all that is below it looked through for a tag that
    is called so: 4 s of 20,000 elements 400 levels deep.
    """

    _decomposed = False

    def find_parent(self, name: Any = None, attrs: Any = None, **kwargs: Any) -> Any:
        names, parent = {name} if isinstance(name, str) else {*name}, self.parent
        while parent is not None and parent.name not in names:
            parent = parent.parent
        return parent


class _Converter(MarkdownConverter):
    """Numbers the items of a list as they come: markdownify counts those before each of them anew."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._items: Counter[int] = Counter()

    def convert_li(self, el: Tag, text: str, parent_tags: set[str]) -> str:
        parent = el.parent
        if parent is None or parent.name != "ol":
            return str(super().convert_li(el, text, parent_tags))  # type: ignore[misc]  # not in its stubs
        first = str(parent.get("start"))
        number = (int(first) if first.isdecimal() and len(first) < 10 else 1) + self._items[id(parent)]
        self._items[id(parent)] += 1
        lines = text.strip().split("\n")
        mark = f"{number}. "
        indented = [lines[0], *(" " * len(mark) + line if line else "" for line in lines[1:])]
        return mark + "\n".join(indented) + "\n" if lines != [""] else "\n"


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
        tree = _Tree(content, "lxml", element_classes={Tag: _Element})
    title = " ".join(tree.title.get_text(" ").split()) if tree.title else None
    hidden = reduce(tree)
    converter = _Converter(heading_style=ATX, bullets="-", strip=["a", "img"], escape_misc=False, table_infer_header=True)
    with _recursing(FRAMES * MAX_DEPTH):
        converted = converter.convert_soup(tree)
    return Converted(_BLANK_LINES.sub("\n\n", converted).strip().replace("\0", ""), title, hidden)


@contextmanager
def _recursing(frames: int) -> Iterator[None]:
    """So many more than Python allows by default, which would refuse pages from a depth of 320 on."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(limit + frames)
    try:
        yield
    finally:
        sys.setrecursionlimit(limit)
