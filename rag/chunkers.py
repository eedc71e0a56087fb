"""A chunker for each set of sizes, made when it is first needed: every version is cut by the sizes it was brought under."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence

from rag.chunking import Chunker, Page, Piece, Sizes
from rag.profiles import Chunking

KEPT = 8  # each holds the tokenizer anew; services use a few profiles, and versions of former ones are rare


class Chunkers:
    """Any thread may ask."""

    def __init__(self, tokenizer_json: str) -> None:
        self._of = functools.lru_cache(maxsize=KEPT)(lambda sizes: Chunker(tokenizer_json, sizes))

    def split(
        self, chunking: Chunking, text: str, *, markdown: bool, title: str, pages: Sequence[Page] = ()
    ) -> Iterator[Piece]:
        """As `Chunker.split`; `markdown` is what the text's reader made of it, which `chunking` may overrule."""
        sizes = Sizes(chunking.chunk_tokens, chunking.context_tokens, chunking.overlap_tokens)
        return self._of(sizes).split(text, markdown=chunking.markdown(markdown), title=title, pages=pages)
