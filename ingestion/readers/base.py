"""What a reader is asked for, what it returns, and the one way it refuses."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

BLOCK = "\n\n"
PAGE_READ = b"\n"  #: what a child writes for a page that it has read, before its answer
HIDDEN_TEXT = "hidden_text"  #: code of a warning: the content holds text that a reader does not see
_MARKUP = re.compile(r"^( {0,3})(#{1,6}(?=[ \t])|```|~~~)", re.MULTILINE)


class CannotRead(Exception):
    """The content cannot become text; the message is for its owner."""


@dataclass(frozen=True, slots=True)
class Parsed:
    text: str
    markdown: bool = False  #: whether headings are marked as in Markdown
    title: str | None = None
    pages: tuple[int, ...] = ()  #: offset of each page's first character, in order
    warnings: tuple[tuple[str, str], ...] = ()  #: what somebody who uses the text should know: a code and a sentence
    outline: str = ""  #: of source code, a letter a line, as `rag.splitting.syntax.outline` makes it

    @classmethod
    def of(cls, fields: Any) -> Parsed:
        """From what a child answered; raise ValueError, TypeError or KeyError for what no reader returns."""
        text, title, pages, outline = fields["text"], fields["title"], tuple(fields["pages"]), fields["outline"]
        for said in (text, title or ""):
            if not isinstance(said, str) or storable(said) != said:
                raise ValueError("not storable")
        if not all(type(start) is int for start in pages) or [*pages] != sorted(pages):
            raise ValueError("no pages")
        if pages and not 0 <= pages[0] <= pages[-1] <= len(text):
            raise ValueError("pages outside the text")
        if not isinstance(outline, str) or len(outline) > len(text) + 1 or not outline.isascii():
            raise ValueError("no outline")
        warnings = tuple((str(code), str(detail)) for code, detail in fields["warnings"])
        return cls(text, fields["markdown"] is True, title, pages, warnings, outline)


@dataclass(frozen=True, slots=True)
class Order:
    """One document to read: sent as JSON with two file descriptors, content to read and pipe to answer on."""

    media_type: str
    max_chars: int
    seconds: int
    memory_bytes: int
    outlined: bool = False  #: whether to make a syntax tree of it, which may take more than there is


class Draft:
    """A text as a reader builds it, block by block: bounded while it grows, and without what cannot be stored."""

    def __init__(self, max_chars: int) -> None:
        self._max_chars, self._chars = max_chars, 0
        self._parts: list[str] = []
        self._pages: list[int] = []

    def page(self) -> None:
        """What is added from here on stands on the next page."""
        self._pages.append(self._chars + len(BLOCK) if self._parts else 0)

    def add(self, block: str, *, after: str = BLOCK) -> None:
        """`after` parts it from the block before; a blank block adds nothing."""
        block = storable(block).strip("\r\n")
        if not block.strip():
            return
        at_page = bool(self._pages) and self._pages[-1] > self._chars
        part = (BLOCK if at_page else after) + block if self._parts else block
        self._parts.append(part)
        self._chars += len(part)
        if self._chars > self._max_chars:
            raise CannotRead(f"The text is longer than {self._max_chars} characters; split the document.")

    def heading(self, level: int, text: str) -> None:
        if name := " ".join(text.split()):
            self.add(f"{'#' * min(level, 6)} {name}")

    def parsed(self, *, markdown: bool = True, title: str | None = None, hidden: int = 0) -> Parsed:
        """`hidden`: characters that were left out because a reader does not see them."""
        pages = tuple(min(start, self._chars) for start in self._pages)
        return Parsed("".join(self._parts), markdown, title, pages, left_out(hidden))


def left_out(hidden: int) -> tuple[tuple[str, str], ...]:
    """The warning of so many characters, if there are any."""
    return ((HIDDEN_TEXT, f"{hidden} characters that a reader does not see were left out."),) if hidden else ()


def storable(text: str) -> str:
    """Without NUL and lone surrogates."""
    return text.replace("\0", "").encode("utf-8", "ignore").decode()


def unmarked(text: str) -> str:
    """Text of a document that is not Markdown, so that none of its lines becomes a heading or opens a fence."""
    return _MARKUP.sub(r"\1\\\2", text)
