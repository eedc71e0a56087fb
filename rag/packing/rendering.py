"""How a passage stands in a context: between delimiters that no document can forge, with where it came from.

<passage id="1" title="Loans" source="rules.pdf" document="rules" version="2" page="3" section="Rules › Loans">
Books may be kept for four weeks.
</passage>
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from rag.retrieval.question import Passage

TAG = "passage"
#: Every element that a context can have: none of them may be forged by what stands in another.
TAGS = (TAG, "pinned", "recap", "memory", "turn")
_BEGINNINGS = frozenset(tag[:length] for tag in TAGS for length in range(1, len(tag) + 1))
MAX_ATTRIBUTE_CHARS = 200
_LONE = re.compile("[\ud800-\udfff]")
#: Characters that are `<` or become it when text is normalised (NFKC).
_OPENING = re.compile("[<\uff1c\ufe64]")
#: As chat templates mark turns, some in wide signs: some programs read these in any text that they are given.
_CONTROL = re.compile("[|\uff5c][\\w\u2581 :./-]{1,64}[|\uff5c][>\uff1e\ufe65]")
_ENTITIES = {"&": "&amp;", '"': "&quot;", "<": "&lt;", ">": "&gt;", "\uff1c": "&lt;", "\ufe64": "&lt;"}


@dataclass(frozen=True, slots=True)
class Piece:
    """What is shown of a passage: all of it, or what the piece before it has not shown already."""

    passage: Passage
    start: int  #: in the document's text
    end: int

    @property
    def text(self) -> str:
        return self.passage.text[self.start - self.passage.start : self.end - self.passage.start]


@dataclass(frozen=True, slots=True)
class Citation:
    """`context[context_start:context_end]` shows characters `start` to `end` of the document's text."""

    number: int  #: the `id` of the element that it stands in
    passage: Passage
    start: int
    end: int
    context_start: int
    context_end: int


@dataclass(frozen=True, slots=True)
class Rendered:
    text: str
    citations: tuple[Citation, ...] = ()


Block = Sequence[Piece]  #: neighbours in one document, in reading order


def render(blocks: Sequence[Block]) -> Rendered:
    """Equal blocks give equal bytes. The text is valid Unicode whatever the passages hold."""
    parts: list[str] = []
    citations: list[Citation] = []
    length = 0
    for number, block in enumerate(blocks, 1):
        opening = ("\n" if parts else "") + _opening(number, block)
        parts.append(opening)
        length += len(opening)
        joints = ["", *(_joint(after.start - before.end) for before, after in pairwise(block))]
        shown = _escaped([part for joint, piece in zip(joints, block, strict=True) for part in (joint, piece.text)])
        for place, piece in enumerate(block):
            at = length + len(shown[2 * place])
            length = at + len(shown[2 * place + 1])
            citations.append(Citation(number, piece.passage, piece.start, piece.end, at, length))
        parts += shown
        parts.append(_CLOSING)
        length += len(_CLOSING)
    return Rendered("".join(parts), tuple(citations))


_CLOSING = f"\n</{TAG}>"


def _joint(gap: int) -> str:
    """The splitter left out white space between neighbours, of which only the length is known here."""
    return "\n" * min(gap, 2)


def _opening(number: int, block: Block) -> str:
    first, pages = block[0].passage, [piece.passage for piece in block]
    given = {
        "id": str(number),
        "title": first.title,
        "source": first.source or "",
        "document": first.external_id,
        "version": str(first.version),
        "page": _pages(pages),
        "section": " › ".join(first.headings),
        "warnings": ", ".join(dict.fromkeys(warning for passage in pages for warning in passage.warnings)),
    }
    shown = " ".join(f'{name}="{attribute(value)}"' for name, value in given.items() if value)
    return f"<{TAG} {shown}>\n"


def _pages(passages: Sequence[Passage]) -> str:
    numbers = [page for passage in passages for page in (passage.first_page, passage.last_page) if page is not None]
    if not numbers:
        return ""
    return str(min(numbers)) if min(numbers) == max(numbers) else f"{min(numbers)}-{max(numbers)}"


def attribute(value: str) -> str:
    """One line, without what ends an attribute, a tag, or a line anywhere."""
    line = " ".join("".join(" " if unicodedata.category(c)[0] in "CZ" else c for c in _LONE.sub("�", value)).split())
    cut = line if len(line) <= MAX_ATTRIBUTE_CHARS else line[: MAX_ATTRIBUTE_CHARS - 1] + "…"
    return "".join(_ENTITIES.get(character, character) for character in cut)


def escaped(text: str) -> str:
    """The text, except that what would read as a delimiter, or as a chat template's mark, begins with `&lt;`."""
    return _escaped([text])[0]


def _escaped(parts: Sequence[str]) -> list[str]:
    """The same of texts that stand next to each other: a delimiter could be spread over them."""
    whole = _LONE.sub("�", "".join(parts))
    openings = [found.start() for found in _OPENING.finditer(whole) if _delimits(whole, found.end())]
    shown, at = [], 0
    for part in parts:
        end = at + len(part)
        inside = openings[bisect_left(openings, at) : bisect_left(openings, end)]
        cuts = [at, *(cut for opening in inside for cut in (opening, opening + 1)), end]
        shown.append("&lt;".join(whole[start:stop] for start, stop in zip(cuts[::2], cuts[1::2], strict=True)))
        at = end
    return shown


def _delimits(text: str, at: int) -> bool:
    """Whether a tag of ours goes on here, in any case or width of its letters, with blanks or invisible characters between.

    No run of what is passed over holds another `<`, so all calls for a text look at each character a few times at most.
    """
    if _CONTROL.match(text, at):
        return True
    read = ""
    for place in range(at, len(text)):
        character = text[place]
        more = read + unicodedata.normalize("NFKC", character).casefold()
        if more in _BEGINNINGS:
            read = more
            if read in TAGS:
                return True
        elif not (_blank(character) or (not read and more in "/\\!?")):
            return False
    return False


def _blank(character: str) -> bool:
    """Not seen, or next to nothing: separators, control and format characters, marks that join what stands before."""
    return unicodedata.category(character)[0] in "ZCM"
