"""Parts of a web page that are not its content: what is not shown, and what every page of a site repeats.

Each is known by its own mark-up, never by a guess from density or place: what carries no such mark stays.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass

from bs4 import BeautifulSoup, Tag
from bs4.element import NavigableString

NEVER_TEXT = {"script", "style", "noscript", "template", "svg", "iframe", "object", "head", "button", "select", "nav"}
REPEATED_ROLES = {"navigation", "search", "menu", "menubar", "contentinfo"}
_SECTIONS = frozenset({"article", "section", "main", "aside", "blockquote"})  # whose footer is their own, not the page's
_CONTENT = frozenset({"h1", "h2", "h3", "h4", "h5", "h6", "p", "li", "table", "pre", "article", "main"})
_MAIN = frozenset({"h1", "main", "article"})
_UNSEEN = re.compile(
    r"(?:^|;)\s*(?:display\s*:\s*none|visibility\s*:\s*(?:hidden|collapse)"
    r"|(?:font-size|opacity)\s*:\s*(?:0+(?:\.0*)?|\.0+)(?:px|pt|r?em|%)?\s*(?:;|!|$))",
    re.IGNORECASE,
)
_CONSENT = re.compile(
    r"(?:^|[\s_-])(?:cookies?|consent|gdpr|ccpa)[_-]?(?:banner|bar|notice|consent|popup|modal|dialog|overlay|message|wall|law|layer)"
    r"|onetrust|cookiebot|didomi|usercentrics|osano|qc-cmp|truste",
    re.IGNORECASE,
)
MAX_CONSENT_CHARS = 5_000  # of a banner with its settings: a page about cookies is longer, or has its own heading


@dataclass(slots=True)
class _Inside:
    """What is below an element."""

    chars: int = 0
    content: bool = False  #: one of _CONTENT
    main: bool = False  #: one of _MAIN


def reduce(tree: BeautifulSoup) -> int:
    """Take them out; return how many characters were not shown, blanks not counted."""
    hidden = 0
    inside = _insides(tree)
    for element in tree.find_all(True):
        if element.decomposed:
            continue
        if element.name in NEVER_TEXT or _is_repeated(element, inside[id(element)]):
            element.decompose()
        elif _is_unseen(element):
            hidden += sum(len("".join(text.split())) for text in element.stripped_strings)
            element.decompose()
    return hidden


def _insides(tree: BeautifulSoup) -> defaultdict[int, _Inside]:
    """Of each element, by its id, in one pass: nested marks would have the same text looked through once for each."""
    inside = defaultdict[int, _Inside](_Inside)
    for node in reversed([*tree.descendants]):
        of_parent = inside[id(node.parent)]
        if isinstance(node, Tag):
            own = inside[id(node)]
            of_parent.chars += own.chars
            of_parent.content |= own.content or node.name in _CONTENT
            of_parent.main |= own.main or node.name in _MAIN
        elif isinstance(node, NavigableString):
            of_parent.chars += len(node)
    return inside


def _is_unseen(element: Tag) -> bool:
    marks = element.attrs
    if not marks or element.name in ("html", "body"):
        return False
    style = marks.get("style")
    return "hidden" in marks or (isinstance(style, str) and bool(_UNSEEN.search(style)))


def _is_repeated(element: Tag, inside: _Inside) -> bool:
    marks = element.attrs
    if element.name == "footer" or marks.get("role") == "contentinfo":
        return element.find_parent(_SECTIONS) is None
    if marks.get("role") in REPEATED_ROLES:
        return True
    if marks.get("aria-hidden") == "true":  # ornaments; with a dialog open, the rest of a page carries the mark too
        return not inside.content and element.name not in (*_CONTENT, "body")
    return _asks_consent(element, inside)


def _asks_consent(element: Tag, inside: _Inside) -> bool:
    marks = element.attrs
    named = " ".join([str(marks.get("id", "")), *marks.get("class", ())]) if "id" in marks or "class" in marks else ""
    if not named or element.name in ("html", "body", "main", "article") or not _CONSENT.search(named):
        return False
    return not inside.main and inside.chars <= MAX_CONSENT_CHARS
