"""Parts of a web page that are not its content: what is not shown, and what every page of a site repeats.

Each is known by its own mark-up, never by a guess from density or place: what carries no such mark stays.
"""

from __future__ import annotations

import re

from bs4 import BeautifulSoup, Tag

NEVER_TEXT = {"script", "style", "noscript", "template", "svg", "iframe", "object", "head", "button", "select", "nav"}
REPEATED_ROLES = {"navigation", "search", "menu", "menubar", "contentinfo"}
_SECTIONS = ["article", "section", "main", "aside", "blockquote"]  # whose footer is their own, not the page's
_CONTENT = ["h1", "h2", "h3", "h4", "h5", "h6", "p", "li", "table", "pre", "article", "main"]
_UNSEEN = re.compile(
    r"(?:^|;)\s*(?:display\s*:\s*none|visibility\s*:\s*(?:hidden|collapse)"
    r"|(?:font-size|opacity)\s*:\s*0*\.?0+(?:px|pt|r?em|%)?\s*(?:;|!|$))",
    re.IGNORECASE,
)
_CONSENT = re.compile(
    r"(?:^|[\s_-])(?:cookies?|consent|gdpr|ccpa)[_-]?(?:banner|bar|notice|consent|popup|modal|dialog|overlay|message|wall|law|layer)"
    r"|onetrust|cookiebot|didomi|usercentrics|osano|qc-cmp|truste",
    re.IGNORECASE,
)
MAX_CONSENT_CHARS = 5_000  # of a banner with its settings: a page about cookies is longer, or has its own heading


def reduce(tree: BeautifulSoup) -> int:
    """Take them out; return how many characters were not shown, blanks not counted."""
    hidden = 0
    for element in tree.find_all(True):
        if element.decomposed:
            continue
        if element.name in NEVER_TEXT or _is_repeated(element):
            element.decompose()
        elif _is_unseen(element):
            hidden += sum(len("".join(text.split())) for text in element.stripped_strings)
            element.decompose()
    return hidden


def _is_unseen(element: Tag) -> bool:
    marks = element.attrs
    if not marks or element.name in ("html", "body"):
        return False
    style = marks.get("style")
    return "hidden" in marks or (isinstance(style, str) and bool(_UNSEEN.search(style)))


def _is_repeated(element: Tag) -> bool:
    marks = element.attrs
    if element.name == "footer" or marks.get("role") == "contentinfo":
        return element.find_parent(_SECTIONS) is None
    if marks.get("role") in REPEATED_ROLES:
        return True
    if marks.get("aria-hidden") == "true":  # ornaments; with a dialog open, the rest of a page carries the mark too
        return element.find(_CONTENT) is None and element.name not in (*_CONTENT, "body")
    return _asks_consent(element)


def _asks_consent(element: Tag) -> bool:
    marks = element.attrs
    named = " ".join([str(marks.get("id", "")), *marks.get("class", ())]) if "id" in marks or "class" in marks else ""
    if not named or element.name in ("html", "body", "main", "article") or not _CONSENT.search(named):
        return False
    return element.find(["h1", "main", "article"]) is None and len(element.get_text()) <= MAX_CONSENT_CHARS
