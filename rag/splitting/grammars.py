"""Syntax trees of source code. The grammars take 7 MB and 0.1 s, so this is imported with the first code there is."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping

import tree_sitter_bash
import tree_sitter_c
import tree_sitter_c_sharp
import tree_sitter_cpp
import tree_sitter_go
import tree_sitter_java
import tree_sitter_javascript
import tree_sitter_php
import tree_sitter_python
import tree_sitter_ruby
import tree_sitter_rust
import tree_sitter_typescript
from tree_sitter import Language, Node, Parser, Tree, TreeCursor

GRAMMARS: Mapping[str, Callable[[], object]] = {
    "c": tree_sitter_c.language,
    "c++": tree_sitter_cpp.language,
    "csharp": tree_sitter_c_sharp.language,
    "go": tree_sitter_go.language,
    "java": tree_sitter_java.language,
    "javascript": tree_sitter_javascript.language,
    "php": tree_sitter_php.language_php,
    "python": tree_sitter_python.language,
    "ruby": tree_sitter_ruby.language,
    "rust": tree_sitter_rust.language,
    "shell": tree_sitter_bash.language,
    "typescript": tree_sitter_typescript.language_tsx,
}
MAX_PARSE_S = 5.0  # some grammars take seconds for a megabyte of opening brackets
PART_BYTES = 1 << 16
MAX_DEPTH = 40  # what is nested deeper counts as part of what is around it


def depths(text: str, language: str) -> dict[int, int]:
    """By row, from 0: how deep in the tree the outermost node stands that begins there. Empty if reading takes too long; what
    is no valid code has a tree all the same.
    """
    tree = _tree(text.encode(), language)
    return {} if tree is None else _walk(tree.walk())


def _tree(content: bytes, language: str) -> Tree | None:
    deadline = time.monotonic() + MAX_PARSE_S

    def read(offset: int, _point: object) -> bytes:  # only of a source that is read by parts the progress is told
        return content[offset : offset + PART_BYTES]

    def late(_offset: int, _has_error: bool) -> bool:
        return time.monotonic() > deadline

    try:
        return Parser(_grammar(language)).parse(read, progress_callback=late)
    except ValueError:  # how it says that it was stopped
        return None


@functools.lru_cache(maxsize=len(GRAMMARS))
def _grammar(language: str) -> Language:
    return Language(GRAMMARS[language]())


def _walk(cursor: TreeCursor) -> dict[int, int]:
    """Pass once over the nodes that have more than one line, and over what is in them."""
    rows: dict[int, int] = {}
    while (node := cursor.node) is not None:
        rows.setdefault(node.start_point.row, cursor.depth)
        if _is_worth_entering(node, cursor.depth) and cursor.goto_first_child():
            continue
        while not cursor.goto_next_sibling():
            if not cursor.goto_parent():
                return rows
    return rows


def _is_worth_entering(node: Node, depth: int) -> bool:
    return depth < MAX_DEPTH and node.end_point.row > node.start_point.row
