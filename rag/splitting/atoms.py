"""Where a text may be cut: the parts that a cut leaves whole, and how strong the boundary before each of them is.

Every loop passes over the text once, whatever it is made of.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from typing import NamedTuple

from rag.splitting.markdown import fence_after, heading

#: From the weakest boundary to the strongest; between the last two there is room for the depths of a syntax tree.
SLICE, WORD, SENTENCE, LINE, PARAGRAPH, BREAK = range(6)
SECTION = 100  # and what is above it: a heading of the sixth level is SECTION + 0, one of the first SECTION + 5
START = 200  # of a text
DEEPEST_HEADING = 6
LONG_WORD = 64  # characters; beyond it a word may be cut

#: Marks that end a sentence before white space, and those of East Asian scripts, which end one anywhere. What is behind the
#: white space decides too; it is looked at and not taken, so that every character is read once.
_END = re.compile(r"(?:([.!?…‽؟۔।॥።։။។]+)|([。！？｡．]+))[\"'”’»›)\]}」』】）]*(\s*)(?=(\S?))")
_ENDS = frozenset(".!?…‽؟۔।॥።։။។。！？｡．:;\"'”’»›)]}」』】）")
#: Behind which a full stop ends no sentence, in the languages of Western Europe; none that often stands at the end of one
#: ("etc", "Inc", "usw"). Those of the second list only before a number: "no" and "art" are words too.
_ANYWHERE = (
    "dr mr mrs ms mx prof rev hon gen col capt lt vs e.g i.e cf al approx hr fr dipl ing z.b d.h u.a bzw vgl sog ca mme mlle "
    "sr sra srta dott sig p.ej p.ex bijv dhr mevr"
)
_NUMBERED = "no nos nr nrs fig figs eq eqs sec secs ch chap vol vols p pp art arts tab abb abs kap bd s núm pág págs cap"
_ABBREVIATIONS, _BEFORE_A_NUMBER = frozenset(_ANYWHERE.split()), frozenset(_NUMBERED.split())
_LONGEST = max(map(len, _ABBREVIATIONS | _BEFORE_A_NUMBER)) + 2  # with a bracket before it, and what tells a longer word
_WORD = re.compile(r"\S+")
_SLICE = re.compile(r"\w{1,32}[^\w\s]{0,8}|[^\w\s]{1,32}")


class Atom(NamedTuple):
    start: int
    end: int
    level: int  #: of the boundary before it


def prose(text: str, *, markdown: bool = False, whole_sentences: bool = False) -> Iterator[Atom]:
    """Sentences of lines, paragraphs and, of Markdown, sections. A line that goes on in lower case is no end of one.

    `whole_sentences`: neither is one that goes on with any letter, unless it ends like a sentence.
    """
    level, fence, offset = START, "", 0
    last: Atom | None = None
    for line in io.StringIO(text, newline=""):
        bare = line.strip()
        start, offset = offset + len(line) - len(line.lstrip()), offset + len(line)
        before, fence = fence, fence_after(fence, line) if markdown else ""
        if not bare:
            level = _behind_a_blank_line(level, bool(fence))
            continue
        found = heading(line.removeprefix("\ufeff")) if markdown and not before and not fence else None
        level = max(level, _least_level(found, bool(fence and not before and level != WORD)))
        goes_on = level == LINE and last is not None and _goes_on(text[last.end - 1], bare[0], whole_sentences)
        for first, end in [(0, len(bare))] if before or fence or found else _sentences(bare):
            if last is not None and goes_on:
                last = Atom(last.start, start + end, last.level)
            else:
                if last is not None:
                    yield last
                last = Atom(start + first, start + end, level)
            level, goes_on = SENTENCE, False
        level = _level_after(found, before, fence)
    if last is not None:
        yield last


def _behind_a_blank_line(level: int, in_code: bool) -> int:
    """A heading stays with what it is above, and code together, as long as they fit."""
    if level == WORD:
        return level
    return max(level, LINE if in_code else BREAK if level == PARAGRAPH else PARAGRAPH)


def _least_level(found: tuple[int, str] | None, opens_code: bool) -> int:
    if found:
        return SECTION + DEEPEST_HEADING - found[0]
    return PARAGRAPH if opens_code else SLICE


def _level_after(found: tuple[int, str] | None, before: str, fence: str) -> int:
    if found:
        return WORD
    if fence:
        return SENTENCE
    return PARAGRAPH if before else LINE


def _goes_on(before: str, after: str, by_any_letter: bool) -> bool:
    return after.islower() or (by_any_letter and after.isalpha() and before not in _ENDS)


def _sentences(line: str) -> Iterator[tuple[int, int]]:
    first = 0
    for match in _END.finditer(line):
        behind = match.end()
        if behind == len(line):
            break
        if match[2] or _is_end(line, match):
            yield first, behind - len(match[3])
            first = behind
    yield first, len(line)


def _is_end(line: str, match: re.Match[str]) -> bool:
    """As Unicode's rules have it, lower case goes on with the sentence; so does what follows an initial or abbreviation."""
    if not match[3]:
        return False
    at = match.start()
    before = line[max(0, at - 2) : at]
    if before.endswith(" "):
        return True  # a mark that stands alone is set so in texts without capitals
    if match[4].islower():
        return False
    initial = before[-1:].isupper() and not before[:-1].isalpha()
    return match[1] != "." or not (initial or _is_abbreviation(line[max(0, at - _LONGEST) : at], match[4]))


def _is_abbreviation(before: str, after: str) -> bool:
    word = before.rpartition(" ")[2].lstrip("([“‘«\"'").casefold()
    return word in _ABBREVIATIONS or (word in _BEFORE_A_NUMBER and after.isdigit())


def words(text: str, start: int = 0, end: int | None = None, level: int = START) -> Iterator[Atom]:
    """Words of a part of the text, and of long ones slices; `level` is that of the part."""
    for word in _WORD.finditer(text, start, len(text) if end is None else end):
        if word.end() - word.start() <= LONG_WORD:
            yield Atom(word.start(), word.end(), level)
        else:
            for part in _SLICE.finditer(text, word.start(), word.end()):
                yield Atom(part.start(), part.end(), level)
                level = SLICE
        level = WORD
