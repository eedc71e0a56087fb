"""What a Word paragraph is by its style and numbering: a heading of some level, an item of a list, or neither."""

from __future__ import annotations

import re
from collections import defaultdict

from docx.document import Document
from lxml.etree import _Element as Element

W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
MARKUP = "{http://schemas.openxmlformats.org/markup-compatibility/2006}"
MAX_ANCESTORS = 20  # of a style; hostile ones name each other
MAX_LEVEL = 8
_HEADING_NAME = re.compile(r"heading ([1-9])")


def number(element: Element | None, default: int) -> int:
    value = "" if element is None else element.get(f"{W}val") or ""
    return int(value) if re.fullmatch(r"[0-9]{1,9}", value) else default


class Styles:
    """Numbers ordered items as it is asked: paragraphs come in reading order."""

    def __init__(self, document: Document) -> None:
        found = document.styles.element.iter(f"{W}style") if _has(document, "/styles") else ()
        self._styles = {style.get(f"{W}styleId"): style for style in found}
        self._ordered = _ordered(document)
        self._counts: dict[int, dict[int, int]] = defaultdict(dict)
        self.in_list = False

    def heading_level(self, paragraph: Element) -> int:
        """1 to 9, or 0."""
        for source in self._sources(paragraph):
            name = source.find(f"{W}name")
            name_of = "" if name is None else (name.get(f"{W}val") or "").lower()
            if match := _HEADING_NAME.fullmatch(name_of):
                return int(match[1])
            if name_of == "title":
                return 1
            level = number(source.find(f"{W}pPr/{W}outlineLvl"), 9)
            if level < 9:
                return level + 1
        return 0

    def list_mark(self, paragraph: Element) -> str | None:
        """With indentation and a blank behind it; None where it is no item."""
        for source in self._sources(paragraph):
            numbering = source.find(f"{W}pPr/{W}numPr")
            if numbering is None:
                continue
            list_id, level = number(numbering.find(f"{W}numId"), 0), number(numbering.find(f"{W}ilvl"), 0)
            return self._mark(list_id, min(level, MAX_LEVEL)) if list_id else None
        return None

    def _sources(self, paragraph: Element) -> list[Element]:
        """The paragraph in the shape of a style, its style, and what that is based on."""
        found = [paragraph]
        link = paragraph.find(f"{W}pPr/{W}pStyle")
        while link is not None and len(found) <= MAX_ANCESTORS:
            style = self._styles.get(link.get(f"{W}val"))
            if style is None:
                break
            found.append(style)
            link = style.find(f"{W}basedOn")
        return found

    def _mark(self, list_id: int, level: int) -> str:
        counts = self._counts[list_id]
        counts[level] = counts.get(level, 0) + 1
        for deeper in [other for other in counts if other > level]:
            del counts[deeper]
        mark = f"{counts[level]}." if (list_id, level) in self._ordered else "-"
        return f"{'  ' * level}{mark} "


def _has(document: Document, part: str) -> bool:
    """A part that is missing would be made from a template, which is a file, and a child opens none."""
    return any(relation.reltype.endswith(part) for relation in document.part.rels.values())


def _ordered(document: Document) -> set[tuple[int, int]]:
    """Lists and levels that count."""
    if not _has(document, "/numbering"):
        return set()
    numbering = document.part.numbering_part.element
    levels: dict[str | None, set[int]] = {}
    for abstract in numbering.iter(f"{W}abstractNum"):
        levels[abstract.get(f"{W}abstractNumId")] = {
            int(level.get(f"{W}ilvl") or 0)
            for level in abstract.iter(f"{W}lvl")
            if (kind := level.find(f"{W}numFmt")) is not None and kind.get(f"{W}val") not in ("bullet", "none")
        }
    found: set[tuple[int, int]] = set()
    for item in numbering.iter(f"{W}num"):
        link = item.find(f"{W}abstractNumId")
        abstract_id = None if link is None else link.get(f"{W}val")
        found.update((int(item.get(f"{W}numId") or 0), level) for level in levels.get(abstract_id, ()))
    return found
