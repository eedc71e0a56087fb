"""Where source code may be cut: at its lines, each as strong as what begins there stands high in the syntax tree.

The tree is another's work: it can take gigabytes of a megabyte, so it is made where the document is read, and only its outline
is known here.
"""

from __future__ import annotations

from collections.abc import Iterator

from rag.splitting.atoms import BREAK, LINE, SECTION, START, WORD, Atom

LANGUAGES = frozenset(
    ["c", "c++", "csharp", "go", "java", "javascript", "php", "python", "ruby", "rust", "shell", "typescript"]
)
NOTHING, HIGHEST = ".", ord("A")


def outline(text: str, language: str) -> str:
    """A letter a line: how deep in the tree the outermost node stands that begins there, from A; NOTHING where none does. Empty
    if the language has no grammar, or its tree takes too long.
    """
    if language not in LANGUAGES:
        return ""
    from rag.splitting.grammars import depths

    if not (depth_of := depths(text, language)):
        return ""
    return "".join(chr(HIGHEST + depth_of[row]) if row in depth_of else NOTHING for row in range(text.count("\n") + 1))


def code(text: str, outline: str) -> Iterator[Atom]:
    """Lines. The strongest boundary is before a top-level definition and what is said above it."""
    level, behind_blank = START, False
    for row, (start, line) in enumerate(_lines(text)):
        bare = line.strip()
        if bare:
            first = start + len(line) - len(line.lstrip())
            yield Atom(first, first + len(bare), level if level == START else _level(outline[row : row + 1], behind_blank))
            level = WORD
        behind_blank = not bare


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """One at a time: a list of ten million takes half a gigabyte."""
    start = 0
    while (end := text.find("\n", start)) >= 0:
        yield start, text[start:end]
        start = end + 1
    yield start, text[start:]


def _level(letter: str, behind_blank: bool) -> int:
    """Two for each depth: of neighbours, those that no blank line parts stay together longer."""
    if letter in ("", NOTHING):
        return LINE if behind_blank else WORD
    depth = ord(letter) - HIGHEST
    if depth <= 1:
        return SECTION + behind_blank
    return max(BREAK, SECTION - 2 * depth + behind_blank)
