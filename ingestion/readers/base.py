"""What a reader is asked for, what it returns, and the one way it refuses."""

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


@dataclass(frozen=True, slots=True)
class Order:
    """One document to read: sent as JSON with two file descriptors, content to read and pipe to answer on."""

    media_type: str
    max_chars: int
    seconds: int
    memory_bytes: int
