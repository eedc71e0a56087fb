"""Tokens of a context as the model counts them that will read it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Literal

from tokenizers import Tokenizer

from rag.embedding.runtime import EmbeddingModel
from rag.tokens import EncodingName, count_tokens

#: `embedding` is the tokenizer of the loaded embedding model, as models of its family count.
TokenizerName = Literal[EncodingName, "embedding"]


def counter(name: TokenizerName, model: EmbeddingModel) -> Callable[[str], int]:
    """Tokens of a text without those that a model adds around it. What looks like a special token in it is counted, too."""
    if name != "embedding":
        return functools.partial(count_tokens, name=name)
    tokenizer = _whole(model.tokenizer_json)
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)


@functools.lru_cache(maxsize=2)
def _whole(tokenizer_json: str) -> Tokenizer:
    """The model's own truncates."""
    tokenizer = Tokenizer.from_str(tokenizer_json)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
