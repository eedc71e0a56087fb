"""What a reader returns, and the one way it refuses."""

from __future__ import annotations

from dataclasses import dataclass


class CannotRead(Exception):
    """The content cannot become text; the message is for its owner."""


@dataclass(frozen=True, slots=True)
class Parsed:
    text: str
    markdown: bool = False  #: whether headings are marked as in Markdown
    title: str | None = None
    pages: tuple[int, ...] = ()  #: offset of each page's first character, in order
