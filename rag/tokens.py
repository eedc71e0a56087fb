"""Counts of tokens as language models see them, for context and usage. Never for splitting: embedding models count otherwise.

The ranks ship inside the package (sha256 checked), because tiktoken would download them at first use, without a timeout.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import lzma
from collections.abc import Sequence
from importlib import resources
from typing import Literal

import tiktoken

from config.errors import InvalidInput

EncodingName = Literal["o200k_base", "cl100k_base"]

_SHA256 = {
    "o200k_base": "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
    "cl100k_base": "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
}
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
_PATTERN = {
    "o200k_base": "|".join(
        (
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+" + _CONTRACTIONS,
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*" + _CONTRACTIONS,
            r"\p{N}{1,3}",
            r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
            r"\s*[\r\n]+",
            r"\s+(?!\S)",
            r"\s+",
        )
    ),
    "cl100k_base": (
        r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s"
    ),
}


@functools.cache
def encoding(name: EncodingName) -> tiktoken.Encoding:
    """Build the encoding from the shipped ranks. Takes about 0.4 s, once."""
    by_token = ranks(name)
    made = tiktoken.Encoding(
        name=f"carrel_{name}",  # a plugin that redefines a standard name must not reach us, nor we it
        pat_str=_PATTERN[name],
        mergeable_ranks=by_token,
        special_tokens={},
    )
    by_token.clear()  # 28 MB: the encoder has read them, and only what is not used here looks at them again
    return made


def ranks(name: EncodingName) -> dict[bytes, int]:
    """Every token of the encoding with its rank, from 0 without a gap: pairs of tokens are joined in this order."""
    packed = resources.files("rag").joinpath("data", f"{name}.tiktoken.xz").read_bytes()
    lines = lzma.decompress(packed)
    if hashlib.sha256(lines).hexdigest() != _SHA256[name]:
        raise RuntimeError(f"the token ranks of {name} inside the package are damaged; install it again")
    pairs = (line.split() for line in lines.splitlines())
    return {base64.b64decode(token): int(rank) for token, rank in pairs}


def text_of(tokens: Sequence[int], name: EncodingName = "cl100k_base") -> str:
    """The text that the tokens stand for; what is cut within a character is replaced. Raise InvalidInput."""
    known = encoding(name)
    if any(not 0 <= token < known.n_vocab for token in tokens):
        raise InvalidInput(f"A token is no token of {name}.", field="input", limit=known.n_vocab - 1)
    return known.decode(list(tokens), errors="replace")


def count_tokens(text: str, name: EncodingName = "o200k_base") -> int:
    """Tokens of the text. Special tokens inside it are ordinary text: a document cannot forge them."""
    return len(encoding(name).encode_ordinary(text))
