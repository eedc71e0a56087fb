"""A chunker for each set of sizes, made when it is first needed: every version is cut by the sizes it was brought under."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence

from rag.profiles import Chunking
from rag.splitting.chunking import Chunker, Cut, Page, Piece, Sizes
from rag.splitting.parents import grouped

KEPT = 8  # each holds the tokenizer anew; services use a few profiles, and versions of former ones are rare


class Chunkers:
    """Any thread may ask."""

    def __init__(self, tokenizer_json: str) -> None:
        self._of = functools.lru_cache(maxsize=KEPT)(lambda sizes: Chunker(tokenizer_json, sizes))

    def split(
        self,
        chunking: Chunking,
        text: str,
        *,
        markdown: bool,
        title: str,
        outline: str = "",
        pages: Sequence[Page] = (),
    ) -> Iterator[Piece]:
        """As `Chunker.split`; `markdown` is what the text's reader made of it, which `chunking` may overrule. `outline`: of
        source code, as its reader made it, or empty.
        """
        sizes = Sizes(chunking.chunk_tokens, chunking.context_tokens, chunking.overlap_tokens)
        cut = _cut(chunking.splitter, markdown=markdown, outline=outline)
        chunker = self._of(sizes)
        pieces = chunker.split(text, cut, title=title, pages=pages)
        return grouped(text, pieces, chunking.parent_tokens, chunker.count) if chunking.parent_tokens else pieces


def _cut(splitter: str, *, markdown: bool, outline: str) -> Cut:
    """What `auto` means for this text; code without an outline is cut as plain text is."""
    if splitter in ("auto", "code") and outline:
        return Cut("code", outline)
    if splitter == "auto":
        return Cut("markdown" if markdown else "plain")
    return Cut("plain" if splitter == "code" else splitter)
