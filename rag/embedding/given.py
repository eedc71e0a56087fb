"""Texts that are embedded for whoever keeps the vectors himself: as they are given, or as this service embeds its own."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tokenizers import Tokenizer

from config.errors import InvalidInput
from rag.embedding.runtime import Matrix, unit_rows
from rag.embedding.service import Embedded, EmbeddingService
from rag.types import Meter, Scope

MAX_TEXTS, MAX_TOKENS = 2_048, 300_000  # of one call
URGENT_TEXTS = 16  #: as few go before jobs; more would keep questions waiting
Kind = Literal["query", "document"]


@dataclass(frozen=True, slots=True)
class Wish:
    texts: Sequence[str]
    kind: Kind | None = None  #: by which of the model's prompts they are read; None: without one
    dimensions: int | None = None
    truncate: bool = False  #: whether a text that is too long is cut instead of refused


class GivenTexts:
    """`cut`: whether the model's vectors may be cut to their first dimensions, which only its operator knows."""

    def __init__(self, embedding: EmbeddingService, *, cut: bool) -> None:
        self._embedding, self._cut = embedding, cut

    def embed(self, scope: Scope, meter: Meter, wish: Wish, *, charge_id: str) -> tuple[Matrix, Embedded]:
        """Unit vectors in the order of the texts. Raise InvalidInput, BudgetExhausted, Unavailable."""
        fingerprint = self._embedding.model.fingerprint
        dimensions = self._dimensions(wish.dimensions)
        if not 1 <= len(wish.texts) <= MAX_TEXTS:
            raise InvalidInput(f"1 to {MAX_TEXTS} texts.", field="input", limit=MAX_TEXTS)
        if not all(text.strip() for text in wish.texts):
            raise InvalidInput("A text to embed is not empty.", field="input")
        prompts = {None: "", "query": fingerprint.query_prompt, "document": fingerprint.document_prompt}
        texts = [prompts[wish.kind] + text for text in wish.texts]
        self._require_fit(texts, truncate=wish.truncate)
        embedded = self._embedding.embed_now(scope, meter, texts, charge_id=charge_id, urgent=len(texts) <= URGENT_TEXTS)
        return (embedded.vectors if dimensions is None else unit_rows(embedded.vectors, dimensions)), embedded

    def _dimensions(self, wanted: int | None) -> int | None:
        """None: all of them."""
        whole = self._embedding.space.dimensions
        if wanted is None or wanted == whole:
            return None
        if not self._cut:
            detail = f"The model's vectors have {whole} dimensions, and are not made to be cut."
            raise InvalidInput(detail, field="dimensions", limit=whole)
        if not 1 <= wanted < whole:
            raise InvalidInput(f"1 to {whole} dimensions.", field="dimensions", limit=whole)
        return wanted

    def _require_fit(self, texts: Sequence[str], *, truncate: bool) -> None:
        counts, window = self._embedding.model.count_tokens(texts), self._embedding.model.fingerprint.max_tokens
        if sum(counts) > MAX_TOKENS:
            raise InvalidInput(f"At most {MAX_TOKENS} tokens at once.", field="input", limit=MAX_TOKENS)
        if truncate:
            return
        for text, count in zip(texts, counts, strict=True):
            # A model may count no further than it reads.
            if count >= window and (count > window or len(_whole(self._embedding.model.tokenizer_json).encode(text)) > window):
                raise InvalidInput(f"The model reads {window} tokens of a text, and one has more.", field="input", limit=window)


@functools.lru_cache(maxsize=2)
def _whole(tokenizer_json: str) -> Tokenizer:
    """The model's tokenizer without its limit."""
    tokenizer = Tokenizer.from_str(tokenizer_json)
    tokenizer.no_truncation()
    return tokenizer
