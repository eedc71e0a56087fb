"""Where source code may be cut: at its lines, each as strong as what begins there stands high in the syntax tree."""

from __future__ import annotations

from collections.abc import Iterator

from rag.atoms import BREAK, LINE, SECTION, START, WORD, Atom

LANGUAGES = frozenset(
    ["c", "c++", "csharp", "go", "java", "javascript", "php", "python", "ruby", "rust", "shell", "typescript"]
)


def code(text: str, language: str) -> Iterator[Atom]:
    """Lines of a language of LANGUAGES. The strongest boundary is before a top-level definition and what is said above it."""
    from rag.grammars import depths

    depth_of = depths(text, language)
    offset, level, behind_blank = 0, START, False
    for row, line in enumerate(text.split("\n")):
        bare = line.strip()
        if bare:
            start = offset + len(line) - len(line.lstrip())
            yield Atom(start, start + len(bare), level if level == START else _level(depth_of.get(row), behind_blank))
            level = WORD
        behind_blank = not bare
        offset += len(line) + 1


def _level(depth: int | None, behind_blank: bool) -> int:
    """Two for each depth: of neighbours, those that no blank line parts stay together longer."""
    if depth is None:
        return LINE if behind_blank else WORD
    if depth <= 1:
        return SECTION + behind_blank
    return max(BREAK, SECTION - 2 * depth + behind_blank)
